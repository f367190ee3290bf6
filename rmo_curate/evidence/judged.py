"""A run's pairs as a frame: texts, margins under every checkpoint, how likely each label is right, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.evidence.contributions import contributions
from rmo_curate.evidence.gather import with_posterior
from rmo_curate.evidence.wording import reasons
from rmo_curate.runs import margins
from rmo_curate.runs.run import Run, Trajectory

if TYPE_CHECKING:
    import polars as pl

UNREAD = (
    "prompt_ids",
    "chosen_ids",
    "rejected_ids",
    "tokens_sha",
)  # columns of a run's pairs that a reader does not need
TEXTS = ("prompt", "chosen", "rejected")


def judged_pairs(run: Run, names: EvidenceColumns, *, with_reasons: bool = True) -> pl.DataFrame:
    """One row per pair, in the order of the run. `names`: the data's columns that are used as evidence.

    The run's own columns without token ids, each message list as one text, and

    - `margin_<checkpoint>`: D_m in nats, null for a pair that is too long to score
    - `label_confidence`: P(the label is right) given all evidence; for a pair without scores, given its text
    - `reasons`: sentences, the strongest against the label first
    """
    import polars as pl

    scores = with_posterior(run, run.scores(Trajectory(run.checkpoints, run.checkpoints[-1])), names)
    posterior = scores.posterior
    assert posterior is not None
    table = pl.DataFrame(run.pairs()).drop(UNREAD)
    contents = pl.element().struct.field("content").fill_null("")
    frame = table.with_columns(pl.col(text).list.eval(contents).list.join("\n\n") for text in TEXTS)
    columns = [
        pl.Series(f"margin_{name}", margins.logp(scores, m), nan_to_null=True) for m, name in enumerate(scores.names)
    ]
    columns.append(pl.Series("label_confidence", posterior.right))
    if with_reasons:
        said = [[reason.text for reason in reasons(contributions(posterior, i))] for i in range(len(frame))]
        columns.append(pl.Series("reasons", said, dtype=pl.List(pl.String)))
    return frame.with_columns(columns)
