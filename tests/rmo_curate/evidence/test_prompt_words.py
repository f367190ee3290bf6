"""Preferences by the prompt's words: found where they are, and where there are none nothing changes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from rmo_curate.evidence.contributions import StyleOfChosen
from rmo_curate.evidence.prompt_words import (
    KEPT_WORDS,
    LEAST_PROMPTS,
    Interactions,
    PromptWords,
)
from rmo_curate.evidence.style import Style
from rmo_curate.evidence.texts import STYLE
from rmo_curate.evidence.wording import style_text
from rmo_curate.score import logistic

NAMES = list(STYLE)
N = 800
PROMPT = np.arange(N) // 2  # each prompt has two pairs
KINDS = PROMPT % 4  # of prompts; their words are "kind0" to "kind3"
FOLDS = PROMPT % 5


def words_of(prompts: list[list[str]]) -> PromptWords:
    return PromptWords.of(pl.Series(prompts, dtype=pl.List(pl.String)))


def words() -> PromptWords:
    return words_of([["please", f"kind{k}", f"topic{i}"] for i, k in enumerate(KINDS)])


def wanted(seed: int = 0) -> np.ndarray:
    """Differences [N, features]: prompts of kinds 0 and 1 want bullets and none, those of 2 and 3 colons and none."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, len(NAMES))) * np.geomspace(0.01, 100, len(NAMES))
    unit = x / x.std(0)
    liked = (
        3
        * np.where(KINDS % 2, -1, 1)
        * np.where(KINDS < 2, unit[:, NAMES.index("bullets")], unit[:, NAMES.index("colons")])
    )
    return (x * np.sign(liked + rng.logistic(size=N))[:, None]).astype(np.float32)


def test_a_words_preferences_are_found_without_a_column_that_names_kinds():
    x = wanted()
    assert (Style.of(x, FOLDS).margin > 0).mean() < 0.6
    found = Style.of(x, FOLDS, None, words(), PROMPT)
    assert (found.margin > 0).mean() > 0.75 and found.of_words
    said = {found.kind_of(i) for i in np.flatnonzero(KINDS == 0)}  # the word that says most, of prompts of kind 0
    assert "kind0" in said and not said & {"kind1", "kind2", "kind3"}
    np.testing.assert_allclose(found.by_feature().sum(1), found.margin, rtol=1e-4, atol=1e-4)


def test_no_preference_by_words_hears_the_labels_of_its_own_fold():
    x = wanted()
    swap = np.arange(N) == 11
    found, other = (Style.of(rows, FOLDS, None, words(), PROMPT) for rows in (x, np.where(swap[:, None], -x, x)))
    assert found.of_words and other.margin[11] == pytest.approx(-found.margin[11], abs=1e-5)
    np.testing.assert_array_equal(found.swapped().margin, -found.margin)


def test_words_that_tell_nothing_change_nothing():
    x = wanted()
    alike = words_of([["please", "do"]] * N)
    drawn = words_of([[w] for w in np.random.default_rng(1).choice(["red", "green", "blue"], N)])
    for said in (alike, drawn):
        found = Style.of(x, FOLDS, None, said, PROMPT)
        np.testing.assert_array_equal(found.margin, Style.of(x, FOLDS).margin)
        assert not found.of_words and found.kind_of(0) is None


def test_categories_come_before_words():
    category = np.array([f"category {k}" for k in KINDS])
    found = Style.of(wanted(), FOLDS, category, words(), PROMPT)
    assert not found.of_words and found.kind_of(0) == "category 0"


def test_frequent_words_are_those_of_many_prompts_but_not_of_nearly_all():
    has, names = words().frequent(PROMPT)
    assert sorted(names) == ["kind0", "kind1", "kind2", "kind3"]  # "please" is in all, each topic in one
    assert [int(n) for n in np.asarray(has.sum(0)).ravel()] == [200] * 4
    one_prompt = np.where(KINDS == 0, -1, PROMPT)  # 200 pairs of a single prompt
    assert "kind0" not in words().frequent(one_prompt)[1]
    few = words_of([["rare"]] * (LEAST_PROMPTS - 1) + [["other"]] * 100)
    assert few.frequent(np.arange(LEAST_PROMPTS + 99))[1] == ()


def test_of_a_long_prompt_the_last_words_are_kept_and_parts_are_joined():
    long = words_of([[f"w{i}" for i in range(KEPT_WORDS + 5)], [], ["end"]])
    assert long.has.sum(axis=1).A1.tolist() == [KEPT_WORDS, 0, 1]
    both = PromptWords.together([long, words_of([["a"], ["a"]])])
    assert both.has.shape[0] == 5 and "a" in both.names.values()
    assert both.take(np.array([4, 1])).has.sum(axis=1).A1.tolist() == [1, 0]


def test_interactions_are_the_design_that_is_never_built():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 3))
    has, names = words().frequent(PROMPT)
    design, built = Interactions(has, x), np.hstack([has[:, w].toarray() * x for w in range(len(names))])
    assert design.shape == built.shape
    p = rng.random(N)
    np.testing.assert_allclose(design.slope(p), built.T @ p)
    np.testing.assert_array_equal(design.columns(np.array([0, 4, 11])), built[:, [0, 4, 11]])
    assert design.energy() == pytest.approx((built**2).sum())
    np.testing.assert_allclose(logistic.lasso(design, 1.5), logistic.lasso(built, 1.5), atol=1e-6)


def test_a_reason_names_the_word():
    said = style_text(StyleOfChosen((("ends with a question", False),), "question", of_word=True))
    assert said == (
        "the chosen answer's style (does not end with a question), "
        "judged by what wins where the prompt says “question”,"
    )
