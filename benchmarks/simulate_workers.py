"""Where the command that hands parts out to many workers becomes the limit: a Ray run of 64 workers that only wait.

    python -m benchmarks.simulate_workers [--workers 64]

Workers, driver, files and journal are those of `score --ray`; only the engine is not: it waits as long as a part takes
and returns numbers that it has. How long that is was measured on one GPU (gpu-day/score-smollm2.json, SmolLM2-135M), by
the tokens of a part; a run may be so many times faster. All of it runs on this machine, so what 64 processes cost
beside waiting is taken from the driver: its processor time a part is the figure that holds elsewhere, too. Writes
benchmarks/results/simulate-workers.json, after every run.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from rmo_curate.score.engines.base import Work
from rmo_curate.score.scoring import Assignment, ScoreStage, in_group_order, score_stage
from rmo_curate.score.states import StateWriter, widest
from rmo_curate.score.workers import RayCrew
from rmo_train.data.pairs import PairData
from rmo_train.data.ragged import Ragged
from rmo_train.forward.layout import Layout
from rmo_train.store.files import read_json, write_json

RESULTS = Path(__file__).parent / "results"
MEASURED = RESULTS / "gpu-day" / "score-smollm2.json"
PART = 1024  # pairs
HELD = 200_000  # pairs in memory, scored again and again
STATES = 4096  # numbers of a pair, of a model as wide
PROMPT, CHOSEN, REJECTED, PAIRS_A_PROMPT = 65, 151, 104, 3  # mean tokens and pairs of judged data


@dataclass(frozen=True)
class Run:
    """What is asked of the workers."""

    name: str
    pairs: int
    faster: float = 1.0  # than the GPU
    states: int = 0  # numbers of a pair's hidden states that come back beside its log-probs, as for a probe


RUNS = (
    Run("no waiting", 1_000_000, faster=1e6),
    Run("no waiting, with states", 250_000, faster=1e6, states=STATES),
    Run("a model four times as slow", 1_000_000, faster=0.25),
    Run("ten million pairs, as fast as measured", 10_000_000),
)


@dataclass(frozen=True)
class Waiting:
    """What a worker is sent instead of a model."""

    seconds_per_token: float
    numbers: int  # of the states of a pair
    model: str = "waiting"

    def load(self) -> WaitingEngine:
        return WaitingEngine(self)


@dataclass
class WaitingEngine:
    """Waits as long as the tokens of its pairs take."""

    spec: Waiting
    layout: Layout = field(default_factory=lambda: Layout("segments", 1024))

    def __post_init__(self) -> None:
        drawn = np.random.default_rng(0).standard_normal((2 * PART, self.spec.numbers), dtype=np.float32)
        self.states = drawn  # of any pairs: parts are a little over PART

    def work(self, data: PairData, rows: np.ndarray) -> Work:
        return Work.of(data, rows, 2 * len(rows), tokens_of(data, rows))

    def score(self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None) -> Any:
        time.sleep(self.spec.seconds_per_token * tokens_of(data, rows))
        return -1.0 * np.stack([data.chosen.lengths[rows], data.rejected.lengths[rows]], axis=1)

    def state_differences(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        return self.states[: len(rows)]

    def score_with_states(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> Any:
        return self.score(data, rows), self.state_differences(data, rows)

    def noise_sd(self, data: PairData) -> float:
        return 0.0


def tokens_of(data: PairData, rows: np.ndarray) -> int:
    return int(sum(column.lengths[rows].sum() for column in (data.prompt, data.chosen, data.rejected)))


def made_pairs(n: int) -> PairData:
    """Pairs with lengths drawn as widely as in real data (exponential, at least 4)."""
    rng = np.random.default_rng(0)

    def texts(mean: int) -> Ragged:
        lengths = np.maximum(4, rng.exponential(mean, n).astype(np.int64))
        return Ragged.from_lengths(rng.integers(0, 49152, int(lengths.sum()), dtype=np.int32), lengths)

    return PairData(
        folder=Path("none"),
        manifest=None,
        ids=np.array([f"{i:032x}" for i in range(n)], dtype=object),
        groups=np.array([f"{i // PAIRS_A_PROMPT:016x}" for i in range(n)], dtype=object),
        prompt=texts(PROMPT),
        chosen=texts(CHOSEN),
        rejected=texts(REJECTED),
        weight=np.ones(n),
        label_confidence=np.ones(n),
    )


def seconds_per_token() -> float:
    """On the GPU, of the tokens asked for."""
    measured = read_json(MEASURED)["found"]["smollm2-135m ultrafeedback flex"]
    return float(measured["seconds"] / measured["tokens"])


def stage_of(data: PairData, pairs: int) -> ScoreStage:
    """`pairs` rows of the data that are there, over and over."""
    order = in_group_order(data.groups)
    return ScoreStage("base", {"simulated": True}, "base", 0, [Assignment("waiting", np.resize(order, pairs))])


def run(data: PairData, pairs: int, workers: int, spec: Waiting, address: str) -> dict[str, Any]:
    """One stage by workers that are up already."""
    folder = Path(tempfile.mkdtemp(prefix="simulated-"))
    crew = RayCrew(workers, address, folder)
    states = (lambda place: StateWriter(place, {"widest": widest(RUNS[-1].pairs)})) if spec.numbers else None
    try:
        warm_up(crew, data, folder, workers)
        stage = stage_of(data, pairs)
        start, cpu = time.perf_counter(), time.process_time()
        manifest = score_stage(folder, data, stage, lambda model: spec, PART, states, crew)
        took, busy = time.perf_counter() - start, time.process_time() - cpu
        written = sum(file.stat().st_size for file in folder.rglob("part-*.parquet"))
    finally:
        crew.close()
        shutil.rmtree(folder)
    parts = len(manifest.parts)
    waited = spec.seconds_per_token * tokens_of(data, np.resize(np.arange(len(data)), pairs))
    kept = min(spec.numbers, widest(RUNS[-1].pairs))
    returned = pairs * (16 + 2 * kept)  # two log-probs, and the states that are kept in half precision
    return {
        "workers": workers,
        "states": spec.numbers,
        "pairs": pairs,
        "parts": parts,
        "seconds_of_a_part": waited / parts,
        "seconds": took,
        "parts_per_second": parts / took,
        "pairs_per_second": pairs / took,
        "asked_pairs_per_second": pairs * workers / waited if waited else None,
        "workers_busy": waited / workers / took,
        "driver_cpu_seconds_per_part": busy / parts,
        "returned_bytes_per_second": returned / took,
        "written_bytes_per_second": written / took,
    }


def warm_up(crew: RayCrew, data: PairData, folder: Path, workers: int) -> None:
    """A short stage, until every worker's process has been at work."""
    quick = Waiting(2.0 / tokens_of(data, np.arange(16)), 0)  # two seconds a part
    order = in_group_order(data.groups)[: 16 * 2 * workers]
    stage = ScoreStage("warm", {}, "base", 0, [Assignment("waiting", order)])
    while len(crew.free) < workers:
        shutil.rmtree(folder / "scores", ignore_errors=True)
        score_stage(folder, data, stage, lambda model: quick, 16, None, crew)
    shutil.rmtree(folder / "scores")


def main() -> None:
    from ray.cluster_utils import Cluster

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--runs", type=int, default=len(RUNS), help="the first so many of them")
    parser.add_argument("--out", type=Path, default=RESULTS / "simulate-workers.json")
    asked = parser.parse_args()
    before = environment(device="none: workers wait")
    data, rate, rows = made_pairs(HELD), seconds_per_token(), []
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": asked.workers})
    try:
        for each in RUNS[: asked.runs]:
            spec = Waiting(rate / each.faster, each.states)
            found = run(data, each.pairs, asked.workers, spec, cluster.address)
            rows.append({"name": each.name, "faster": each.faster} | found)
            print(rows[-1], flush=True)
            write_json(asked.out, {"environment": before, "seconds_per_token": rate, "rows": rows})
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
