"""Small preference data, and runs scored on them with the tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rmo_curate.score.command import run_score
from rmo_curate.score.settings import ProxySettings, ScoreSettings
from rmo_train.store import tables
from tests.command_line import Outcome, curate
from tests.manifests import manifest_of, parts_of

DEMO = Path(__file__).parents[2] / "data" / "demo" / "train.jsonl"
PROXY = ProxySettings(kind="lora", folds=2, batch_size=4, lora=2)
NO_PROXY = ProxySettings(kind="none")
PARTS = "part-*.parquet"


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def demo_records(n: int) -> list[dict[str, Any]]:
    """The first n demo pairs."""
    with DEMO.open() as lines:
        return [json.loads(line) for line, _ in zip(lines, range(n), strict=False)]


def record(i: int, /, **more: Any) -> dict[str, Any]:
    return {"prompt": f"question {i}?", "chosen": f"good answer {i}", "rejected": f"bad {i}"} | more


def write_jsonl(path: Path, records: Iterable[dict[str, Any] | str | bytes]) -> Path:
    """A record a line; a string, or bytes, is a line as it stands."""
    lines = (r if isinstance(r, str | bytes) else json.dumps(r) for r in records)
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def score(
    data: Path,
    model: Path | str,
    run: Path,
    *,
    part_size: int = 4,
    proxy: ProxySettings = NO_PROXY,
    checkpoints: Sequence[str] = (),
    overwrite: bool = False,
    dry_run: bool = False,
    **settings: Any,
) -> list[str]:
    """`run_score` in float32 with small parts."""
    resolved = ScoreSettings(**({"dtype": "float32", "part_size": part_size} | settings))
    return run_score(
        [str(data)], str(model), run, resolved, proxy, checkpoints=checkpoints, overwrite=overwrite, dry_run=dry_run
    )


def score_demo(folder: Path, model: Path | str, n: int, **settings: Any) -> Path:
    """The first n demo pairs as `folder`/pairs.jsonl, scored into `folder`/run, which is returned."""
    data = write_jsonl(folder / "pairs.jsonl", demo_records(n))
    score(data, model, folder / "run", **settings)
    return folder / "run"


def score_line(data: Path | str, model: Path | str, *more: Any) -> Outcome:
    """`rmo-curate score` as a user types it, into `run` of the working folder: float32, no proxies."""
    return curate("score", data, "--model", model, "--out", "run", "--proxy", "none", "--dtype", "float32", *more)


def scores(run: Path, checkpoint: str) -> dict[str, tuple[float, float]]:
    """id -> (chosen_logp, rejected_logp), nats."""
    folder = run / "scores" / checkpoint
    rows = tables.read_table(folder, parts_of(folder), tables.SCORE_SCHEMA).to_pylist()
    return {r["id"]: (r["chosen_logp"], r["rejected_logp"]) for r in rows}


def checkpoint_names(run: Path) -> list[str]:
    """Names of the checkpoints that the run's manifest lists, in its order."""
    return [c["name"] for c in manifest_of(run)["checkpoints"]]


def perturbed(model: Path, out: Path, *, seed: int = 1) -> Path:
    """A copy of the model with other weights: a trained checkpoint."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, out)
    weights = load_file(out / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    changed = {name: w + 0.01 * torch.randn(w.shape, generator=generator) for name, w in weights.items()}
    save_file(changed, out / "model.safetensors", metadata={"format": "pt"})
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run that does not hold a time: relative path -> bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "metrics.jsonl"
    }


def marks(folder: Path, pattern: str = "*") -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file: the same exactly when it was not written again."""
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in sorted(folder.rglob(pattern))
        if p.is_file()
    }
