"""Preference files as the benchmarks measure them: tokens for our engines, messages for TRL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rmo_train.data.pairs import PairData
from rmo_train.data.ragged import Ragged
from rmo_train.store.tables import prompt_group


@dataclass(frozen=True)
class Loaded:
    """The pairs of one file: tokens for the engines, messages for TRL."""

    tokens: PairData
    messages: list[dict[str, Any]]


def load(path: str, limit: int | None, model: str) -> Loaded:
    """The first `limit` pairs of a preference file, rendered for `model`, pairs of one prompt side by side."""
    from rmo_curate.read.sources import Pair, open_source
    from rmo_train.data.rendering import Rendered, Renderer
    from rmo_train.model.policy import load_tokenizer

    pairs = [r for r in open_source([path]).records() if isinstance(r, Pair)][:limit]
    first: dict[str, int] = {}
    groups = [prompt_group(p.prompt, p.tools) for p in pairs]
    for group in groups:
        first.setdefault(group, len(first))
    order = sorted(range(len(pairs)), key=lambda i: first[groups[i]])
    rendered = Renderer(load_tokenizer(model)).render_many([p.conversation for p in pairs])
    good = [i for i in order if isinstance(rendered[i], Rendered)]

    def ragged(column: str) -> Ragged:
        return Ragged.from_rows([np.array(getattr(rendered[i], column), dtype=np.int32) for i in good])

    ones = np.ones(len(good))
    tokens = PairData(
        Path(path),
        None,
        np.array([pairs[i].id for i in good], dtype=object),
        np.array([groups[i] for i in good], dtype=object),
        ragged("prompt_ids"),
        ragged("chosen_ids"),
        ragged("rejected_ids"),
        ones,
        ones,
    )
    messages = [{"prompt": pairs[i].prompt, "chosen": pairs[i].chosen, "rejected": pairs[i].rejected} for i in good]
    return Loaded(tokens, messages)
