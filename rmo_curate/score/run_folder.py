"""The run folder as `score` fills it: whose it is, its manifest, and what is done and left in it.

Commands that read a finished run come in through `runs.open_run`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rmo_curate.runs.manifests import RejectsManifest
from rmo_curate.runs.run import MADE_BY
from rmo_curate.runs.run_lock import is_held, only_one
from rmo_curate.score.families import is_family, planned_families
from rmo_curate.score.shares import SHARES, share_folders
from rmo_train.console.errors import FULL, ProcessingError, Stopped, UserError, cannot_write
from rmo_train.console.wording import counted
from rmo_train.data.rendering import RENDERING_FLAGS
from rmo_train.report import too_long_line
from rmo_train.store.files import read_json
from rmo_train.store.manifests import (
    MANIFEST,
    Manifest,
    PairsManifest,
    Reference,
    RunManifest,
    ScoresManifest,
    check_key,
    read_manifest,
    stage_of,
)
from rmo_train.store.tables import JOURNAL, TOO_LONG, iter_parts

STAGES = ("pairs", "rejects", "scores", "states", "proxies", SHARES)
WORKING = "workers.json"  # in a run folder: who does what, while a command with workers runs
NAMED = 5  # ids that `status` gives for each flag
KINDS = ("base", "user", "proxy")
IDENTITY = ("weights_sha256", "tokenizer_sha256", "template_sha256")


def is_run(run: Path) -> bool:
    """Whether `score` made the folder `run` or began to."""
    if (run / MANIFEST).is_file():
        return stage_of(run) == "run"
    return any((run / "pairs" / name).is_file() for name in (MANIFEST, JOURNAL))


def check_run_folder(run: Path) -> None:
    """Refuse an --out that holds something else than a run: what is written there would mix with it."""
    if run.exists() and not run.is_dir():
        raise UserError(f"--out {run}: is a file; expected a folder")
    if not run.exists() or is_run(run):
        return
    files = (p for p in run.rglob("*") if p.is_file() and not p.name.startswith("."))
    if (first := next(files, None)) is not None:
        raise UserError(
            f"--out {run}: the folder holds files that do not belong to a run ({first.relative_to(run)}); "
            "choose another folder"
        )


@contextmanager
def filling(run: Path, *, afresh: bool = False) -> Iterator[None]:
    """Make the folder and fill it, alone; `afresh` removes every stage in it: pairs, rejects, scores and proxies.

    A Ctrl-C becomes one line that says what is kept and how to go on.
    """
    try:
        with _changing(run):
            run.mkdir(parents=True, exist_ok=True)
        with only_one(run):
            if afresh:
                with _changing(run):
                    _remove_stages(run)
            yield
    except KeyboardInterrupt as e:
        raise Stopped(f"stopped; kept in {run}: {kept(run)}. Run the same command again to resume") from e


@contextmanager
def _changing(run: Path) -> Iterator[None]:
    """Say of what --out could not be made."""
    try:
        yield
    except OSError as e:
        if e.errno in FULL:
            raise cannot_write(run, e) from e
        raise UserError(f"--out {run}: cannot create this folder ({e.strerror}); choose another") from e


def _remove_stages(run: Path) -> None:
    (run / MANIFEST).unlink(missing_ok=True)  # first: without it, no reader takes what is left for a run
    for stage in reversed(STAGES):  # pairs last: they mark the folder as a run
        if (run / stage).exists():
            shutil.rmtree(run / stage)


def kept(run: Path) -> str:
    """The finished stages, and the parts and models of unfinished ones, in a few words."""
    present = []
    for folder in (run / "pairs", run / "states", *sorted((run / "scores").glob("*"))):
        name = folder.relative_to(run).as_posix()
        if (folder / MANIFEST).is_file():
            present.append(name)
        elif n := len(list(folder.glob("part-*.parquet"))):
            present.append(f"{n} part{'s' * (n > 1)} of {name}")
    if n := len(list((run / "proxies").glob("*/fold-*/step-*/trained.json"))):
        present.append(f"{n} proxy model{'s' * (n > 1)}")
    return ", ".join(present) or "nothing yet"


def recorded_reference(run: Path) -> Reference | None:
    """The reference that a run was begun with, or None."""
    manifest = read_manifest(run, RunManifest)
    return manifest.reference if manifest else None


def check_reference(recorded: Reference, wanted: Reference, run: Path) -> None:
    """Refuse another reference model, precision or engine than the run's, naming the field.

    The model's name is no part of it: the same weights under another path are the same model.
    """
    differing = [f for f in IDENTITY if getattr(recorded, f) != getattr(wanted, f)]

    def described(reference: Reference) -> dict[str, Any]:
        hashes = {f: f"{getattr(reference, f):.12} of --model {reference.name}" for f in differing}
        return {**hashes, "dtype": reference.dtype, "engine": reference.engine}

    check_key(described(recorded), described(wanted), run)


def finished_scores(run: Path) -> list[ScoresManifest]:
    """The manifests of the score stages that are finished, in the order of the trajectory."""
    stages = [m for f in sorted((run / "scores").glob("*")) if f.is_dir() and (m := read_manifest(f, ScoresManifest))]
    return sorted(stages, key=lambda m: (KINDS.index(m.kind), m.order, m.step or 0))


def write_run_manifest(run: Path, reference: Reference) -> None:
    """Derive RUN/manifest.json from the manifests of the stages that are finished.

    `reference`: the model, its precision and engine; how its log-probs were computed comes from the stage `base`.
    """
    pairs = read_manifest(run / "pairs", PairsManifest)
    assert pairs is not None
    counts = {k: pairs.counts[k] for k in ("records", "pairs", "rejects", TOO_LONG)}
    stages = finished_scores(run)
    computed_by = next((m.computed_by for m in stages if m.kind == "base"), {})
    manifest = RunManifest(
        inputs=pairs.inputs,
        form=pairs.form,
        max_length=pairs.key["max_length"],
        longest=pairs.longest,
        context=pairs.context,
        counts={**counts, "scorable": counts["pairs"] - counts[TOO_LONG]},
        rejects={k.removeprefix("rejects/"): v for k, v in pairs.counts.items() if k.startswith("rejects/")},
        reference=reference.model_copy(update=computed_by),
        checkpoints=tuple(m.checkpoint for m in stages),
        noise_sd={m.name: m.noise_sd for m in stages},
    )
    if read_manifest(run, RunManifest) != manifest:
        manifest.write(run)


def next_order(run: Path, kind: str, name: str) -> int:
    """The place of the score stage `name` among those of its kind: the one it has, else after all others."""
    taken = {m.name: m.order for m in finished_scores(run) if m.kind == kind}
    return taken.get(name, max(taken.values(), default=-1) + 1)


def records_line(records: int, pairs: int, rejects: int) -> str:
    """What became of the records; the counts add up."""
    return f"{counted(records, 'record')} = {counted(pairs, 'pair')} + {counted(rejects, 'reject')}"


def summary(run: Path) -> list[str]:
    """What a finished `score` or `proxy` prints."""
    manifest = read_manifest(run, RunManifest)
    if manifest is None:
        raise ProcessingError(f"{run}: {MANIFEST} was removed while the command ran; run the same command again")
    counts = manifest.counts
    names = ", ".join(c.name for c in manifest.checkpoints)
    return [
        f"{records_line(counts['records'], counts['pairs'], counts['rejects'])}; "
        f"{counted(counts[TOO_LONG], 'pair')} too long; scored: {names}",
        *([too_long_line(manifest.too_long)] if manifest.too_long else []),
    ]


def scored_already(run: Path) -> list[str]:
    """What a folder has that the same command would not compute again; no line for a folder that has nothing."""
    manifest = read_manifest(run, RunManifest)
    names = [c.name for c in manifest.checkpoints] if manifest else []
    return [f"{run} has the scores of {', '.join(names)}; they are not computed again"] if names else []


def flagged_lines(pairs: Path, manifest: PairsManifest) -> list[str]:
    """How many pairs have each flag of the rendering or are too long, and the first ids."""
    wanted = [flag for flag in (*RENDERING_FLAGS, TOO_LONG) if manifest.counts.get(flag)]
    ids: dict[str, list[str]] = {flag: [] for flag in wanted}
    for part in iter_parts(pairs, manifest, ["id", "flags"]) if wanted else ():
        for pair, flags in zip(part["id"].to_pylist(), part["flags"].to_pylist(), strict=True):
            for flag in flags:
                if len(ids[flag]) < NAMED:
                    ids[flag].append(pair)
        if all(len(ids[flag]) == min(NAMED, manifest.counts[flag]) for flag in wanted):
            break
    return [
        f"  {flag}: {n:,} ({', '.join(ids[flag])}{', …' if n > NAMED else ''})"
        for flag in wanted
        if (n := manifest.counts[flag])
    ]


def run_status(run: Path) -> list[str]:
    """What is done in a run folder and what is left."""
    if not run.is_dir():
        found = "is a file" if run.is_file() else "no such folder"
        raise UserError(f"{run}: {found}; expected a run folder, made by `{MADE_BY}`")
    if not is_run(run):
        raise UserError(f"{run}: not a run folder; expected one made by `{MADE_BY}`")
    done, left = [], []
    kinds: dict[str, type[Manifest]] = {"pairs": PairsManifest, "rejects": RejectsManifest}
    for stage, kind in kinds.items():
        if manifest := read_manifest(run / stage, kind):
            done.append(f"{stage}: done, {counted(manifest.counts[stage], 'row')}")
            done += flagged_lines(run / stage, manifest) if isinstance(manifest, PairsManifest) else []
        else:
            left.append(f"{stage}: not finished ({counted(len(list((run / stage).glob('part-*.parquet'))), 'part')})")
    whole = read_manifest(run, RunManifest)
    if whole is not None and whole.too_long is not None:
        done.append(too_long_line(whole.too_long))
    expected = ["base"]
    for folder, family in planned_families(run).items():
        names = family.checkpoints(folder.name)
        expected += names
        models = len(list(folder.glob("fold-*/step-*/trained.json")))
        line = f"proxies/{folder.name}: "
        if is_family(folder):
            done.append(line + "done")
        elif family.key["kind"] == "probe":
            parts = len(list((run / "states").glob("part-*.parquet")))
            left.append(line + f"not finished ({counted(parts, 'part')} of states)")
        else:
            left.append(line + f"not finished ({models} of {family.key['folds'] * len(names)} models)")
    scored = sorted(p.name for p in (run / "scores").glob("*") if p.is_dir())
    for name in [*scored, *(n for n in expected if n not in scored)]:
        if scores := read_manifest(run / "scores" / name, ScoresManifest):
            done.append(f"scores/{name}: done, {counted(scores.counts['pairs'], 'pair')}")
        else:
            parts = len(list((run / "scores" / name).glob("part-*.parquet")))
            left.append(f"scores/{name}: not finished ({counted(parts, 'part')})")
    for folder in share_folders(run):
        parts = len(list(folder.glob("scores/*/part-*.parquet")))
        state = "running" if is_held(folder) else "not running"
        left.append(f"--shard {folder.name.replace('-of-', '/')}: {counted(parts, 'part')} of scores, {state}")
    at_work = worker_lines(run)
    if left and not at_work:
        left.append("to resume, run the same command again")
    if not left:
        done.append("nothing is left")
    return [*done, *left, *at_work]


def worker_lines(run: Path) -> list[str]:
    """What each worker of a command that is filling the folder now is at."""
    if not (run / WORKING).is_file() or not is_held(run):
        return []
    return [
        f"worker {w['worker']} on {w['where']}: {w['part']}, for {w['seconds']:.0f} s"
        for w in read_json(run / WORKING)["workers"]
    ]
