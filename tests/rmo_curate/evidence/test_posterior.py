"""The posterior: the law of swapped pairs for every source, contributions that add up, calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.detection import calibration_error
from rmo_curate.evidence.answers import Comparisons
from rmo_curate.evidence.columns import Columns
from rmo_curate.evidence.gather import of_proxy, reference, together
from rmo_curate.evidence.posterior import (
    CLIP,
    FOLDS,
    Lack,
    Missing,
    Posterior,
    Source,
    folds_of,
    scale_of,
    typical,
    weigh,
)
from rmo_curate.evidence.rules import RULES
from rmo_curate.evidence.texts import Texts, read_texts
from rmo_curate.runs import margins
from rmo_curate.runs.run import Checkpoint, Scores
from tests.rmo_curate.evidence.made import OOF, no_shared_answers, no_style, table, weighed
from tests.rmo_curate.evidence.test_swapped_copies import simulated

SOURCES = ("reference", "states", "oof-9", "style", "generators", "answers")
PROBE = Checkpoint("oof-probe", "proxy", "oof-probe", None, 10, True, None)


def judged(prompts: int = 60, rate: float = 0.2, seed: int = 0) -> tuple[Scores, Texts, tuple, np.ndarray]:
    """Scores, texts and generators of all pairs of 4 answers to each prompt, which differ in quality, and which labels
    are wrong. The better answer has more bullets, a better generator, and larger margins."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(0, 1.5, (prompts, 4))
    rows, names, wrong, gaps = [], [], [], []
    for p in range(prompts):
        for a in range(4):
            for b in range(a):
                better, worse = (a, b) if quality[p, a] + rng.logistic() * 0.5 > quality[p, b] else (b, a)
                flip = rng.random() < rate
                chosen, rejected = (worse, better) if flip else (better, worse)
                text = [f"answer {k}" + "\n- so" * max(0, int(2 + quality[p, k] + rng.normal())) for k in range(4)]
                rows.append((f"question {p}?", text[chosen], text[rejected]))
                names.append((f"model {int(quality[p, chosen] > 0)}", f"model {int(quality[p, rejected] > 0)}"))
                wrong.append(flip)
                gaps.append(quality[p, chosen] - quality[p, rejected])
    n, gap = len(rows), np.array(gaps)
    chosen_logp = np.stack([gap + rng.normal(0, 5, n), 3 * gap + rng.normal(0, 8, n)], axis=1)
    tokens = rng.integers(5, 20, (2, n))
    scores = Scores(("base", "oof-9"), chosen_logp, np.zeros((n, 2)), *tokens, np.full(n, True, dtype=object))
    by = np.array(names)
    return scores, read_texts([table(rows)]), (by[:, 0], by[:, 1]), np.array(wrong)


def all_evidence(scores: Scores, texts: Texts, by: tuple) -> Posterior:
    return together(
        [reference(scores), of_proxy(scores, PROBE), of_proxy(scores, OOF)],
        texts,
        Columns(by, np.full(len(texts.prompt), "chat")),
        [],
    )


@pytest.fixture(scope="module")
def found() -> tuple[Posterior, Scores, np.ndarray]:
    scores, texts, by, wrong = judged()
    return all_evidence(scores, texts, by), scores, wrong


def test_every_source_speaks_and_none_is_missing(found):
    posterior, _, wrong = found
    assert posterior.sources == SOURCES and posterior.missing == () and posterior.variance > 0
    for source, adds in zip(SOURCES, posterior.adds.T, strict=True):
        assert adds.any() and adds[~wrong].mean() > adds[wrong].mean(), source


def test_contributions_and_the_prior_add_up_to_the_log_odds(found):
    posterior, *_ = found
    total = posterior.contributions().sum(1) + posterior.noise.prior
    np.testing.assert_allclose(total, posterior.log_odds, atol=1e-12)
    np.testing.assert_allclose(posterior.right, 1 / (1 + np.exp(-total)), atol=1e-12)
    assert posterior.noise.prior == pytest.approx(np.log(1 / posterior.noise.rate - 1))


def test_swapped_pairs_have_every_sources_evidence_negated_exactly_and_the_same_prior(found):
    posterior, *_ = found
    swapped = posterior.swapped()
    np.testing.assert_array_equal(swapped.adds, -posterior.adds)
    np.testing.assert_array_equal(swapped.margin, -posterior.margin)
    np.testing.assert_allclose(swapped.log_odds + posterior.log_odds, 2 * posterior.noise.prior, atol=1e-9)
    np.testing.assert_array_equal(swapped.style.margin, -posterior.style.margin)
    np.testing.assert_array_equal(swapped.won, posterior.won[:, ::-1])
    np.testing.assert_array_equal(swapped.compared, posterior.compared[:, ::-1])
    assert swapped.noise == posterior.noise
    np.testing.assert_array_equal(swapped.swapped().adds, posterior.adds)


def swapped_at(texts: Texts, swap: np.ndarray) -> Texts:
    chosen, rejected = np.where(swap, texts.rejected, texts.chosen), np.where(swap, texts.chosen, texts.rejected)
    sign = np.where(swap, -1, 1).astype(np.float32)[:, None]
    return replace(texts, chosen=chosen, rejected=rejected, style=sign * texts.style)


def test_learning_again_with_a_pair_exchanged_gives_its_swapped_copy_but_for_a_little(found):
    """What swapped copies rest on. Not exactly: the fits that say how much a source is worth read held-out
    evidence of other folds, which was learned from this pair, too, and ridges are chosen by all labels."""
    posterior, scores, _ = found
    _, texts, (chosen, rejected), _ = judged()
    other, heard = margins.swapped(scores), []
    for pair in range(0, 360, 30):
        swap = np.arange(360) == pair
        exchanged = replace(
            scores,
            **{
                name: np.where(swap, getattr(other, name).T, getattr(scores, name).T).T
                for name in ("chosen_logp", "rejected_logp", "chosen_tokens", "rejected_tokens")
            },
        )
        by = (np.where(swap, rejected, chosen), np.where(swap, chosen, rejected))
        again = all_evidence(exchanged, swapped_at(texts, swap), by)
        heard.append(abs(again.margin[pair] + posterior.margin[pair]))
        np.testing.assert_array_equal(again.won[pair], posterior.won[pair, ::-1])
    assert np.median(heard) < 0.1 * posterior.margin.std()


def test_the_rule_judges_swapped_scores_as_swapped_copies(found):
    posterior, scores, _ = found
    scores = replace(scores, posterior=posterior)
    rule = RULES["posterior"]
    np.testing.assert_array_equal(rule.suspicion(scores), -posterior.log_odds)
    np.testing.assert_array_equal(rule.suspicion_of_swapped(scores), -posterior.swapped().log_odds)
    np.testing.assert_array_equal(rule.suspicion(margins.swapped(scores)), rule.suspicion_of_swapped(scores))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_probabilities_of_simulated_scores_are_calibrated(rate):
    scores, wrong = simulated(rate)
    posterior = weighed(scores, scores.groups)
    assert posterior.noise.rate == pytest.approx(wrong.mean(), abs=0.02)
    assert calibration_error(wrong, 1 - posterior.right) < 0.02


def test_of_answers_ranked_by_several_pairs_the_wrong_labels_are_found_and_calibrated():
    scores, texts, by, wrong = judged(prompts=300, seed=2)
    posterior = all_evidence(scores, texts, by)
    assert calibration_error(wrong, 1 - posterior.right) < 0.05
    assert wrong[posterior.right < 0.5].mean() > 0.6


# ---------------------------------------------------------------------------------------------------- parts of it


def test_folds_are_whole_prompts_and_no_more_than_there_are():
    prompt = np.array([9, 4, 9, 4, 7], dtype=np.uint64)
    folds = folds_of(prompt)
    assert folds[0] == folds[2] and folds[1] == folds[3] and len(set(folds.tolist())) == 3
    many = folds_of(np.repeat(np.arange(200), 3))
    assert np.bincount(many).tolist() == [60] * FOLDS
    assert folds_of(np.zeros(4, dtype=int)).tolist() == [0] * 4 and len(folds_of(np.zeros(0, dtype=int))) == 0


def test_the_typical_size_of_a_column_by_hand():
    columns = np.array([[1.0, 0.0, 0.0, np.nan], [-2.0, 0.0, 0.0, 2.0], [300.0, 6.0, 0.0, np.nan]])
    np.testing.assert_allclose(typical(columns), [1.4826 * 2, np.sqrt(12), 1, 1.4826 * 2])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0.01, 100))
def test_the_unit_of_a_column_does_not_matter(seed, unit):
    x = np.random.default_rng(seed).normal(0.5, 1, (60, 1))
    prompt, learned = np.arange(60), bool(seed % 2)
    one, other = (
        weigh([Source("a", column, learned)], no_shared_answers(60), prompt, no_style(60)).adds
        for column in (x, unit * x)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_evidence_that_its_ridge_shrank_to_nearly_nothing_is_believed_as_far_as_it_predicts_labels():
    rng = np.random.default_rng(0)
    wrong, n = rng.random(3000) < 0.4, 3000
    x = rng.normal(1.5, 1, (n, 1)) * np.where(wrong, -1, 1)[:, None]
    found = weigh([Source("a", x / 100, learned=True)], no_shared_answers(n), np.arange(n), no_style(n))
    assert found.noise.rate == pytest.approx(0.4, abs=0.03) and found.noise.slope < 15
    assert (found.right[wrong] < 0.5).mean() > 0.85 and (found.right[~wrong] > 0.5).mean() > 0.85


@given(st.integers(0, 99), st.floats(0.01, 100))
def test_a_margin_in_any_unit_is_scaled_to_log_odds(seed, unit):
    margin = np.random.default_rng(seed).normal(0.5, 1, 200)
    assert scale_of(unit * margin) * unit == pytest.approx(scale_of(margin), rel=1e-6)
    assert scale_of(scale_of(margin) * margin) == pytest.approx(1, abs=1e-6)
    assert scale_of(-np.abs(margin)) == 1 and scale_of(np.zeros(3)) == 1


def test_an_outlier_adds_no_more_than_a_large_margin():
    x = np.random.default_rng(0).normal(1, 1, (300, 1))
    x[0], x[1] = 1e6, -1e6
    found = weigh([Source("a", x)], no_shared_answers(300), np.arange(300), no_style(300))
    others = np.abs(found.adds[2:, 0]).max()
    assert others < found.adds[0, 0] < 3 * others and found.adds[1, 0] < 0
    assert CLIP * typical(x)[0] > np.abs(x[2:]).max()  # no other is cut


def test_where_a_source_says_nothing_of_a_pair_it_adds_nothing():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, (2, 300, 1))
    a[::3] = np.nan
    sources = [Source("a", a), Source("b", b)]
    found = weigh(sources, no_shared_answers(300), np.arange(300), no_style(300))
    assert not found.adds[::3, 0].any() and found.adds[1::3, 0].all() and found.adds[:, 1].all()


def test_what_is_learned_from_labels_never_speaks_backwards():
    x = -np.abs(np.random.default_rng(0).normal(1, 1, (300, 1)))  # held-out log-odds that contradict every label
    learned, given_ = (
        weigh([Source("a", x, learned)], no_shared_answers(300), np.arange(300), no_style(300))
        for learned in (True, False)
    )
    assert not learned.adds.any() and (given_.adds[:, 0] > 0).all()


def test_without_any_source_every_label_has_the_same_chance():
    found = weigh([], no_shared_answers(40), np.arange(40), no_style(40), [Missing(Lack.MODEL)])
    assert found.sources == ("answers",) and found.missing == (Missing(Lack.MODEL),) and np.ptp(found.right) == 0
    shared = Comparisons.of(np.zeros(40, dtype=int), np.arange(40) + 1)  # one answer wins all: the others say so
    assert (weigh([], shared, np.zeros(40, dtype=int), no_style(40)).adds > 0).all()
