"""The posterior of a scored run, or of unscored data: uses the available evidence and lists what is missing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rmo_curate.evidence.answers import Comparisons
from rmo_curate.evidence.columns import Columns, EvidenceColumns, columns_of
from rmo_curate.evidence.generators import strengths
from rmo_curate.evidence.label_noise import Judgeable, Resampled
from rmo_curate.evidence.posterior import Lack, Missing, Posterior, Source, folds_of, weigh
from rmo_curate.evidence.style import Style
from rmo_curate.runs import margins
from rmo_curate.runs.run import Checkpoint, Run, Scores, Trajectory
from rmo_curate.score.probe import BETA

if TYPE_CHECKING:
    from rmo_curate.evidence.texts import Texts

# Names of the sources; a trained proxy's is its checkpoint's.
REFERENCE, STATES, STYLE_SOURCE, GENERATORS = "reference", "states", "style", "generators"
LEAST_PROMPTS = 2  # for held-out fits


def with_posterior(run: Run, scores: Scores, names: EvidenceColumns | None = None) -> Scores:
    """`scores` with the posterior of their labels, and the pairs' prompt groups.

    names: of the columns of the data that are evidence; None: those that are found.
    """
    from rmo_curate.evidence.texts import read_texts

    texts = read_texts(run.pair_parts(("prompt", "chosen", "rejected")))
    posterior = of_scores(run, scores, texts, columns_of(run, names or EvidenceColumns()))
    return replace(scores, posterior=posterior, groups=texts.prompt)


def of_scores(run: Run, scores: Scores, texts: Texts, columns: Columns) -> Posterior:
    """The posterior of a run's pairs; for pairs without scores, from their texts alone."""
    sources, missing = [reference(scores)], list[Missing]()
    for checkpoint in run.checkpoints[1:]:
        if checkpoint.is_probe and checkpoint.held_out and checkpoint != run.probe:
            continue
        if checkpoint.held_out is True and _is_last_step(run, checkpoint):
            sources.append(of_proxy(run.scores(Trajectory((run.checkpoints[0], checkpoint), checkpoint)), checkpoint))
        elif checkpoint.held_out is not True:
            missing.append(Missing(Lack.NOT_HELD_OUT, checkpoint=checkpoint.name))
    if not any(checkpoint.held_out for checkpoint in run.checkpoints):
        missing.append(Missing(Lack.PROXY))
    return together(sources, texts, columns, missing)


def without_model(texts: Texts, columns: Columns | None = None) -> Posterior:
    """The posterior of pairs that no model has scored, from their texts."""
    return together([], texts, columns or Columns(), [Missing(Lack.MODEL)])


def together(sources: list[Source], texts: Texts, columns: Columns, missing: list[Missing]) -> Posterior:
    """Evidence from models, texts and columns, weighted."""
    prompts = len(np.unique(texts.prompt))
    comparisons = Comparisons.of(texts.chosen, texts.rejected)
    if prompts < LEAST_PROMPTS:
        missing = [*missing, Missing(Lack.PROMPTS, prompts=prompts)]
        return weigh(sources, comparisons, texts.prompt, Style.unknown(texts.style), missing)
    folds = folds_of(texts.prompt)
    style = Style.of(texts.style, folds, columns.category, texts.words, texts.prompt)
    sources = [*sources, Source(STYLE_SOURCE, style.margin[:, None], learned=True)]
    if columns.category is None:
        missing = [*missing, Missing(Lack.CATEGORIES)]
    if columns.generators is None:
        missing = [*missing, Missing(Lack.GENERATORS)]
    else:
        sources.append(Source(GENERATORS, strengths(*columns.generators, folds).margin[:, None], learned=True))
    return weigh(sources, comparisons, texts.prompt, style, missing)


@dataclass(frozen=True)
class JudgedLabels:
    """What all evidence says of the labels of a run, [pairs] each; NaN for pairs without scores, of which none goes."""

    margin: np.ndarray
    right: np.ndarray  # P(the label is right)
    groups: np.ndarray  # equal where prompts are
    tells: bool  # whether the evidence predicts labels better than chance

    @classmethod
    def of_scores(cls, scores: Scores) -> JudgedLabels:
        """scores: with their posterior."""
        posterior = scores.posterior
        assert posterior is not None
        margin, right = (margins.where_scored(values, scores) for values in (posterior.margin, posterior.right))
        return cls(margin, right, posterior.groups, posterior.noise.tells)

    @cached_property
    def of(self) -> Judgeable:
        """How many they are."""
        return Judgeable.of(self.margin, self.groups)

    @property
    def estimable(self) -> bool:
        """Whether it is told what becomes of them: there are enough, and the evidence says something."""
        return self.of.enough and self.tells

    @cached_property
    def resampled(self) -> Resampled:
        return Resampled(self.margin, self.groups)


def reference(scores: Scores) -> Source:
    """The reference's own margins: summed (which depends on length) and per token."""
    return Source(REFERENCE, np.stack([margins.logp(scores, 0), margins.mean_logp(scores, 0)], axis=1))


def of_proxy(scores: Scores, checkpoint: Checkpoint) -> Source:
    """A held-out proxy's margins: summed and per token for a trained proxy; for a probe, already log-odds."""
    if checkpoint.is_probe:
        return Source(STATES, margins.reward(scores)[:, None] * BETA, learned=True)
    irm, per_token = margins.reward(scores), margins.mean_logp(scores) - margins.mean_logp(scores, 0)
    columns = [margins.on_one_scale(margin, scores) for margin in (irm, per_token)]
    return Source(checkpoint.name, np.stack(columns, axis=1))


def _is_last_step(run: Run, checkpoint: Checkpoint) -> bool:
    family = [c for c in run.checkpoints if c.family == checkpoint.family]
    return checkpoint.family is None or family[-1] == checkpoint
