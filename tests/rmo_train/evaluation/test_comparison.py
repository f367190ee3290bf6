"""Two evaluations of the same pairs: what is compared, what is refused, and what the command says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmo_train.console.errors import UserError
from rmo_train.data.pairs import PairData, open_pairs
from rmo_train.evaluation.comparison import compare
from rmo_train.evaluation.evaluate import summarise
from rmo_train.evaluation.metrics import accuracy
from rmo_train.evaluation.result import Evaluation, read_evaluation, rounded
from rmo_train.report import comparison_lines, evaluation_lines
from rmo_train.store.files import read_json, write_json
from rmo_train.training.command import run_eval, run_training
from rmo_train.training.settings import TrainSettings
from tests.command_line import train

ABOVE, BELOW = 1.0, -1.0


def evaluated(data: PairData, margins: list[float]) -> Evaluation:
    """The evaluation of a policy with these reward margins."""
    reference = np.stack([data.ref_chosen, data.ref_rejected], axis=1)
    return summarise(data, reference + np.stack([margins, np.zeros(len(margins))], axis=1))


@pytest.fixture
def data(shards: Path) -> PairData:
    """24 pairs of 24 prompts, their reference log-probs 0: rewards are exact."""
    found = open_pairs(shards)
    return replace(found, ref_chosen=np.zeros(24), ref_rejected=np.zeros(24))


def test_a_comparison_by_hand(data: PairData):
    a = evaluated(data, [BELOW] * 12 + [ABOVE] * 12)
    b = evaluated(data, [ABOVE] * 9 + [BELOW] * 3 + [ABOVE] * 11 + [BELOW])
    found = compare(a, b)
    assert (found.pairs, found.prompts, found.same_reference) == (24, 24, True)
    # 12 of 24 right before, 20 after: 9 gained and 1 lost
    assert found.reward_accuracy.difference.value == pytest.approx(8 / 24)
    assert (found.reward_accuracy.a, found.reward_accuracy.b) == (0.5, pytest.approx(20 / 24))
    assert found.reward_accuracy.verdict == "higher"
    # 2 (C(10, 0) + C(10, 1)) / 2^10
    assert (found.mcnemar.b_alone, found.mcnemar.a_alone, found.mcnemar.ties) == (9, 1, 0)
    assert found.mcnemar.p == pytest.approx(22 / 1024)
    assert compare(b, a).reward_accuracy.verdict == "lower"


def test_pairing_sees_what_overlapping_intervals_do_not(data: PairData):
    a = evaluated(data, [BELOW] * 12 + [ABOVE] * 12)
    b = evaluated(data, [BELOW] * 6 + [ABOVE] * 18)  # 6 gained: p = 2 / 2^6
    assert a.reward_accuracy.high > b.reward_accuracy.low
    assert compare(a, b).reward_accuracy.verdict == "higher"


def test_few_prompts_give_no_verdict_and_every_figure_its_n(data: PairData):
    few = data.subset(np.arange(6))
    a, b = evaluated(few, [BELOW] * 6), evaluated(few, [ABOVE] * 6)
    found = compare(a, b)
    assert found.reward_accuracy.verdict == "too few to tell" and found.reward_accuracy.difference.low < 1
    assert "6 pairs of 6 prompts; A -> B" in comparison_lines(found)[0]
    assert "of 6 pairs: exact two-sided p = 0.031" in comparison_lines(found)[3]
    said = evaluation_lines(b)
    assert said[0].startswith("6 pairs of 6 prompts, too few to tell; ") and "1.000 [0.610, 1.000]" in said[1]
    assert said[2].endswith(f"of {b.length_matched_n} pairs")
    enough = evaluated(data, [ABOVE] * 24)
    assert "24 pairs of 24 prompts; " in evaluation_lines(enough)[0]
    assert {"n": 24, "prompts": 24}.items() <= enough.as_json().items()


def test_a_model_beside_itself_is_not_distinguishable(data: PairData):
    a = evaluated(data, [BELOW] * 5 + [ABOVE] * 19)
    found = compare(a, a)
    assert found.reward_accuracy.verdict == found.length_matched_reward_accuracy.verdict == "not distinguishable"
    assert (found.reward_accuracy.difference.low, found.reward_accuracy.difference.high, found.mcnemar.p) == (0, 0, 1)


def test_the_reference_has_ties_alone(data: PairData):
    found = compare(evaluated(data, [0.0] * 24), evaluated(data, [ABOVE] * 24))
    assert found.reward_accuracy.difference.value == 0.5 and found.reward_accuracy.verdict == "higher"
    assert (found.mcnemar.a_alone, found.mcnemar.b_alone, found.mcnemar.ties, found.mcnemar.p) == (0, 0, 24, 1)
    said = "\n".join(comparison_lines(found))
    assert "McNemar's test does not apply" in said and "p =" not in said


def test_pairs_are_joined_by_id(data: PairData):
    margins = [BELOW] * 5 + [ABOVE] * 19
    order = np.random.default_rng(0).permutation(24)
    a, b = evaluated(data, margins), evaluated(data.subset(order), [margins[k] for k in order])
    assert compare(a, b).mcnemar.b_alone == compare(a, b).mcnemar.a_alone == 0


def test_other_pairs_are_refused_with_how_many_are_shared(data: PairData):
    a, b = evaluated(data.subset(np.arange(20)), [ABOVE] * 20), evaluated(data.subset(np.arange(8, 24)), [ABOVE] * 16)
    with pytest.raises(UserError, match="A and B cover different pairs: 20 and 16 ids, 12 in both"):
        compare(a, b)


def test_the_same_ids_under_other_labels_are_refused(data: PairData):
    exchanged = replace(data, chosen=data.rejected, rejected=data.chosen)
    with pytest.raises(UserError, match=r"the same 24 ids, but the pairs differ"):
        compare(evaluated(data, [ABOVE] * 24), evaluated(exchanged, [ABOVE] * 24))


def test_another_reference_is_said(data: PairData):
    a = evaluated(data, [ABOVE] * 24)
    assert "different reference models" in comparison_lines(compare(a, replace(a, reference_sha256="other")))[-1]


def test_a_margin_keeps_its_sign_however_small():
    margins = [-3.14159265, 1e-9, -2e-15, 0.0, 123456.789]
    assert [rounded(m) for m in margins] == [-3.142, 1e-9, -2e-15, 0.0, 123500.0]


def test_an_evaluation_comes_back_from_its_file(data: PairData, tmp_path: Path):
    found = evaluated(data, list(np.random.default_rng(0).normal(size=24)))
    write_json(tmp_path / "a.json", {"key": "of a pipeline", **found.as_json()})
    assert read_evaluation(tmp_path / "a.json") == found
    assert accuracy(np.array([m for m, _, _ in found.pairs.values()])) == found.reward_accuracy.value
    line = next(text for text in (tmp_path / "a.json").read_text().splitlines() if '"pair-3"' in text)
    assert line == f'    "pair-3": {list(found.pairs["pair-3"])},'


def test_the_command_compares_what_eval_wrote(shards: Path, tiny_model_folder: Path, tmp_path: Path):
    settings = TrainSettings(gradient_accumulation_steps=1, learning_rate=1e-3, num_train_epochs=2)
    run_training(shards, str(tiny_model_folder), tmp_path / "out", settings)
    base, trained = tmp_path / "base.json", tmp_path / "trained.json"
    write_json(base, run_eval(shards, str(tiny_model_folder)).as_json())
    assert train("eval", shards, "--model", tmp_path / "out", "--out", trained).code == 0
    shown = train("compare", base, trained, "--json", tmp_path / "found.json")
    assert shown.code == 0 and "24 pairs of 24 prompts" in shown.out and "McNemar" in shown.out
    found = read_json(tmp_path / "found.json")
    assert found["reward_accuracy"]["a"] == 0.5 and found["mcnemar"]["ties"] == 24
    assert found["reward_accuracy"]["verdict"] in shown.out
    assert train("compare", base, tmp_path / "none.json").refused("no such file", "rmo-train eval --out")
    short = read_json(trained)
    del short["pairs"]
    write_json(tmp_path / "short.json", short)
    assert train("compare", base, tmp_path / "short.json").refused("not an evaluation with the margin of each pair")
