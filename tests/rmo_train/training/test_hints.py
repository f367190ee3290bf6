"""Hints: silent on a healthy run, one line on each unhappy one, whatever else the metrics hold."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_train.report import HINTS, hint_line
from rmo_train.training.hints import Hint, Hints
from rmo_train.training.settings import TrainSettings

STEPS = 120


def run(kind: str, seed: int = 0, steps: int = STEPS) -> list[dict]:
    """The metrics of a simulated DPO run of 16 pairs a step: rewards drift from 0 with the noise of a batch's mean."""
    rng = np.random.default_rng(seed)
    chosen_end, rejected_end = {"both fall": (-3.0, -4.0), "too easy": (8.0, -8.0), "flat": (0.0, 0.0)}.get(
        kind, (0.3, -1.0)
    )
    lines = []
    for step in range(1, steps + 1):
        done = min(1.0, 4 * step / steps) if kind == "too easy" else step / steps
        pairs = rng.normal(0, 0.001 if kind == "flat" else 0.8 * done, 16)
        chosen, rejected = chosen_end * done, rejected_end * done
        margins = chosen - rejected + pairs
        if kind == "against" and step < 20:
            margins = -0.2 + rng.normal(0, 0.1, 16)
        line = {
            "loss": float(np.log1p(np.exp(-margins)).mean()),
            "rewards/chosen": chosen + float(pairs.mean()) / 2,
            "rewards/rejected": rejected - float(pairs.mean()) / 2,
            "rewards/margins": float(margins.mean()),
            "rewards/accuracies": float((margins > 0).mean()),
            "logps/chosen": float(rng.normal(-200, 40)),
            "logps/rejected": float(rng.normal(-200, 40)),
            "grad_norm": float(rng.uniform(5, 30)),  # above the limit of 1 throughout, as usual for DPO
            "learning_rate": 1e-6 * min(1.0, step / 10),
            "epoch": step / steps,
        }
        longer = 0.25 if kind == "length" else 0.03
        line["rewards/accuracies_longer"] = min(1.0, line["rewards/accuracies"] + longer)
        line["rewards/accuracies_shorter"] = max(0.0, line["rewards/accuracies"] - longer)
        if kind == "length":
            line["rewards/accuracies_shorter"] = min(line["rewards/accuracies_shorter"], 0.4)
        if kind == "rises" and step > 40:
            line["loss"] += 0.02 * (step - 40)
        if step % 40 == 0:
            held_out = 0.3 if kind == "held out reversed" else 0.72
            gap = 0.15 if kind == "held out length" else 0.02
            line |= {"eval/reward_accuracy": held_out, "eval/length_matched_reward_accuracy": held_out - gap}
        lines.append(line)
    return lines


def seen(lines: list[dict], **of_the_run) -> list[Hint]:
    hints = Hints(len(lines), **of_the_run)
    return [hint for metrics in lines for hint in hints.of(metrics)]


UNHAPPY = {
    "both fall": "both fall",
    "too easy": "too easy",
    "against": "against the labels",
    "held out reversed": "held out reversed",
    "length": "ranks by length",
    "held out length": "ranks by length, held out",
    "flat": "flat",
    "rises": "loss rises",
}  # a kind of run: its hint


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([12, 40, 120, 600]), st.booleans())
def test_a_healthy_run_gets_no_hint(seed: int, steps: int, referenced: bool):
    assert seen(run("healthy", seed, steps), referenced=referenced) == []


@pytest.mark.parametrize("kind", UNHAPPY)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_unhappy_run_gets_its_hint_once(kind: str, seed: int):
    assert [hint.name for hint in seen(run(kind, seed))] == [UNHAPPY[kind]]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["healthy", *UNHAPPY]), st.randoms(use_true_random=False))
def test_other_keys_and_their_order_change_nothing(kind: str, random):
    def disguised(line: dict) -> dict:
        items = [*line.items(), ("num_tokens", 7), ("amplify/reach", 0.4), ("note", "text"), ("eval/other", None)]
        random.shuffle(items)
        return dict(items)

    lines = run(kind)
    assert seen([disguised(line) for line in lines]) == seen(lines)


def test_each_rule_is_silent_without_its_keys_and_on_numbers_that_are_none():
    for line in ({}, {"loss": math.nan, "rewards/margins": None, "grad_norm": math.inf}):
        assert seen([line] * STEPS) == []


def test_without_a_reference_a_batch_of_long_answers_is_no_fall():
    """Rewards are beta x log-prob then: they start far below 0 and follow the batch."""
    rng = np.random.default_rng(0)
    lines = []
    for line in run("healthy"):
        long = float(rng.normal(-400, 100))
        lines.append(line | {"rewards/chosen": long, "rewards/rejected": long - 20})
    assert seen(lines, referenced=False) == []
    assert seen(lines) != []


def test_a_resumed_run_does_not_repeat_what_was_said():
    lines = run("both fall")
    hints = Hints(STEPS)
    before = [hint for metrics in lines[:100] for hint in hints.of(metrics)]
    assert len(before) == 1
    again = Hints(STEPS)
    for metrics in lines[:100]:
        again.of(metrics)
    assert [hint for metrics in lines[100:] for hint in again.of(metrics)] == []


def test_a_hint_names_the_step_it_is_given():
    lines = [metrics | {"step": 10 * (i + 1)} for i, metrics in enumerate(run("flat"))]
    assert hint_line(seen(lines)[0]).startswith("hint, step 600: after 60 of 120 steps the margins have not moved")


def test_every_sentence_has_a_run_that_gets_it_and_names_flags_that_exist():
    lines = {hint.name: hint_line(hint) for kind in UNHAPPY for hint in seen(run(kind))}
    assert lines.keys() == HINTS.keys()
    known = {"--" + field.replace("_", "-") for field in TrainSettings.model_fields} | {"--eval-data"}
    for line in lines.values():
        assert "nan" not in line and "\n" not in line
        assert set(re.findall(r"--[a-z-]+", line)) <= known
