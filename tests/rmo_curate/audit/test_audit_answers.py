"""What is told from one answer: each check by texts that have the defect, and by texts that only look like it."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmo_curate.audit import answers

SENTENCE = "The boat left the harbour early in the morning and nobody on the quay knew where it was bound. "
LONG = SENTENCE * 3


@pytest.mark.parametrize(
    "text",
    [
        LONG + "It was last seen by a fisherman who told the harbour master that the",
        LONG + "It was carrying salt,",
        LONG + "These are the things that it carried:",
        "Here it is:\n```python\nprint(1)\n",
        LONG + "The captain, a quiet man from the north of the country, was never again seen by anyo",
    ],
)
def test_answers_that_stop_short(text: str):
    assert answers.truncated(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        LONG,
        LONG + "“Nobody knew.”",
        "Here it is:\n```python\nprint(1)\n```",
        LONG + "\n- salt\n- rope\n- a barrel of herring",
        LONG + "\n\n**Email:** [Your Email Address]\n\n---",
        LONG + "See https://example.org/a/very/long/path/that/goes/on/and/on/and/never/stops/at/all/for/a/reader",
        '"Believe in yourself and all that you are, for there is something in you that is greater." - Somebody Famous',
        LONG + "21336 * 5012 = 21336 * 5000 + 21336 * 10 + 21336 * 2 = 106680000 + 213360 + 42672 = 106936032",
        LONG + "I owe you a coffee, and the next two weeks of your own plants as well. Warm wishes, Jo",
        LONG + "Follow me for more of this and of everything else that is new out at sea! #boats #harbour #morning",
        "\n".join(
            f"The {thing} that was carried over the sea by the boat in the early spring"
            for thing in ("a", "b", "c", "d")
        ),
        'Wrap it in back-ticks, as in `code` or with a fence of "`````" around all of it.',
    ],
)
def test_answers_that_do_not(text: str):
    assert not answers.truncated(text)


@pytest.mark.parametrize(
    ("check", "found", "not_found"),
    [
        (answers.refusal, "I'm sorry, but I can't help with that.", "I can help with that. I am sorry for your loss."),
        (answers.refusal, "Sorry, I cannot.", "Sorry, I am running ten minutes late; please start without me."),
        (answers.refusal, "I’m not able to open files.", "She said: " + "word " * 80 + "I cannot provide it."),
        (answers.boilerplate, "As an AI language model, I like it.", "An artificial lake lies behind the dam."),
        (answers.repetitive, "and then again " * 40, SENTENCE),
        (
            answers.repetitive,
            "\n".join(["the very same line over and over"] * 5 + ["x y z " + str(i) for i in range(60)]),
            "| | | | | | | |\n" * 9 + SENTENCE,
        ),
        (answers.encoding, "Itâ€™s broken", "It’s fine, naïve and Ålesund"),
        (answers.encoding, "a\x07bell", "tab\tand\nline"),
        (answers.template_marker, "fine<|im_end|>\n<|im_start|>user", "a < b | c > d"),
        (answers.template_marker, "Sure.\nHuman: and now?", "A human: being"),
    ],
)
def test_other_checks(check, found: str, not_found: str):
    assert check(found)
    assert not check(not_found)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello", "Latin"),
        ("Привет мир", "Cyrillic"),
        ("你好", "Chinese or Japanese"),
        ("مرحبا", "Arabic"),
        ("123 !?", ""),
    ],
)
def test_scripts(text: str, script: str):
    assert answers.script(text) == script


@hypothesis.settings(deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=400))
def test_no_check_fails_on_any_text(text: str):
    for check in answers.CHECKS.values():
        assert isinstance(check(text), str)
    answers.script(text)


def test_checks_of_a_megabyte_take_no_time():
    """No pattern backtracks: a megabyte of what each nearly matches is read at once."""
    import time

    for text in (
        "i can not " * 100_000,
        "`" * 1_000_000,
        "#" * 1_000_000,
        " " * 1_000_000 + "x",
        '"-' * 500_000,
        "Human" * 200_000,
    ):
        start = time.perf_counter()
        for check in answers.CHECKS.values():
            check(text)
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", ["BOILERPLATE", "MARKER", "REFUSAL"])
def test_whatever_a_pattern_finds_has_one_of_its_hints(name: str):
    """The words looked for first lose nothing: texts made from the pattern itself have one of them."""
    pattern, hints = getattr(answers, name), getattr(answers, f"{name}_HINTS")

    @hypothesis.settings(deadline=None, max_examples=300)
    @given(st.from_regex(pattern))
    def holds(text: str):
        given_text = text if name == "MARKER" else text.lower()
        assert any(hint in given_text for hint in hints)

    holds()


def test_ascii_damage_is_control_characters_alone():
    for code in range(128):
        assert bool(answers.DAMAGE.search(chr(code))) == bool(answers.CONTROL.search(chr(code)))
