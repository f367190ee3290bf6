"""What to do next: one command, with the paths and settings at hand, that would succeed."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo_curate.audit.estimates import Estimates
from rmo_curate.audit.findings import Counts
from rmo_curate.audit.numerals import percent_interval
from rmo_curate.evidence.label_noise import LEAST_FOR_RATE
from rmo_curate.evidence.swapped_copies import MIN_FLAGGED, telling
from rmo_curate.filter.decisions import Decisions
from rmo_curate.filter.settings import AUTO, FilterSettings, flags_of
from rmo_curate.filter.wording import towards
from rmo_curate.read.memory import IN_MEMORY
from rmo_train.console.wording import counted
from rmo_train.model.embedded import EMBEDDED

SMALL, SMALL_ON_THE_HUB = "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Step:
    text: str
    command: str


def step_of_run(folder: Path, decisions: Decisions, counts: Counts, estimated: Estimates) -> Step:
    """After the audit of the run in `folder`. decisions: what the filter would do."""
    settings, end = decisions.settings, decisions.trajectory.end
    if end is None:
        return Step("Fit a probe to compare with the reference, then audit again.", proxy(folder))
    if not end.held_out:
        return Step("Fit a probe whose scores are held out, then audit again.", proxy(folder))
    scored, noisy = counts.scorable, counts.dropped.get("noisy", 0)
    if estimated.untold and asked(settings) == {}:
        return Step(
            f"Drop nothing on this evidence: keep the {scored:,} scored pairs.", filter_command(folder, rule_none())
        )
    command = filter_command(folder, settings)
    if decisions.left_in_doubt:
        doubted = counted(decisions.left_in_doubt, "doubted label")
        does, would = "drops none", f"dropping {doubted}"
        if settings.action == AUTO:
            does, would = "leaves labels as they are", f"softening {doubted}"
        return Step(
            "Read the worst pairs on the page, mark the wrong ones, download the decisions, and add "
            f"--decisions decisions.json to the command. On its own, the filter {does}: {would} is not "
            "expected to pay.",
            command,
        )
    if decisions.softness:
        return Step(
            f"Read the worst pairs. If they look mislabelled, filter: {decisions.doubted:,} of the {scored:,} labels "
            f"are more likely wrong than right, and the trainer softens every label {towards(decisions.softness)}.",
            command,
        )
    if settings.action in ("weight", "flip"):
        return Step(f"Read the worst pairs. If they look mislabelled, filter ({settings.action}).", command)
    if not noisy:
        return Step(f"No label is doubted: keep the {scored:,} scored pairs as they are.", command)
    cut = estimated.at_cut if estimated.at_cut and estimated.at_cut.flagged >= MIN_FLAGGED else None
    told = telling(cut.precision) if cut else None
    how_many = f" An estimated {percent_interval(told)} of them are mislabelled." if told else ""
    return Step(
        f"Read the worst pairs. If they look mislabelled, drop {noisy:,} of the {scored:,} scored pairs as noisy."
        f"{how_many}",
        command,
    )


def step_of_data(
    data: Sequence[str],
    columns: Mapping[str, str],
    max_length: int | None,
    model: str | None = None,
    pairs: int | None = None,
) -> Step:
    """After the audit of data that no model has scored. columns: as `score --map` takes them. pairs: None: unknown."""
    told = "Score the pairs with a model, which finds more wrong labels than texts alone, then audit the run."
    if pairs is not None and pairs < LEAST_FOR_RATE:
        told = (
            f"Read the pairs yourself: fewer than {LEAST_FOR_RATE} are too few to find wrong labels statistically, "
            "even with a model's scores. Score them only to train on them."
        )
    if IN_MEMORY in data:
        return Step(told, f'rmo_curate.score(data, "{small_model()}").report()')
    out = free(Path(f"{stem(data[0])}-run"))
    mapped = [f"--map {shlex.quote(f'{role}={name}')}" for role, name in columns.items()]
    longest = [f"--max-length {max_length}"] if max_length else []
    files = " ".join(map(shlex.quote, data))
    command = " ".join(
        [
            "rmo-curate score",
            files,
            "--model",
            shlex.quote(model or small_model()),
            "--out",
            quoted(out),
            *mapped,
            *longest,
        ]
    )
    return Step(told, command)


def small_model() -> str:
    """A model that can be had here: the embedded one where its package is installed, else the same on the hub."""
    return SMALL if importlib.util.find_spec(EMBEDDED[SMALL].package) else SMALL_ON_THE_HUB


def stem(data: str) -> str:
    """What data are called: a file without its endings, a folder, the last part of hf:owner/name:split."""
    if data.startswith("hf:"):
        return data.removeprefix("hf:").split(":")[0].split("/")[-1]
    return Path(data).resolve().name.split(".")[0] or "data"


def proxy(folder: Path) -> str:
    return f"rmo-curate proxy {quoted(folder)}"


def filter_command(folder: Path, settings: FilterSettings) -> str:
    """The command that makes shards with these settings, in a folder beside the run that is not there yet."""
    beside = folder / ".." if folder.name in ("", "..") else folder.parent
    shards = free(beside / f"{folder.resolve().name}-shards")
    return " ".join(["rmo-curate filter", quoted(folder), "--out", quoted(shards), *flags_of(asked(settings))])


def asked(settings: FilterSettings) -> dict[str, object]:
    """The settings that are other than the filter's own."""
    own = FilterSettings().model_dump()
    return {name: value for name, value in settings.model_dump().items() if value != own[name]}


def rule_none() -> FilterSettings:
    return FilterSettings.model_validate({"rule": "none"})


def free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 … that is not there: a command may not refuse it, nor overwrite it."""
    return next(candidate for candidate in numbered(path) if not candidate.exists())


def numbered(path: Path) -> Iterator[Path]:
    yield path
    n = 2
    while True:
        yield path.with_name(f"{path.name}-{n}")
        n += 1


def quoted(path: Path) -> str:
    return shlex.quote(str(path))
