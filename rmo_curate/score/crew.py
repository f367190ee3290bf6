"""Who computes the parts of a stage: this process alone, or workers (`workers`). A stage knows no more than `Crew`.

A part is handed over with all that it needs, and comes back as arrays: the stage writes it. So what is finished, and
that it is finished once, is the matter of the run folder alone, whoever computed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from rmo_curate.score.buckets import kept
from rmo_curate.score.engines.base import NOISE_PAIRS, NOISE_SHARE, Engine, StateEngine, Work
from rmo_train.data.pairs import PairData


class Loads(Protocol):
    """What an engine is loaded from, see `engines.spec.EngineSpec`."""

    @property
    def model(self) -> str: ...

    def load(self) -> Engine: ...


@dataclass(frozen=True)
class Part:
    """One part file of a stage: which pairs it holds, and what of it is still to be computed."""

    file: str
    data: PairData
    rows: np.ndarray  # of `data`, int64
    scores: bool = True
    width: int = 0  # numbers that are kept of a pair's hidden states; 0: none are asked for

    @property
    def wanted(self) -> bool:
        return self.scores or self.width > 0

    def alone(self) -> Part:
        """The same part with its own pairs and no others: small enough to be sent to another process."""
        return replace(self, data=_sent(self.data.subset(self.rows)), rows=np.arange(len(self.rows)))


@dataclass(frozen=True)
class Job:
    """The parts that one model computes."""

    spec: Loads
    parts: Sequence[Part]
    data: PairData  # all pairs of the stage
    describe: bool = True  # whether `Described` is asked for, too

    def sample(self) -> PairData:
        """As many pairs as the noise of scoring is measured on a part of."""
        return _sent(self.data.subset(self.data.spread(NOISE_PAIRS * NOISE_SHARE)))


@dataclass(frozen=True)
class Computed:
    """A part, computed; None for what was not asked for."""

    file: str
    pairs: int
    work: Work  # of the whole part, also where less was asked for
    logps: np.ndarray | None = None  # float64 nats [pairs, 2]: chosen, rejected
    differences: np.ndarray | None = None  # of states, as they are kept: float16 [pairs, numbers]


@dataclass(frozen=True)
class Described:
    """How a model's log-probs were computed."""

    noise_sd: float  # nats, of D
    reason: str  # of the layout, for people
    recorded: str  # the same for the manifest
    computed_by: dict[str, str]


Answer = Computed | Described
Advance = Callable[[float], None]


class Crew(Protocol):
    def run(self, jobs: Sequence[Job], advance: Advance) -> Iterator[Answer]:
        """Every part of every job once, in any order, and a `Described` for each job that asks; `advance` gets pairs.

        ProcessingError at the end where a part could not be computed; all others are yielded before it.
        """

    def each(self, function: Callable[..., None], calls: Iterable[tuple[Any, ...]]) -> None:
        """Call `function`, one of a module, with each of the arguments, in any order."""


class Alone:
    """This process: one model at a time, parts in order."""

    def run(self, jobs: Sequence[Job], advance: Advance) -> Iterator[Answer]:
        for job in jobs:
            engine = job.spec.load()
            for part in job.parts:
                yield compute(engine, part, advance)
            if job.describe:
                yield describe(engine, job.data)
            del engine  # its memory is free before the next one is loaded

    def each(self, function: Callable[..., None], calls: Iterable[tuple[Any, ...]]) -> None:
        for arguments in calls:
            function(*arguments)


def compute(engine: Engine, part: Part, advance: Advance = lambda pairs: None) -> Computed:
    """What is asked for of a part; log-probs and states in one pass where both are."""
    data, rows = part.data, part.rows
    done = Computed(part.file, len(rows), engine.work(data, rows))
    if not part.wanted:
        advance(len(rows))
        return done
    if not part.width:
        return replace(done, logps=engine.score(data, rows, advance))
    assert isinstance(engine, StateEngine), engine
    if not part.scores:
        return replace(done, differences=kept(engine.state_differences(data, rows, advance), part.width))
    logps, differences = engine.score_with_states(data, rows, advance)
    return replace(done, logps=logps, differences=kept(differences, part.width))


def describe(engine: Engine, data: PairData) -> Described:
    return Described(engine.noise_sd(data), engine.layout.reason, engine.layout.recorded, engine.layout.computed_by)


def _sent(data: PairData) -> PairData:
    """Pairs as another process needs them: tokens, and nothing that only names them."""
    return replace(data, manifest=None)
