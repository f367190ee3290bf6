"""Every form of preference data becomes the same messages; what cannot become a pair says why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmo_curate.forms import FORMS, convert, recognise
from rmo_curate.messages import RejectReason, Unfit, split_conversations


def u(text):
    return {"role": "user", "content": text}


def a(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def converted(record):
    form = recognise(record)
    assert form is not None
    return form.name, convert(form, record)


def refused(record, form=None):
    judged_as = FORMS[form] if form else recognise(record)
    assert judged_as is not None
    with pytest.raises(Unfit) as caught:
        convert(judged_as, record)
    return caught.value.reason


PAIR = ([u("Q")], [a("yes")], [a("no")])


@pytest.mark.parametrize(
    ("form", "record"),
    [
        ("trl-standard", {"prompt": "Q", "chosen": "yes", "rejected": "no"}),
        ("trl-conversational", {"prompt": [u("Q")], "chosen": [a("yes")], "rejected": [a("no")]}),
        ("trl-conversational", {"prompt": [u("Q")], "chosen": [u("Q"), a("yes")], "rejected": [u("Q"), a("no")]}),
        ("prompt-and-conversation", {"prompt": "Q", "chosen": [u("Q"), a("yes")], "rejected": [u("Q"), a("no")]}),
        ("prompt-and-conversation", {"prompt": "Q", "chosen": [a("yes")], "rejected": [a("no")]}),
        ("trl-implicit", {"chosen": [u("Q"), a("yes")], "rejected": [u("Q"), a("no")]}),
        ("trl-implicit", {"prompt": None, "chosen": [u("Q"), a("yes")], "rejected": [u("Q"), a("no")]}),
        ("hh-rlhf", {"chosen": "\n\nHuman: Q\n\nAssistant: yes", "rejected": "\n\nHuman: Q\n\nAssistant: no"}),
        ("hh-rlhf", {"chosen": "Human: Q\n\nAssistant: yes", "rejected": "Human: Q\n\nAssistant: no"}),
    ],
)
def test_each_form_is_recognised_and_gives_the_same_pair(form, record):
    assert converted(record) == (form, PAIR)


@pytest.mark.parametrize(("chosen", "rejected"), [("No", "No, never"), ("No, never", "No"), ("Alpha", "Beta")])
def test_answers_stay_whole_when_one_begins_the_other_or_they_differ_at_once(chosen, rejected):
    expected = ([u("Q")], [a(chosen)], [a(rejected)])
    assert converted({"prompt": "Q", "chosen": chosen, "rejected": rejected})[1] == expected
    assert converted({"chosen": [u("Q"), a(chosen)], "rejected": [u("Q"), a(rejected)]})[1] == expected
    hh = {"chosen": f"\n\nHuman: Q\n\nAssistant: {chosen}", "rejected": f"\n\nHuman: Q\n\nAssistant: {rejected}"}
    assert converted(hh)[1] == expected


def test_a_conversation_that_continues_the_other_keeps_its_answers_apart():
    # All messages of `chosen` are common, yet its answer is no part of the prompt.
    record = {"chosen": [u("Q"), a("yes")], "rejected": [u("Q"), a("yes"), u("sure?"), a("no")]}
    assert converted(record)[1] == ([u("Q")], [a("yes")], [a("yes"), u("sure?"), a("no")])


def test_hh_is_split_at_the_last_common_assistant_turn():
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: tea?\n\nAssistant:"
    _, (prompt, chosen, rejected) = converted({"chosen": start + " Yes, green.", "rejected": start + " Yes, black."})
    assert prompt == [u("hi"), a("hello"), u("tea?")]
    assert (chosen, rejected) == ([a("Yes, green.")], [a("Yes, black.")])


def test_hh_dialogues_that_part_before_the_last_turn_become_responses_of_several_turns():
    chosen = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: tea?\n\nAssistant: yes"
    rejected = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: coffee?\n\nAssistant: no"
    # They part at a human turn: the last turn that begins alike and is answered is the first one.
    expected = ([u("hi")], [a("hello"), u("tea?"), a("yes")], [a("hello"), u("coffee?"), a("no")])
    assert converted({"chosen": chosen, "rejected": rejected})[1] == expected


def test_conversations_that_differ_from_the_first_message_have_no_prompt():
    assert refused({"chosen": [u("Q"), a("yes")], "rejected": [u("R"), a("no")]}) is RejectReason.EMPTY_PROMPT
    assert refused({"chosen": [a("yes")], "rejected": [a("no")]}) is RejectReason.EMPTY_PROMPT
    hh = {"chosen": "\n\nHuman: Q\n\nAssistant: x", "rejected": "\n\nHuman: R\n\nAssistant: y"}
    assert refused(hh) is RejectReason.EMPTY_PROMPT


def test_a_system_prompt_before_the_first_user_turn_is_kept():
    record = {"prompt": "Q", "chosen": [system(""), u("Q"), a("yes")], "rejected": [system(""), u("Q"), a("no")]}
    assert converted(record)[1] == ([system(""), u("Q")], [a("yes")], [a("no")])


def test_a_conversation_about_another_prompt_is_refused():
    record = {"prompt": "Q", "chosen": [u("Q"), a("yes")], "rejected": [u("other"), a("no")]}
    assert refused(record) is RejectReason.BAD_MESSAGES


@pytest.mark.parametrize(
    ("reason", "record"),
    [
        ("identical_responses", {"prompt": "Q", "chosen": "x", "rejected": "x"}),
        ("identical_responses", {"prompt": [u("Q")], "chosen": [a("x")], "rejected": [a("x")]}),
        ("identical_responses", {"chosen": [u("Q"), a("x")], "rejected": [u("Q"), a("x")]}),
        ("empty_response", {"prompt": "Q", "chosen": "x", "rejected": " \n"}),
        ("empty_response", {"prompt": [u("Q")], "chosen": [], "rejected": [a("x")]}),
        ("empty_response", {"chosen": "\n\nHuman: Q\n\nAssistant:", "rejected": "\n\nHuman: Q\n\nAssistant: x"}),
        ("empty_prompt", {"prompt": "", "chosen": "x", "rejected": "y"}),
        ("empty_prompt", {"prompt": [], "chosen": [a("x")], "rejected": [a("y")]}),
        ("bad_messages", {"prompt": [u("Q"), a("A")], "chosen": [a("x")], "rejected": [a("y")]}),
        ("bad_messages", {"prompt": [u("Q")], "chosen": [a("x"), u("more")], "rejected": [a("y")]}),
        ("bad_messages", {"prompt": [u("Q")], "chosen": [u("R"), a("x")], "rejected": [a("y")]}),
        ("bad_messages", {"prompt": [u(""), a("A"), u("Q")], "chosen": [a("x")], "rejected": [a("y")]}),
        ("bad_messages", {"prompt": [{"role": "bard", "content": "Q"}], "chosen": [a("x")], "rejected": [a("y")]}),
        ("bad_messages", {"prompt": [u("Q")], "chosen": [a("x") | {"tool_calls": [{}]}], "rejected": [a("y")]}),
        ("not_text", {"prompt": [u("Q")], "chosen": [a(None)], "rejected": [a("y")]}),
        ("not_text", {"prompt": "Q", "chosen": "\ud800", "rejected": "y"}),
    ],
)
def test_each_defect_has_its_reason(reason, record):
    assert refused(record) == reason


def test_a_record_is_judged_by_the_form_of_its_source():
    standard = {"prompt": "Q", "chosen": "x", "rejected": "y"}
    hh = {"chosen": "\n\nHuman: Q\n\nAssistant: x", "rejected": "\n\nHuman: Q\n\nAssistant: y"}
    assert refused(standard, "hh-rlhf") is RejectReason.OTHER_FORM
    assert refused(standard, "trl-conversational") is RejectReason.OTHER_FORM
    assert refused(hh | {"prompt": 5}, "hh-rlhf") is RejectReason.OTHER_FORM
    assert refused(hh, "trl-standard") is RejectReason.MISSING_FIELD
    assert refused(standard | {"chosen": 3}, "trl-standard") is RejectReason.NOT_TEXT
    assert refused(hh | {"chosen": "no turns"}, "hh-rlhf") is RejectReason.BAD_MESSAGES
    before = "words before the first turn" + hh["chosen"]
    assert refused(hh | {"chosen": before}, "hh-rlhf") is RejectReason.BAD_MESSAGES


def test_plain_texts_without_a_prompt_are_no_form():
    assert recognise({"chosen": "It is A.", "rejected": "It is B."}) is None


turns = st.lists(
    st.builds(lambda r, c: {"role": r, "content": c}, st.sampled_from(["user", "assistant"]), st.sampled_from("xyz")),
    max_size=6,
)


@given(turns, turns)
def test_splitting_loses_no_message_and_the_prompt_is_the_longest_that_both_answer(chosen, rejected):
    if chosen == rejected:
        return
    prompt, ends_well, ends_badly = split_conversations(chosen, rejected)
    assert prompt + ends_well == chosen
    assert prompt + ends_badly == rejected

    def is_prompt(n):
        answered = all(len(c) > n and c[n]["role"] == "assistant" for c in (chosen, rejected))
        return chosen[:n] == rejected[:n] and answered and chosen[n - 1]["role"] == "user"

    shortest = min(len(chosen), len(rejected))
    assert len(prompt) == max((n for n in range(1, shortest) if is_prompt(n)), default=0)
