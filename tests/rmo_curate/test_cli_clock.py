"""A clock that is set back while commands run changes nothing that they make."""

from __future__ import annotations

import itertools
import time

from rmo_train.training.record import read_metrics
from tests.command_line import curate, train
from tests.rmo_curate.scored import contents

CLOCKED = ("pairs_per_second", "tokens_per_second", "matmul_share", "peak_memory_gib")


def test_a_clock_that_goes_back_changes_no_result(demo_data, tiny_model_folder, tmp_path, monkeypatch):
    def made(name: str) -> tuple[dict[str, bytes], bytes, list[dict]]:
        folder = tmp_path / name
        score = ("score", demo_data, "--model", tiny_model_folder, "--out", folder / "run", "--dtype", "float32")
        assert curate(*score).code == 0
        assert curate("filter", folder / "run", "--out", folder / "shards").code == 0
        line = ("--model", tiny_model_folder, "--out", folder / "out", "--save-steps", 1, "--learning-rate", 1e-3)
        assert train("run", folder / "shards", *line, "--max-steps", 3).code == 0
        lines = [{k: v for k, v in line.items() if k not in CLOCKED} for line in read_metrics(folder / "out")]
        return contents(folder / "run"), (folder / "out" / "model.safetensors").read_bytes(), lines

    expected = made("steady")
    now, ticks = time.time(), itertools.count()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * (n := next(ticks)) + 2 * 86400 * (n // 9))
    assert made("set back") == expected
    assert len(expected[2]) == 3
