"""Which evidence a run has, which is missing and why, and the posterior of data that no model has seen."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmo_curate.evidence.columns import Columns, EvidenceColumns
from rmo_curate.evidence.gather import of_proxy, with_posterior, without_model
from rmo_curate.evidence.posterior import Lack, Missing, Posterior
from rmo_curate.evidence.texts import read_texts
from rmo_curate.runs.margins import reward
from rmo_curate.runs.run import open_run
from rmo_train.console.errors import UserError
from tests.command_line import curate
from tests.rmo_curate.evidence.made import table

N = 24
D_0 = [float(i % 5) - 1.5 for i in range(N)]
D_T = [float(i % 7) - 2.0 for i in range(N)]
MODELS = {
    "chosen_model": ["large" if i % 3 else "small" for i in range(N)],
    "rejected_model": ["small" if i % 3 else "large" for i in range(N)],
}


def posterior_of(folder: Path, proxy: str | None = None, **names: str) -> Posterior:
    run = open_run(folder)
    scores = with_posterior(run, run.scores(run.trajectory(proxy)), EvidenceColumns(**names))
    assert scores.posterior is not None and scores.groups is scores.posterior.groups
    return scores.posterior


def rows(n: int = N) -> list[Mapping[str, Any]]:
    """Pairs of which every third shares its prompt and its chosen answer with the one before."""
    return [{"prompt": f"question {i - (i % 3 == 2)}?", "chosen": f"answer {i - (i % 3 == 2)}"} for i in range(n)]


def test_a_run_of_the_base_alone_says_what_it_lacks(make_run):
    found = posterior_of(make_run({"base": D_0}))
    assert found.sources == ("reference", "style", "answers")
    assert found.missing == (Missing(Lack.PROXY), Missing(Lack.CATEGORIES), Missing(Lack.GENERATORS))
    assert np.isfinite(found.right).all() and len(found.right) == N


def test_proxies_that_are_held_out_speak_and_others_are_named(make_run):
    margins = {"base": D_0, "mine-ab": D_T, "oof-8": D_0[::-1], "oof-16": D_T, "insample-16": D_T}
    found = posterior_of(make_run(margins))
    assert found.sources == ("reference", "oof-16", "style", "answers")  # of a family the last step
    assert found.missing == (
        Missing(Lack.NOT_HELD_OUT, checkpoint="mine-ab"),
        Missing(Lack.NOT_HELD_OUT, checkpoint="insample-16"),
        Missing(Lack.CATEGORIES),
        Missing(Lack.GENERATORS),
    )
    without = posterior_of(make_run({"base": D_0, "oof-16": D_T}, name="without"))
    np.testing.assert_array_equal(found.adds, without.adds)


def test_the_evidence_does_not_depend_on_the_trajectory(make_run):
    folder = make_run({"base": D_0, "oof-8": D_T[::-1], "oof-16": D_T, "insample-16": D_0[::-1]})
    expected = posterior_of(folder)
    for proxy in ("oof-8", "insample-16"):
        np.testing.assert_array_equal(posterior_of(folder, proxy=proxy).adds, expected.adds)


def test_a_probes_margins_are_the_states(full_run, tmp_path):
    run = shutil.copytree(full_run, tmp_path / "run")
    assert curate("proxy", run, "--folds", 4).code == 0
    assert posterior_of(run).sources[:3] == ("reference", "oof-2", "states")


def test_a_probes_margin_is_the_log_odds_that_it_was_fitted_to(full_run, tmp_path):
    run = shutil.copytree(full_run, tmp_path / "run")
    assert curate("proxy", run, "--folds", 4).code == 0
    opened = open_run(run)
    trajectory = opened.trajectory("oof-probe")
    scores = opened.scores(trajectory)
    source = of_proxy(scores, trajectory.checkpoints[-1])
    assert source.name == "states" and source.learned
    np.testing.assert_allclose(source.columns[:, 0], 0.1 * reward(scores))  # D_T - D_0 is log-odds over beta


@pytest.mark.parametrize("names", [("chosen_model", "rejected_model"), ("generator_chosen", "generator_rejected")])
def test_generators_are_found_by_the_names_of_their_columns(make_run, names):
    extra = dict(zip(names, MODELS.values(), strict=True))
    found = posterior_of(make_run({"base": D_0}, extra=extra))
    assert found.sources == ("reference", "style", "generators", "answers")
    assert found.missing == (Missing(Lack.PROXY), Missing(Lack.CATEGORIES))
    adds = found.adds[:, 2]
    assert (adds[[i for i in range(N) if i % 3]] > 0).all()  # the large one is mostly chosen


def test_a_generator_column_is_named_where_it_has_another_name(make_run):
    extra = {"chosen_by": MODELS["chosen_model"], "rejected_by": MODELS["rejected_model"], "chosen_n": [1] * N}
    folder = make_run({"base": D_0, "oof-16": D_T}, extra=extra)
    assert "generators" not in posterior_of(folder).sources
    assert "generators" in posterior_of(folder, generator_column="by").sources
    with pytest.raises(
        UserError,
        match=r"--generator-column author: .* no text columns chosen_author and rejected_author, or author_chosen "
        r"and author_rejected; its text columns are chosen_by, rejected_by",
    ):
        posterior_of(folder, generator_column="author")
    outcome = curate("filter", folder, "--out", folder.parent / "o", "--generator-column", "n")
    assert outcome.refused("--generator-column n", "its text columns are chosen_by, rejected_by")


def test_a_category_column_is_found_or_named(make_run):
    kinds = ["verse" if i % 2 else "list" for i in range(N)]
    found = posterior_of(make_run({"base": D_0}, extra={"task": kinds}, name="found"))
    assert Missing(Lack.CATEGORIES) not in found.missing
    folder = make_run({"base": D_0, "oof-16": D_T}, extra={"my kind": kinds}, name="named")
    assert Missing(Lack.CATEGORIES) in posterior_of(folder).missing
    assert Missing(Lack.CATEGORIES) not in posterior_of(folder, category_column="my kind").missing
    outcome = curate("filter", folder, "--out", folder.parent / "o", "--category-column", "sort")
    assert outcome.refused("--category-column sort: ", "no text column sort; its text columns are my kind")


def test_a_generator_that_is_null_is_an_unknown_one(make_run):
    extra = {name: [None, *values[1:]] for name, values in MODELS.items()}
    found = posterior_of(make_run({"base": D_0}, extra=extra))
    assert found.adds[0, 2] == 0 and found.adds[1:, 2].all()


def test_pairs_of_one_prompt_are_a_group_and_their_answers_are_compared(make_run):
    found = posterior_of(make_run({"base": D_0}, rows=rows()))
    assert found.groups[1] == found.groups[2] != found.groups[3]
    assert found.compared[1].tolist() == [1, 0] and found.compared[0].tolist() == [0, 0]
    assert found.won[1].tolist() == [1, 0]


def test_a_pair_without_scores_has_what_its_texts_say(make_run):
    found = posterior_of(make_run({"base": D_0, "oof-16": D_T}, too_long=[4]))
    assert found.adds[4, :2].tolist() == [0, 0] and np.isfinite(found.right).all()


# ---------------------------------------------------------------------------------------------------- without a model


def texts(n: int = 120) -> Sequence[tuple[str, str, str]]:
    """The judge likes bullets, but for every sixth pair."""
    good = [f"Answer {i}:\n- one\n- two" for i in range(n)]
    bad = [f"Answer {i}: one and two" for i in range(n)]
    return [(f"q {i}?", bad[i], good[i]) if i % 6 == 0 else (f"q {i}?", good[i], bad[i]) for i in range(n)]


def test_texts_alone_find_labels_that_go_against_the_judges_taste():
    found = without_model(read_texts([table(texts())]))
    assert found.sources == ("style", "answers") and found.missing[0] == Missing(Lack.MODEL)
    wrong = np.arange(120) % 6 == 0
    assert found.right[wrong].max() < found.right[~wrong].min()


def test_generators_are_evidence_without_a_model_too():
    chosen = np.array(["small" if i % 6 == 0 else "large" for i in range(120)])
    found = without_model(
        read_texts([table(texts())]), Columns((chosen, np.where(chosen == "small", "large", "small")))
    )
    assert found.sources == ("style", "generators", "answers") and len(found.missing) == 2
    assert (found.adds[:, 1] < 0).nonzero()[0].tolist() == list(range(0, 120, 6))


def test_each_category_has_a_taste_of_its_own():
    pairs = [(p, c, r) if i < 120 else (f"{p} b", r, c) for i, (p, c, r) in enumerate([*texts(), *texts()])]
    category = np.array(["lists"] * 120 + ["prose"] * 120)
    read = read_texts([table(pairs)])
    wrong = np.arange(240) % 6 == 0
    apart, together = without_model(read, Columns(category=category)), without_model(read)
    assert apart.right[wrong].max() < apart.right[~wrong].min()
    # Without the column, the word "b" of the prompts tells the two apart.
    assert together.right[wrong].max() < together.right[~wrong].min()
    assert together.style.of_words and together.style.kind_of(239) == "b"
    unworded = without_model(replace(read, words=read.words.take(np.zeros(240, dtype=int))))
    assert np.ptp(unworded.adds[:, 0]) < 0.2 * np.ptp(apart.adds[:, 0])  # as one, the two tastes cancel each other


def test_a_single_prompt_has_no_style_and_that_is_said():
    found = without_model(read_texts([table([("q", f"answer {i}", "no") for i in range(5)])]))
    assert found.sources == ("answers",) and np.isfinite(found.right).all()
    assert Missing(Lack.PROMPTS, prompts=1) in found.missing
