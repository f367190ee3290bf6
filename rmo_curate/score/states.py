"""RUN/states: the hidden states that probes are fitted on, one row a scorable pair, shared by probes of any split.

They are kept beside the reference's scores, part by part, from the same forward pass; or read by a pass of their own,
where the scores are there already or come from vLLM. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_curate.runs.manifests import StatesManifest
from rmo_curate.score.crew import Computed, Crew, Job, Loads, Part
from rmo_train.console.progress import progress, say
from rmo_train.data.pairs import PairData
from rmo_train.store.manifests import Parts
from rmo_train.store.tables import PartWriter, iter_parts

STATES = "states"  # in a run folder
STATE_SCHEMA = pa.schema([("id", pa.string()), ("difference", pa.list_(pa.float16()))])
WIDEST = 4096  # numbers kept of a pair; more are added up in this many buckets
NARROWEST = 256
NUMBERS = 500_000_000  # kept of all pairs together: 2 GB while probes are fitted, and as much again for a fold


def widest(pairs: int) -> int:
    """The most numbers that are kept of a pair: fewer where there are many pairs, so that all fit into memory."""
    return max(NARROWEST, min(WIDEST, NUMBERS // pairs))


class StateWriter:
    """Fills RUN/states with the differences of states of pairs, part by part; what a killed run finished is kept."""

    def __init__(self, run: Path, key: Mapping[str, Any]):
        self.width = key["widest"]
        self.writer = PartWriter(run / STATES, StatesManifest, key, STATE_SCHEMA)
        for name in self.writer.repaired:
            say(f"{self.writer.folder}: {name} was damaged and will be rewritten")

    def has(self, file: str) -> bool:
        return file in self.writer.finished

    def write(self, file: str, data: PairData, rows: np.ndarray, differences: np.ndarray) -> None:
        """The part `file`: `differences` of the pairs `rows` as they are kept, float16 [len(rows), numbers]."""
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * differences.shape[1]
        column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(differences.ravel()))
        ids = [str(i) for i in data.ids[rows]]
        self.writer.write(file, pa.table({"id": ids, "difference": column}, schema=STATE_SCHEMA))

    def finish(self, pairs: int) -> StatesManifest:
        """The manifest, written where it is not there yet."""
        if self.writer.manifest is not None:
            return self.writer.manifest
        part = self.writer.finished[min(self.writer.finished)]
        first = next(iter_parts(self.writer.folder, Parts(parts=(part,))))
        return self.writer.finish({"pairs": pairs}, width=len(first["difference"][0]))


def read_missing(
    states: StateWriter, data: PairData, parts: Mapping[str, np.ndarray], spec: Loads, crew: Crew
) -> StatesManifest:
    """Read the states of the `parts` (file -> rows of `data`) that are not there; returns the manifest.

    spec: the reference's, of an engine that sees states; loaded only where a part is missing.
    """
    missing = [
        Part(file, data, rows, scores=False, width=states.width) for file, rows in parts.items() if not states.has(file)
    ]
    if missing:
        with progress("read hidden states", len(data), "pair") as bar:
            bar.advance(sum(len(rows) for file, rows in parts.items() if states.has(file)))
            for answer in crew.run([Job(spec, missing, data, describe=False)], bar.advance):
                assert isinstance(answer, Computed) and answer.differences is not None
                states.write(answer.file, data, parts[answer.file], answer.differences)
    return states.finish(len(data))


def read_states(run: Path, manifest: StatesManifest, data: PairData) -> np.ndarray:
    """State differences in the order of `data`: float32 [pairs, numbers]."""
    place = {i: k for k, i in enumerate(data.ids)}
    states = np.empty((len(data), manifest.width), dtype=np.float32)
    for part in iter_parts(run / STATES, manifest):
        rows = [place[i] for i in part["id"].to_pylist()]
        states[rows] = part["difference"].combine_chunks().values.to_numpy().reshape(len(rows), -1)
    return states
