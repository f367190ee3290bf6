"""Evidence made by hand: a posterior of given sums, the posterior of scores without texts, pairs as tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rmo_curate.evidence.answers import Comparisons
from rmo_curate.evidence.gather import of_proxy, reference
from rmo_curate.evidence.label_noise import LabelNoise
from rmo_curate.evidence.posterior import Posterior, weigh
from rmo_curate.evidence.style import Style
from rmo_curate.evidence.texts import STYLE
from rmo_curate.runs.run import Checkpoint, Scores

OOF = Checkpoint("oof-9", "proxy", "oof", 9, 2, True, 0.01)


def no_style(pairs: int) -> Style:
    return Style.unknown(np.zeros((pairs, len(STYLE)), dtype=np.float32))


def no_shared_answers(pairs: int) -> Comparisons:
    return Comparisons.of(np.arange(pairs), np.arange(pairs) + pairs)


def posterior_of(margin: np.ndarray, rate: float, slope: float) -> Posterior:
    """Of one source, whose sums are given, each pair of a prompt of its own."""
    n = len(margin)
    nothing = np.zeros((n, 2), dtype=int)
    noise = LabelNoise(rate, slope)
    return Posterior(
        ("given",), np.asarray(margin, float)[:, None], noise, np.arange(n), (), 0.0, nothing, nothing, no_style(n)
    )


def weighed(scores: Scores, groups: np.ndarray) -> Posterior:
    """What the reference and a trained proxy say, without any text. groups: [pairs], of prompts."""
    n = len(groups)
    sources = [reference(scores), of_proxy(scores, OOF)]
    return weigh(sources, no_shared_answers(n), groups, no_style(n))


def table(rows: Sequence[tuple[str, str, str]]) -> pa.Table:
    """(prompt, chosen, rejected) as columns of messages."""
    message = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    sides = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    columns = {
        name: pa.array([[{"role": role, "content": row[i]}] for row in rows], message)
        for i, (name, role) in enumerate(sides.items())
    }
    return pa.table(columns)
