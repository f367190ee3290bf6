"""Every form of preference data becomes the same messages; what cannot become a pair says why."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.read.forms import FORMS, candidates, recognise
from rmo_curate.read.forms import convert as convert_candidate
from rmo_curate.read.messages import RejectReason, Unfit, split_conversations


def u(text):
    return {"role": "user", "content": text}


def a(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def convert(form, record):
    (candidate,) = candidates(form, record)
    return convert_candidate(form, candidate)


def turn(who, text):
    return {"from": who, "value": text}


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
        ("llama-factory-alpaca", {"instruction": "Q", "chosen": "yes", "rejected": "no"}),
        ("llama-factory-alpaca", {"instruction": "Q", "input": "", "chosen": "yes", "rejected": "no", "history": []}),
        (
            "llama-factory-sharegpt",
            {"conversations": [turn("human", "Q")], "chosen": turn("gpt", "yes"), "rejected": turn("gpt", "no")},
        ),
        ("llama-factory-sharegpt", {"conversations": [u("Q")], "chosen": a("yes"), "rejected": a("no"), "system": ""}),
        ("argilla", {"instruction": "Q", "chosen_response": "yes", "rejected_response": "no"}),
        ("intel-orca", {"system": "", "question": "Q", "chosen": "yes", "rejected": "no"}),
        ("input-and-answers", {"system": None, "input": "Q", "chosen": "yes", "rejected": "no"}),
        (
            "nectar",
            {
                "prompt": "\n\nHuman: Q\n\nAssistant: ",
                "answers": [{"answer": "no", "rank": 2.0}, {"answer": "yes", "rank": 1.0}],
            },
        ),
        ("nectar", {"prompt": "Q", "answers": [{"answer": "yes", "rank": 1}, {"answer": "no", "rank": 2}]}),
        (
            "nemo-rl",
            {
                "context": [u("Q")],
                "completions": [{"rank": 0, "completion": [a("yes")]}, {"rank": 1, "completion": [a("no")]}],
            },
        ),
    ],
)
def test_each_form_is_recognised_and_gives_the_same_pair(form, record):
    assert converted(record) == (form, PAIR)


WITH_SYSTEM = ([system("Be brief."), u("Q")], [a("yes")], [a("no")])
ANSWERS = {"chosen": "yes", "rejected": "no"}


@pytest.mark.parametrize(
    "record",
    [
        {"system": "Be brief.", "instruction": "Q", **ANSWERS},
        {"system": "Be brief.", "question": "Q", **ANSWERS},
        {"system": "Be brief.", "input": "Q", **ANSWERS},
        {"system": "Be brief.", "instruction": "Q", "chosen_response": "yes", "rejected_response": "no"},
        {"system": "Be brief.", "conversations": [turn("human", "Q")],
         "chosen": turn("gpt", "yes"), "rejected": turn("gpt", "no")},
        {"system": "Be brief.", "conversations": [turn("system", "Be brief."), turn("human", "Q")],
         "chosen": turn("gpt", "yes"), "rejected": turn("gpt", "no")},
        {"context": [system("Be brief."), u("Q")],
         "completions": [{"rank": 0, "completion": [a("yes")]}, {"rank": 1, "completion": [a("no")]}]},
    ],
)  # fmt: skip
def test_a_system_prompt_comes_first_and_once(record):
    assert converted(record)[1] == WITH_SYSTEM


def test_instruction_and_input_are_one_turn_after_the_history():
    record = {"instruction": "Translate.", "input": "Bonjour", "history": [["hi", "hello"]], **ANSWERS}
    expected = ([u("hi"), a("hello"), u("Translate.\nBonjour")], [a("yes")], [a("no")])
    assert converted(record)[1] == expected
    assert converted(record | {"history": '[["hi", "hello"]]'})[1] == expected
    argilla = {"instruction": "Translate.", "input": "Bonjour", "chosen_response": "yes", "rejected_response": "no"}
    assert converted(argilla)[1] == (expected[0][2:], *expected[1:])


def test_a_shared_conversation_keeps_its_turns_and_names_roles_as_messages_do():
    turns = [turn("human", "hi"), turn("gpt", "hello"), turn("human", "tea?"), turn("observation", "4 o'clock")]
    record = {"conversations": turns, "chosen": turn("gpt", "yes"), "rejected": turn("gpt", "no")}
    tool = {"role": "tool", "content": "4 o'clock"}
    assert converted(record)[1] == ([u("hi"), a("hello"), u("tea?"), tool], [a("yes")], [a("no")])


def test_a_text_prompt_that_the_conversations_repeat_is_not_put_before_them():
    # UltraFeedback-binarized: `prompt` is the first user turn of both conversations.
    chosen, rejected = [u("Q"), a("yes")], [u("Q"), a("no")]
    prompt, *_ = converted({"prompt": " Q\n", "chosen": chosen, "rejected": rejected, "score_chosen": 8.0})[1]
    assert prompt == [u("Q")]


RANKED = [
    {"answer": "good", "rank": 1.0, "model": "A"},
    {"answer": "bad", "rank": 3.0, "model": "B"},
    {"answer": "fair", "rank": 2.0, "model": "C"},
    {"answer": "fine", "rank": 2.0, "model": "D"},
]


def test_ranked_answers_give_every_two_of_different_rank_and_ties_none():
    record = {"prompt": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: Q\n\nAssistant:", "answers": RANKED}
    form = FORMS["nectar"]
    found = candidates(form, record)
    assert [c.name for c in found] == ["1-2", "1-3", "1-4", "3-2", "4-2"]
    assert convert_candidate(form, found[3]) == ([u("hi"), a("hello"), u("Q")], [a("fair")], [a("bad")])
    assert found[3].extra == {
        "chosen_rank": 2.0, "rejected_rank": 3.0, "chosen_model": "C", "rejected_model": "B"
    }  # fmt: skip


@settings(deadline=None)  # the clock of a busy machine is no promise
@given(st.lists(st.integers(0, 3), max_size=7))
def test_the_number_of_pairs_of_a_ranking_is_that_of_its_untied_twos(ranks):
    record = {"prompt": "Q", "answers": [{"answer": str(i), "rank": r} for i, r in enumerate(ranks)]}
    untied = sum(x != y for i, x in enumerate(ranks) for y in ranks[:i])
    if not untied:
        assert refused(record, "nectar") is RejectReason.NO_PREFERENCE
        return
    found = candidates(FORMS["nectar"], record)
    assert len(found) == untied == len({c.name for c in found})
    assert all(c.extra["chosen_rank"] < c.extra["rejected_rank"] for c in found)


@pytest.mark.parametrize(("chosen", "rejected"), [("No", "No, never"), ("No, never", "No"), ("Alpha", "Beta")])
def test_answers_stay_whole_when_one_begins_the_other_or_they_differ_at_once(chosen, rejected):
    expected = ([u("Q")], [a(chosen)], [a(rejected)])
    assert converted({"prompt": "Q", "chosen": chosen, "rejected": rejected})[1] == expected
    assert converted({"chosen": [u("Q"), a(chosen)], "rejected": [u("Q"), a(rejected)]})[1] == expected
    hh = {"chosen": f"\n\nHuman: Q\n\nAssistant: {chosen}", "rejected": f"\n\nHuman: Q\n\nAssistant: {rejected}"}
    assert converted(hh)[1] == expected
    alike = ({"prompt": "Q"}, {"question": "Q"}, {"instruction": "Q"}, {"input": "Q"})
    for question in alike:
        assert converted({**question, "chosen": chosen, "rejected": rejected})[1] == expected
    share = {"conversations": [turn("human", "Q")], "chosen": turn("gpt", chosen), "rejected": turn("gpt", rejected)}
    assert converted(share)[1] == expected
    whole = {"prompt": "Q", "chosen": [u("Q"), a(chosen)], "rejected": [u("Q"), a(rejected)]}
    assert converted(whole)[1] == expected
    ranked = {"prompt": "Q", "answers": [{"answer": chosen, "rank": 1}, {"answer": rejected, "rank": 2}]}
    assert converted(ranked)[1] == expected


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
        ("empty_prompt", {"instruction": " ", "input": "", **ANSWERS}),
        ("bad_messages", {"instruction": "Q", "history": [["hi"]], **ANSWERS}),
        ("not_text", {"instruction": "Q", "history": "no list", **ANSWERS}),
        ("not_text", {"question": "Q", "system": 5, **ANSWERS}),
        (
            "bad_messages",
            {
                "conversations": [turn("function_call", "{}"), turn("human", "Q")],
                "chosen": turn("gpt", "yes"),
                "rejected": turn("gpt", "no"),
            },
        ),
        (
            "bad_messages",
            {"conversations": [turn("human", "Q")], "chosen": turn("human", "yes"), "rejected": turn("gpt", "no")},
        ),
        (
            "bad_messages",
            {
                "conversations": [turn("system", "Be kind."), turn("human", "Q")],
                "system": "Be brief.",
                "chosen": turn("gpt", "yes"),
                "rejected": turn("gpt", "no"),
            },
        ),
        ("no_preference", {"prompt": "Q", "answers": [{"answer": "x", "rank": 1}]}),
        ("no_preference", {"prompt": "Q", "answers": [{"answer": "x", "rank": 1}, {"answer": "y", "rank": None}]}),
        (
            "no_preference",
            {"prompt": "Q", "answers": [{"answer": "x", "rank": 1}, {"answer": "y", "rank": float("nan")}]},
        ),
        ("not_text", {"prompt": "Q", "answers": [{"answer": "x", "rank": 1}, {"answer": 5, "rank": 2}]}),
        ("identical_responses", {"prompt": "Q", "answers": [{"answer": "x", "rank": 1}, {"answer": "x", "rank": 2}]}),
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
    assert refused(standard | {"question": "Q"}, "intel-orca") is RejectReason.OTHER_FORM
    assert refused(standard | {"chosen": 3}, "trl-standard") is RejectReason.NOT_TEXT
    assert refused(hh | {"chosen": "no turns"}, "hh-rlhf") is RejectReason.BAD_MESSAGES
    before = "words before the first turn" + hh["chosen"]
    assert refused(hh | {"chosen": before}, "hh-rlhf") is RejectReason.BAD_MESSAGES


def test_plain_texts_without_a_prompt_are_no_form():
    assert recognise({"chosen": "It is A.", "rejected": "It is B."}) is None


def test_the_examples_in_the_documents_are_what_they_say():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "data.md").read_text(encoding="utf-8")
    section = page.split("## Forms")[1].split("## Other columns")[0]
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", section, re.M))
    assert named == set(FORMS)
    records = [
        json.loads(line)
        for block in re.findall(r"```json\n(.*?)```", section, re.S)
        for line in block.split("\n")
        if line
    ]
    shown = [converted(record) for record in records]
    assert {chosen[0]["content"] for _, (_, chosen, _) in shown} == {"11", "13", "No.", "No, they are mammals."}
    assert {form for form, _ in shown} <= named


def test_a_question_column_is_known_by_its_name_whatever_its_answers_quote():
    quoting = "Write:\n\nHuman: x\n\nAssistant: "
    record = {"question": "Q", "chosen": quoting + "y", "rejected": quoting + "z"}
    assert convert(FORMS["intel-orca"], record) == ([u("Q")], [a(quoting + "y")], [a(quoting + "z")])


turns = st.lists(
    st.builds(lambda r, c: {"role": r, "content": c}, st.sampled_from(["user", "assistant"]), st.sampled_from("xyz")),
    max_size=6,
)


@settings(deadline=None)  # the clock of a busy machine is no promise
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
