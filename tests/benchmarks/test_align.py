"""The alignment experiment: checkers, pairs, flips, the recovered share, and cells from end to end on a tiny model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import align, align_tasks
from benchmarks.align_cells import Cell
from benchmarks.align_data import Answer, closest, flipped, make_pairs, read_answers, write_answers
from benchmarks.align_table import recovered, win_rate
from benchmarks.align_tasks import Experiment, drawn
from benchmarks.constraint_prompts import PARTS, make_prompts, topics_of
from benchmarks.constraints import KINDS, Constraint, draw
from benchmarks.sampling import Ask, sample
from benchmarks.schedule import Schedule, Task
from rmo_train.store.files import read_json

# kind, what it asks for, an answer that does, answers that do not
EXAMPLES = [
    ("loud-word", {}, "It is VERY wet.", ["It is Very wet.", "I am at A B C."]),
    ("at-most", {"number": 3}, "Don't go out!", ["Do not go out.", "..."]),
    ("at-least", {"number": 4}, "A well-kept garden grows.", ["A well-kept garden."]),
    ("bullets", {"number": 2}, "Look:\n- one\n* two", ["- one", "1. one\n2. two", "-one\n-two"]),
    ("numbered", {"number": 2}, "1. soap\n2) water", ["1. soap", "1. soap\n2. water\n3. air", "1. soap\n3. water"]),
    ("json", {"key": "title"}, '```json\n{"title": "Bees", "n": 2}\n```', ['{"name": 1}', '["title"]', "title: Bees"]),
    ("keyword", {"word": "water"}, "Drink Water, please.", ["Drink waters."]),
    ("without-word", {"word": "of"}, "Soften the offer.", ["A cup of tea.", ""]),
    ("starts", {"word": "The"}, '"The" end', ["Then it rained.", ""]),
    ("ends", {"phrase": "Good luck"}, "Now go. Good luck!", ["Good luck to you.", ""]),
    ("no-comma", {}, "Red and blue.", ["Red, blue.", ""]),
    ("quotation", {}, "He said “stop” to me.", ['He said "stop.', 'An empty "" pair']),
    ("question", {}, "Why? Because.", ["Why not."]),
    ("one-sentence", {}, "Some 3.5 bees left", ['He said "no." Then 3.5 left', "One. Two.", ""]),
    ("last-mark", {"mark": "question mark"}, "Is it?", ["Is it? Yes."]),
    ("digits", {}, "Some 3 bees.", ["Three bees."]),
]


def test_there_are_examples_of_every_kind():
    assert {kind for kind, *_ in EXAMPLES} == set(KINDS) and len(KINDS) >= 12


@pytest.mark.parametrize(("kind", "given", "right", "wrong"), EXAMPLES, ids=[kind for kind, *_ in EXAMPLES])
def test_checkers_by_hand(kind, given, right, wrong):
    constraint = Constraint(kind, given, "")
    assert set(given) == set(KINDS[kind].choices)
    assert constraint.holds(right) and constraint.holds(f"  {right}\n")
    assert [answer for answer in wrong if constraint.holds(answer)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_wordings_say_what_they_ask_for(kind):
    for n in range(20):
        drawn = draw(kind, n)
        assert all(str(value) in drawn.wording for value in drawn.given.values())
        assert drawn == draw(kind, n)


def test_prompts_are_different_and_no_topic_is_in_two_parts():
    parts = {part: make_prompts(part, 200, 0) for part in PARTS}
    texts = [p.text for prompts in parts.values() for p in prompts]
    assert len(set(texts)) == len(texts) == 600
    assert sum(len(topics_of(part)) for part in PARTS) == len({t for part in PARTS for t in topics_of(part)}) >= 60
    for part, prompts in parts.items():
        assert {p.topic for p in prompts} <= set(topics_of(part))
    kinds = Counter(p.constraint.kind for p in make_prompts("train", 48 * len(KINDS), 0))
    assert set(kinds.values()) == {48}


def answers_to(prompts, tokens=((10, True), (30, True), (12, False), (29, False), (11, True))):
    """Answers of these lengths that satisfy or do not; the last of them was cut off."""
    return [
        Answer(p.id, f"{p.id} answer {n}", length, n < len(tokens) - 1, holds)
        for p in prompts
        for n, (length, holds) in enumerate(tokens)
    ]


def test_pairs_are_a_satisfying_answer_over_one_that_does_not_of_like_length(tmp_path):
    prompts = make_prompts("train", 3, 0)
    answers = answers_to(prompts)
    write_answers(tmp_path / "a.jsonl", answers)
    pairs = make_pairs(prompts, read_answers([tmp_path / "a.jsonl"]), most=2)
    assert len(pairs) == 6 and len({p["id"] for p in pairs}) == 6
    of_text = {a.text: a for a in answers}
    for n, pair in enumerate(pairs):
        chosen, rejected = of_text[pair["chosen"]], of_text[pair["rejected"]]
        assert chosen.satisfies and rejected.finished and not rejected.holds
        # Differences of 1 (30 over 29) and 2 (10 over 12); the answer of 11 tokens would be nearer, but it was cut off.
        assert (chosen.tokens, rejected.tokens) == ((30, 29), (10, 12))[n % 2]
        assert pair["prompt"] == prompts[n // 2].text and pair["kind"] == prompts[n // 2].constraint.kind


def test_no_answer_is_in_two_pairs():
    good, bad = ([Answer("p", f"{n}", n, True, True) for n in lengths] for lengths in ((10, 14), (11, 30)))
    # Differences: 10 and 11 differ by 1; 14 and 11 by 3, but 11 is used; 14 and 30 are left.
    assert closest(good, bad) == [("10", "11"), ("14", "30")]


def test_flips_are_by_rate_and_seed():
    rows = [{"id": str(n), "chosen": "a" * (n % 7), "rejected": "bbb"} for n in range(2000)]
    first = flipped(rows, "uniform", 0.3, 1)
    assert abs(len(first) / 2000 - 0.3) < 0.03  # sd 0.01
    assert first == flipped(rows, "uniform", 0.3, 1) != flipped(rows, "uniform", 0.3, 2)
    assert first < flipped(rows, "uniform", 0.4, 1) and flipped(rows, "none", 0.0, 1) == set()
    longer = flipped(rows, "longer", 0.3, 1)
    assert len(longer) == 600 and all(int(i) % 7 < 3 for i in longer)  # a shorter answer had been chosen


def test_recovered_share_and_win_rate_by_hand():
    plain, arm, oracle = np.array([0.2, 0.4]), np.array([0.3, 0.6]), np.array([0.5, 0.6])
    # Means 0.3, 0.45 and 0.55: 0.15 of 0.25.
    assert recovered(arm, plain, oracle) == pytest.approx(0.6)
    assert np.isnan(recovered(arm, plain, plain))
    # Prompt 1: wins 0.3 x 0.8, ties 0.3 x 0.2 + 0.7 x 0.8, so 0.24 + 0.31; prompt 2: 0.36 + 0.24: the mean.
    assert win_rate(arm, plain) == pytest.approx((0.55 + 0.60) / 2)


def test_greedy_samples_are_the_trainers_own_decoding(tiny_model_folder):
    from rmo_train.generation.decoding import Decoding, Request, decode
    from rmo_train.model.policy import load_model

    model = load_model(str(tiny_model_folder), "float32")
    prompts = [[*range(5, 6 + n % 4), 40 + n] for n in range(12)]
    ends = (2, 40, 41, 42, 77, 78, 79)  # many, so that rows end at different steps
    expected = decode(model, [Request(p, 0) for p in prompts], Decoding(24, 0.0, 1.0, ends))
    found = sample(model, [Ask(p, False) for p in prompts], ends, new_tokens=24, batch_size=12, seed=0)
    assert found == expected and len({len(a) for a in found}) > 1
    drawn = [
        sample(model, [Ask(p, True) for p in prompts], ends, new_tokens=24, batch_size=12, seed=s) for s in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_tasks_wait_for_what_they_need_and_a_failure_stops_no_other(tmp_path):
    def work(task: Task) -> None:
        if task.payload == "fails":
            raise ValueError("so it is")
        ran.append(task.name)
        task.out.touch()

    ran: list[str] = []
    a = Task("a", "k", tmp_path / "a", (), None)
    bad = Task("bad", "k", tmp_path / "bad", (), "fails")
    after_bad = Task("after bad", "k", tmp_path / "c", (bad.out,), None)
    b = Task("b", "k", tmp_path / "b", (a.out,), None)
    schedule = Schedule(1, None, lambda: None)
    schedule.run([a, bad, after_bad, b], work)
    assert ran == ["a", "b"] and schedule.failed == {"bad": "ValueError: so it is"}
    assert schedule.settled([a, bad]) and not schedule.settled([after_bad])
    late = Schedule(1, 0.0, lambda: None)
    late.run([Task("c", "k", tmp_path / "d", (), None)], work)
    assert ran == ["a", "b"]


@pytest.fixture(scope="module")
def ran(tiny_model_folder, tmp_path_factory) -> Experiment:
    """The tiny size run from end to end on written answers, with a second data set of pairs alone."""
    folder = tmp_path_factory.mktemp("align")
    plan = yaml.safe_load((Path(align.__file__).parent / "plan.yaml").read_text(encoding="utf-8"))["align"]
    plan["new_tokens"] = plan["answer_tokens"] = 8
    # The tiny model knows so little that no label is more likely wrong than right: flip where the probe disagrees.
    plan["arms"]["flip"]["filter"] |= {"rule": "irm", "noise_rate": "0.4"}
    cells = plan["sizes"]["tiny"]["cells"]
    cells.append({"data": "judged", "loss": "dpo", "arms": ["plain", "flip"], "flips": ["uniform 0.4"], "seeds": [1]})
    files = {name: Path("data/demo") / f"{name}.jsonl" for name in ("train", "heldout")}
    x = Experiment(
        plan, "tiny", str(tiny_model_folder), folder / "work", folder / "results", files["train"], files["heldout"]
    )
    for part in ("train", "heldout"):
        (file,) = x.answers(part)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_answers(file, answers_to(x.prompts(part)))
    align.run(x, None, None)
    return x


def test_cells_run_from_end_to_end(ran):
    assert read_json(ran.results / "failed.json") == {}
    found = {c.arm: read_json(ran.results / f"{c.name}.json") for c in ran.cells() if c.data == "constraints"}
    assert set(found) == {"base", "oracle", "plain", "quantiles", "drop", "random", "soft-label"}
    assert not [cell for cell in found.values() if "refused" in cell]
    for cell in found.values():
        assert len(cell["satisfied"]) == len(cell["tokens"]) == 17 and {len(s) for s in cell["satisfied"]} == {3}
        assert len(cell["margins"]) == 34
    base, plain, oracle = found["base"], found["plain"], found["oracle"]
    assert set(base["kl"]) == {0.0} and np.abs(base["margins"]).max() < 0.05
    assert any(plain["kl"]) and plain["pairs"]["kept"] == oracle["pairs"]["kept"] == 68
    assert oracle["pairs"]["flipped"] == 0 < plain["pairs"]["flipped"] == plain["pairs"]["flipped_kept"] < 34
    assert found["random"]["pairs"]["kept"] == found["drop"]["pairs"]["kept"]
    assert found["soft-label"]["pairs"]["label_confidence_of_right"] < 1


def test_pairs_that_the_filter_flipped_back_are_no_longer_wrong(ran):
    plain, flip = (read_json(ran.results / f"judged-dpo-{arm}-uniform40-s1.json")["pairs"] for arm in ("plain", "flip"))
    assert flip["kept"] == plain["kept"] and flip["flipped"] == plain["flipped_kept"] != flip["flipped_kept"]


def test_a_finished_run_is_not_done_again_and_the_table_reads_it(ran, monkeypatch, tmp_path):
    monkeypatch.setattr(align_tasks, "run_cell", None)  # would fail
    align.run(ran, None, None)
    monkeypatch.setattr(align, "SUMMARY", tmp_path / "align.json")
    lines = "\n".join(align.table(ran))
    assert "0 cells missing" in lines
    assert "### constraints, dpo, 30% flipped (uniform)" in lines and "### judged, dpo, 40% flipped" in lines
    rows = {(r["data"], r["arm"]): r for r in read_json(tmp_path / "align.json")["rows"]}
    assert rows["constraints", "quantiles"]["satisfied_to_plain"].keys() == {"value", "low", "high"}
    assert "recovered" in rows["constraints", "soft-label"]
    align.pack(ran, tmp_path / "all.tar.gz")
    assert (tmp_path / "all.tar.gz").stat().st_size


def test_a_cell_of_another_tuning_is_trained_again(ran):
    plain, base = (ran.results / f"constraints-dpo-{name}.json" for name in ("plain-uniform30-s0", "base-none0-s0"))
    kept = plain.read_text()
    try:
        align.remove_stale(ran)
        assert plain.exists()
        plain.write_text(kept.replace('"learning_rate": 1e-05', '"learning_rate": 3e-05'))
        align.remove_stale(ran)
        assert not plain.exists() and base.exists()
    finally:
        plain.write_text(kept)


def test_a_smaller_set_is_of_whole_prompts_in_their_order():
    rows = [{"prompt": f"p{n % 30}", "id": n} for n in range(90)]
    few = drawn(rows, 20)
    assert len(few) == 18 and [row["id"] for row in few] == sorted(row["id"] for row in few)
    assert {row["id"] for row in rows if row["prompt"] in {r["prompt"] for r in few}} == {row["id"] for row in few}
    assert {r["id"] for r in few} < {r["id"] for r in drawn(rows, 40)} and drawn(rows, None) is rows


def test_names_of_cells_are_different():
    plan = yaml.safe_load((Path(align.__file__).parent / "plan.yaml").read_text(encoding="utf-8"))["align"]
    x = Experiment(plan, "gpu", "m", Path("w"), Path("r"), Path("j"), Path("h"))
    cells = x.cells()
    assert len({c.name for c in cells}) == len(cells) > 100
    sizes = (Experiment(plan, size, "m", Path("w"), Path("r")).cells() for size in ("cpu", "demo", "tiny"))
    assert {c.arm for c in (*cells, *(c for own in sizes for c in own))} == set(plan["arms"])
    assert cells[0] == Cell("constraints", "dpo", "base", "none", 0.0, 0)
