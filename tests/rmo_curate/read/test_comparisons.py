"""Two answers and a label: every label means what its data set says, ties and unknown labels are no pairs."""

from __future__ import annotations

import pytest

from rmo_curate.read.forms import FORMS, candidates, convert
from rmo_curate.read.messages import RejectReason, Unfit
from tests.rmo_curate.read.published_forms import CONVERSATIONS, SUMMARIES, a, u
from tests.rmo_curate.read.reading import jsonl, pairs, read, reasons

TURNS = {"conversation_a": CONVERSATIONS["chosen"], "conversation_b": CONVERSATIONS["rejected"]}
# Form -> a record whose answers are, in order, "yes" and "no"; its labels for the first, the second, neither, nobody.
CASES = {
    "pku-saferlhf": ({"prompt": "Q", "response_0": "yes", "response_1": "no"}, "better_response_id", 0, 1, None, 2),
    "shp": ({"history": "Q", "human_ref_A": "yes", "human_ref_B": "no"}, "labels", 1, 0, None, "A"),
    "helpsteer3": ({"context": [u("Q")], "response1": "yes", "response2": "no"}, "overall_preference", -1, 3, 0, "x"),
    "helpsteer2": ({"prompt": "Q", "response_1": "yes", "response_2": "no"}, "preference_strength", "-2", 1, 0, "?"),
    "arena": (TURNS, "winner", "model_a", "Model_B", "tie (bothbad)", "model_c"),
    "arena-answers": (
        {"prompt": "Q", "response_a": "yes", "response_b": "no"}, "winner", "model_a", "model_b", "tie", 1),
    "summarize-from-feedback": (
        {"info": {"post": "Q"}, "summaries": SUMMARIES[::-1]}, "choice", 0, 1.0, None, -1),
    "alpacafarm": ({"instruction": "Q", "output_1": "yes", "output_2": "no"}, "preference", 1.2, 2, 1.5, "both"),
    "halos": ({"prompt": "Q", "output_A": "yes", "output_B": "no"}, "label", True, "0", None, 7),
    "tinker": (
        {"comparison": {"prompt_conversation": [u("Q")], "completion_A": [a("yes")], "completion_B": [a("no")]}},
        "label", "A", "B", "Tie", "C"),
}  # fmt: skip


def answered(form, record):
    (candidate,) = candidates(FORMS[form], record)
    _, chosen, rejected = convert(FORMS[form], candidate)
    return chosen[0]["content"], rejected[0]["content"]


def refusal(form, record):
    with pytest.raises(Unfit) as caught:
        answered(form, record)
    return caught.value


@pytest.mark.parametrize("form", CASES)
def test_a_label_names_the_chosen_answer_and_a_tie_names_none(form):
    record, column, first, second, tie, nobody = CASES[form]
    assert answered(form, record | {column: first}) == ("yes", "no")
    assert answered(form, record | {column: second}) == ("no", "yes")
    if tie is not None:
        found = refusal(form, record | {column: tie})
        assert found.reason is RejectReason.NO_PREFERENCE and str(found).endswith("a tie")
    unknown = refusal(form, record | {column: nobody})
    assert unknown.reason is RejectReason.NO_PREFERENCE and column in str(unknown)
    assert refusal(form, record | {column: None}).reason is RejectReason.MISSING_FIELD


def test_scores_and_flags_name_the_chosen_answer():
    webgpt = {"question": {"full_text": "Q"}, "answer_0": "yes", "answer_1": "no", "score_0": 1, "score_1": -1}
    assert answered("webgpt", webgpt) == ("yes", "no")
    assert answered("webgpt", webgpt | {"score_1": 2}) == ("no", "yes")
    assert refusal("webgpt", webgpt | {"score_1": 1}).reason is RejectReason.NO_PREFERENCE
    lmsys = {"prompt": '["Q"]', "response_a": '["yes"]', "response_b": '["no"]', "winner_tie": 0}
    assert answered("kaggle-lmsys", lmsys | {"winner_model_a": 1, "winner_model_b": 0}) == ("yes", "no")
    assert answered("kaggle-lmsys", lmsys | {"winner_model_a": "0", "winner_model_b": "1"}) == ("no", "yes")
    tie = refusal("kaggle-lmsys", lmsys | {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1})
    assert tie.reason is RejectReason.NO_PREFERENCE
    other = lmsys | {"prompt": '["Q", "R"]', "winner_model_a": 1, "winner_model_b": 0}
    assert refusal("kaggle-lmsys", other).reason is RejectReason.BAD_MESSAGES


def test_the_strength_of_a_preference_and_what_is_said_of_each_answer_stay_beside_the_pair(tmp_path):
    helpful = {"prompt": "Q", "response_1": "yes", "response_2": "no", "preference_strength": -3, "split": "train"}
    source, (pair,) = read(jsonl(tmp_path / "a.jsonl", helpful))
    assert pair.extra == {"split": "train", "chosen_answer": "response_1", "preference_strength": 3.0}
    arena = {**TURNS, "winner": "model_b", "model_a": "m1", "model_b": "m2", "judge": "x", "id": "k"}
    _, (pair,) = read(jsonl(tmp_path / "b.jsonl", arena))
    expected = {"judge": "x", "chosen_answer": "conversation_b", "chosen_model": "m2", "rejected_model": "m1"}
    assert (pair.id, pair.extra) == ("k", expected)
    source, records = read(jsonl(tmp_path / "c.jsonl", arena, arena | {"winner": "tie", "id": "l"}))
    assert reasons(records) == ["pair", "no_preference"]
    assert not any("ranked answers" in note for note in source.notes)
    assert '"winner": "tie"' in records[1].raw


def test_the_judged_turn_of_a_conversation_is_its_answer():
    later = [u("more"), a("later")]
    turns = {side: said + later for side, said in TURNS.items()}
    (candidate,) = candidates(FORMS["arena"], turns | {"winner": "model_a", "turn": 1})
    assert convert(FORMS["arena"], candidate) == ([u("Q")], [a("yes")], [a("no")])
    (candidate,) = candidates(FORMS["arena"], turns | {"winner": "model_a", "turn": 2})
    assert convert(FORMS["arena"], candidate)[1] == [a("yes"), *later]


def node(text, role, rank=None, *replies):
    return {"text": text, "role": role, "rank": rank, "replies": list(replies)}


def test_a_tree_gives_the_pairs_of_every_question_in_it(tmp_path):
    below = node("more", "prompter", None, node("fine", "assistant", 1), node("good", "assistant", 0))
    tree = node(
        "Q", "prompter", None, node("no", "assistant", 1), node("yes", "assistant", 0, below), node("?", "assistant")
    )
    source, records = read(jsonl(tmp_path / "a.jsonl", {"id": "t", "prompt": tree}))
    assert [(p.id, [m["content"] for m in p.prompt], p.chosen[0]["content"], p.rejected[0]["content"])
            for p in pairs(records)] == [
        ("t/2-1", ["Q"], "yes", "no"),
        ("t/2.1/2-1", ["Q", "yes", "more"], "good", "fine"),
    ]  # fmt: skip
    assert pairs(records)[0].extra == {"chosen_rank": 0, "rejected_rank": 1}
    assert source.input_records == 1


def test_a_tree_without_ranks_is_no_pair():
    tree = node("Q", "prompter", None, node("yes", "assistant"), node("no", "assistant"))
    with pytest.raises(Unfit) as caught:
        candidates(FORMS["open-assistant"], {"prompt": tree})
    assert caught.value.reason is RejectReason.NO_PREFERENCE
