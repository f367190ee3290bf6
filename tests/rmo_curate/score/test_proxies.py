"""Proxies: the split, the steps and the names of families. Training them is tested with the job."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rmo_curate.score.families import assign_folds, family_of
from rmo_curate.score.proxies import steps_of, total_steps
from rmo_curate.score.settings import ProxySettings
from rmo_train.console.errors import UserError
from rmo_train.console.settings import build
from rmo_train.store.files import write_json
from rmo_train.store.id_hash import draw_bits

SIZES = st.lists(st.integers(1, 9), min_size=3, max_size=30)


def groups_of(sizes) -> np.ndarray:
    return np.array([f"g{i}" for i, n in enumerate(sizes) for _ in range(n)], dtype=object)


# ---------------------------------------------------------------------------------------------------- the split


@given(SIZES, st.integers(1, 3), st.integers(0, 5))
def test_a_prompt_is_in_one_fold_and_no_fold_is_empty(sizes, folds, seed):
    groups = groups_of(sizes)
    fold_of = assign_folds(groups, folds, seed)
    assert fold_of.dtype == np.int16 and set(fold_of) == set(range(folds))
    assert all(len(set(fold_of[groups == g])) == 1 for g in set(groups))
    load = np.bincount(fold_of, minlength=folds)
    assert load.max() - load.min() <= max(sizes)  # greedy: never further apart than one prompt's pairs


@given(SIZES, st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_the_pairs(sizes, random):
    groups = groups_of(sizes)
    order = list(range(len(groups)))
    random.shuffle(order)
    assert (assign_folds(groups[order], 3, 1) == assign_folds(groups, 3, 1)[order]).all()


def test_prompts_are_dealt_in_the_order_of_their_draws():
    groups = groups_of([1, 1, 1, 1])
    drawn = draw_bits("fold", 7, pa.array(list(groups)))
    fold_of = assign_folds(groups, 2, 7)
    assert fold_of[np.argsort(drawn)].tolist() == [0, 1, 0, 1]


def test_another_seed_gives_another_split():
    groups = groups_of([1] * 40)
    splits = {tuple(assign_folds(groups, 2, seed)) for seed in range(5)}
    assert len(splits) == 5 and all(sum(s) == 20 for s in splits)


def test_more_folds_than_prompts_are_refused():
    with pytest.raises(UserError, match="4 folds need at least 4 distinct prompts, the data has 3; use fewer --folds"):
        assign_folds(groups_of([5, 1, 1]), 4, 0)


# ---------------------------------------------------------------------------------------------------- the steps


@pytest.mark.parametrize(
    ("fold_of", "settings", "steps"),
    [
        ([0] * 10 + [1] * 6, {"batch_size": 4}, 3),  # the larger training part: 10 pairs, 2.5 batches
        ([0] * 10 + [1] * 6, {"batch_size": 4, "epochs": 2.0}, 6),
        ([0] * 10 + [1] * 6, {"batch_size": 4, "epochs": 0.5}, 2),
        ([0] * 4 + [1] * 4 + [2] * 2, {"folds": 3, "batch_size": 8}, 1),  # 8 pairs
        ([0] * 10, {"folds": 1, "batch_size": 4}, 3),  # in-sample: all 10
        ([0, 1], {"batch_size": 16, "epochs": 0.01}, 1),
    ],
)
def test_steps_are_those_of_the_largest_training_part(fold_of, settings, steps):
    assert total_steps(np.array(fold_of), ProxySettings(kind="lora", **settings)) == steps


def test_the_last_step_is_always_kept():
    assert steps_of(ProxySettings(kind="lora"), 12) == (12,)
    assert steps_of(ProxySettings(kind="lora", steps=(8, 4)), 12) == (4, 8, 12)
    assert steps_of(ProxySettings(kind="lora", steps=(12,)), 12) == (12,)


@pytest.mark.parametrize("beyond", [13, 0])
def test_a_step_that_no_proxy_reaches_is_refused(beyond):
    with pytest.raises(UserError, match=rf"--steps {beyond}: a proxy trains 12 steps on this data; choose 1 to 12"):
        steps_of(ProxySettings(kind="lora", steps=(4, beyond)), 12)


# ---------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("given_steps", ["4,8", ["4", "8"], ["4,8"], " 4 , 8 ", (4, 8)])
def test_steps_may_be_listed_or_repeated(given_steps):
    assert ProxySettings(kind="lora", steps=given_steps).steps == (4, 8)


def test_settings_that_contradict_each_other_are_refused_naming_the_flags():
    with pytest.raises(UserError, match="--full trains all weights, --lora an adapter; give only one of them"):
        build(ProxySettings, "proxy", {"proxy": {"full": True}}, {"lora": 8})
    with pytest.raises(UserError, match=r"--steps \(recipe: proxy.steps\)"):
        build(ProxySettings, "proxy", {}, {"steps": ["four"]})
    with pytest.raises(ValidationError, match="folds"):
        ProxySettings(kind="lora", folds=0)


def test_a_proxy_is_plain_dpo():
    training = ProxySettings(kind="lora", batch_size=10).training(7)
    assert (training.loss, training.amplify, training.diversify, training.max_steps) == ("dpo", 0, False, 7)
    assert training.pairs_per_step() == 10 and training.per_device_train_batch_size == 2
    assert (training.lora, training.learning_rate) == (16, 2e-4)
    full = ProxySettings(kind="lora", full=True).training(7)
    assert (full.lora, full.learning_rate, full.pairs_per_step()) == (None, 5e-6, 16)


# ---------------------------------------------------------------------------------------------------- families


def test_names_of_families(tmp_path):
    def begin(name, key, order, *, trained=True):
        write_json(tmp_path / "proxies" / name / "family.json", {"key": key, "order": order})
        if trained:
            (tmp_path / "proxies" / name / "fold-0").mkdir()

    folds_and_seed = ((2, 1), (2, 2), (1, 1))
    first, second, paper = ({"kind": "lora", "folds": folds, "seed": seed} for folds, seed in folds_and_seed)
    assert family_of(tmp_path, first) == ("oof", 0)
    begin("oof", first, 0, trained=False)
    assert family_of(tmp_path, first) == ("oof", 0)
    assert family_of(tmp_path, second) == ("oof", 0)  # nothing of the first was trained
    begin("oof", first, 0)
    name, order = family_of(tmp_path, second)
    assert name.startswith("oof-") and len(name) == len("oof-") + 8 and order == 1
    begin(name, second, 1)
    assert family_of(tmp_path, paper) == ("insample", 2)
    assert family_of(tmp_path, second) == (name, 1) and family_of(tmp_path, first) == ("oof", 0)
