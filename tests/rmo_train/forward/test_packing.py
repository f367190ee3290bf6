"""Packing: every token once, prompts shared, budgets kept, and no response sees its sibling."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_train.forward.packing import (
    Tree,
    first_fit,
    make_pack,
    make_packs,
    make_row_packs,
    make_rows,
    plain_trees,
    split_tree,
)


def ids(n: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + n, dtype=np.int32)


def pair(prompt: int, chosen: int, rejected: int, slot: int = 0) -> Tree:
    return Tree(ids(prompt), (ids(chosen, 100), ids(rejected, 200)), (slot, slot + 1))


def test_pack_lays_out_prompt_and_responses_as_computed_by_hand():
    pack = make_pack([pair(2, 3, 2)])
    assert pack.tokens.tolist() == [[0, 1, 100, 101, 200]]  # the last token of a response predicts nothing
    assert pack.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert pack.segments.tolist() == [[0, 0, 0, 4], [0, 2, 4, 5]]  # context, its end, start, end
    assert pack.sources.tolist() == [1, 2, 3, 1, 4]  # both responses start from the prompt's last token
    assert pack.targets.tolist() == [100, 101, 102, 200, 201]
    assert pack.owners.tolist() == [0, 0, 0, 1, 1]


def test_rejected_tokens_see_the_prompt_and_not_the_chosen_ones():
    mask = make_pack([pair(2, 3, 2), pair(1, 2, 2, 2)]).mask()
    rejected = mask[4]
    assert rejected.tolist() == [True, True, False, False, True, False, False, False]
    assert not mask[5:, :5].any()  # another pair sees nothing of this one
    assert not np.triu(mask, 1).any()


def test_a_single_sequence_needs_no_mask():
    assert make_pack([Tree(ids(3), (ids(2),), (0,))]).is_plain
    assert not make_pack([pair(2, 3, 2)]).is_plain


def test_rows_are_padded_behind_and_predict_from_their_own_positions():
    pack = make_rows([Tree(ids(2), (ids(3, 100),), (7,)), Tree(ids(1), (ids(2, 200),), (4,))])
    assert pack.tokens.tolist() == [[0, 1, 100, 101], [0, 200, 0, 0]]
    assert pack.sources.tolist() == [1, 2, 3, 4, 5]  # in the flattened rows
    assert pack.targets.tolist() == [100, 101, 102, 200, 201]
    assert pack.owners.tolist() == [7, 7, 7, 4, 4]
    assert pack.is_plain


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.lists(st.integers(1, 30), min_size=1, max_size=5)), min_size=1, max_size=8
    ),
    st.integers(5, 80),
)
def test_every_response_token_is_predicted_once_within_the_budget(shapes, budget):
    trees, slot = [], 0
    for prompt, lengths in shapes:
        trees.append(Tree(ids(prompt), tuple(ids(n) for n in lengths), tuple(range(slot, slot + len(lengths)))))
        slot += len(lengths)
    packs = make_packs(trees, budget)
    owners = np.concatenate([p.owners for p in packs])
    expected = [n for _, lengths in shapes for n in lengths]
    assert np.bincount(owners, minlength=slot).tolist() == expected
    largest_alone = max(p + n - 1 for p, lengths in shapes for n in lengths)
    assert all(p.size <= max(budget, largest_alone) for p in packs)
    rows = make_row_packs(trees, budget)
    assert np.bincount(np.concatenate([p.owners for p in rows]), minlength=slot).tolist() == expected
    assert all(p.size <= max(budget, largest_alone) for p in rows)


def test_first_fit_fills_bins_in_decreasing_order():
    assert first_fit([5, 9, 1, 4], 10) == [[1, 2], [0, 3]]
    assert first_fit([12], 10) == [[0]]  # larger than the budget: alone


def test_splitting_a_tree_repeats_its_prompt_and_cuts_no_response():
    pieces = split_tree(Tree(ids(4), (ids(5), ids(5), ids(5)), (0, 1, 2)), 12)
    assert [p.owners for p in pieces] == [(0, 1), (2,)]
    assert all(len(p.prompt) == 4 for p in pieces)


def test_a_tree_that_may_stay_whole_is_a_pack_of_its_own_and_repeats_nothing():
    large, small = Tree(ids(10), (ids(8), ids(8)), (0, 1)), Tree(ids(3), (ids(4),), (2,))
    assert [p.size for p in make_packs([large, small], 20)] == [17, 17, 6]  # the prompt twice
    assert [p.size for p in make_packs([large, small], 20, whole=24)] == [24, 6]
    assert [p.size for p in make_packs([large, small], 20, whole=23)] == [17, 17, 6]


def test_plain_rows_hold_one_response_each():
    assert [t.owners for t in plain_trees([pair(2, 3, 4)])] == [(0,), (1,)]
