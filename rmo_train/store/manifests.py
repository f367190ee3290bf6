"""manifest.json: one type per kind of folder; all reading and checking is here.

A manifest is written last: a folder with one is complete. A folder without one is treated as absent, except by the
stage that writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rmo_train.console.errors import UserError
from rmo_train.store.files import check_inside, read_json, sha256_file, write_json

SCHEMA_VERSION: Literal[2] = 2
MANIFEST = "manifest.json"

M = TypeVar("M", bound="Described")


def versions() -> dict[str, str]:
    """Versions of the packages that can affect results."""
    installed = {}
    for name in ("rmo", "torch", "transformers", "tokenizers", "peft", "pyarrow"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "not installed"
    return installed


@dataclass(frozen=True)
class PartFile:
    """One Parquet file of a stage, as its manifest records it."""

    file: str  # path inside the stage's folder
    rows: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        check_inside(self.file)


def is_intact(folder: Path, part: PartFile) -> bool:
    """Whether a part exists with the recorded bytes."""
    path = folder / part.file
    return path.is_file() and path.stat().st_size == part.bytes and sha256_file(path) == part.sha256


class Described(BaseModel):
    """Base of all manifests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[2] = SCHEMA_VERSION
    stage: str
    versions: dict[str, str] = Field(default_factory=versions)  # versions of the packages that can affect results

    def write(self, folder: Path) -> None:
        write_json(folder / MANIFEST, self.model_dump(mode="json"))


class Parts(BaseModel):
    """Files that together form one table, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_again: ClassVar[str] = "make the folder again (--overwrite)"  # the remedy for a damaged file

    parts: tuple[PartFile, ...] = ()


class Manifest(Described, Parts):
    """The manifest of a folder of tables."""

    key: dict[str, Any]  # exactly the settings that affect its content
    counts: dict[str, int]


class OfScore(Manifest):
    """The manifest of a folder that `score` writes part by part."""

    made_again: ClassVar[str] = "run the same scoring command again to make this part again"


@dataclass(frozen=True)
class InputFile:
    """An input file."""

    name: str
    bytes: int
    sha256: str


class Reference(BaseModel):
    """The model whose log-probs the pairs have: its identity, and how they were computed; None: unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None  # as the user gave it
    weights_sha256: str | None = None
    tokenizer_sha256: str | None = None
    template_sha256: str | None = None
    dtype: str | None = None
    engine: str | None = None
    attention: str | None = None
    device: str | None = None
    allowed: tuple[str, ...] | None = None  # trust flags without which the model would have been refused

    def is_known(self) -> bool:
        return self != Reference()


@dataclass(frozen=True)
class Checkpoint:
    """One scored model of a run: the base, a user's checkpoint, or a step of a proxy family."""

    name: str  # also the name of its folder
    kind: Literal["base", "user", "proxy"]
    family: str | None
    step: int | None
    folds: int | None
    held_out: bool | None  # True: no pair was scored by a model that saw its prompt; None: unknown
    noise_sd: float | None  # noise of scoring: sd of the difference in D between two packings of the same pairs, nats

    def __post_init__(self) -> None:
        check_inside(self.name)

    @property
    def cross_fitted(self) -> bool:
        return self.folds is not None and self.folds >= 2

    @property
    def is_probe(self) -> bool:
        """Whether it is a linear reward on the base's hidden states, with log-odds as margins, not sums over tokens."""
        return self.kind == "proxy" and self.step is None


@dataclass(frozen=True)
class TooLong:
    """Pairs that were not scored because of their length; tokens: prompt plus longer response."""

    pairs: int
    of: int  # all pairs
    max_length: int | None  # maximum tokens per pair; None: unknown, as below
    longest: int | None  # tokens of the longest pair
    context: int | None  # context of the reference, in tokens


class PairsManifest(OfScore):
    """RUN/pairs."""

    stage: Literal["pairs"] = "pairs"
    form: str  # form of the data
    inputs: tuple[InputFile, ...]
    longest: int | None = None  # tokens of the longest pair, scored or not
    context: int | None = None  # context of the reference, in tokens; None: no limit


class ScoresManifest(OfScore):
    """RUN/scores/<checkpoint>."""

    stage: Literal["scores"] = "scores"
    name: str
    kind: Literal["base", "user", "proxy"]
    order: int  # position among the stages of its kind
    family: str | None = None
    step: int | None = None
    folds: int | None = None
    held_out: bool | None = None
    noise_sd: float | None = None
    layout: str | None = None  # how the tokens were laid out, and why
    computed_by: dict[str, str] = {}  # attention and device
    work: dict[str, int | float] = {}  # sequences and tokens, requested and computed
    ridge: float | None = None  # ridge of a probe

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.name, self.kind, self.family, self.step, self.folds, self.held_out, self.noise_sd)


class RunManifest(Described):
    """RUN: the combined content of the finished stages."""

    stage: Literal["run"] = "run"
    inputs: tuple[InputFile, ...]
    form: str
    max_length: int  # tokens
    longest: int | None = None  # as in the manifest of the pairs
    context: int | None = None
    counts: dict[str, int]
    rejects: dict[str, int]  # number of rejects by reason
    reference: Reference
    checkpoints: tuple[Checkpoint, ...]
    noise_sd: dict[str, float | None]  # noise of scoring, by checkpoint

    @property
    def too_long(self) -> TooLong | None:
        return _too_long(self)


class ShardsManifest(Manifest):
    """SHARDS: the parts are the kept pairs. Fields that the trainer does not need have defaults, so that other programs
    can write shards."""

    stage: Literal["shards"] = "shards"
    dropped: Parts = Parts()
    reference: Reference = Reference()
    checkpoints: tuple[str, ...] = ()  # names, in the order of the columns that have one value per checkpoint
    end: str | None = None  # T, the end of the trajectory: one of the checkpoints
    held_out: bool | None = None  # whether T was held out
    thresholds: dict[str, float | None] = {}
    settings: dict[str, Any] = {}  # settings of the filter
    flipped: int = 0
    action: str = "drop"
    softness: float = 0.0  # of labels in training, which takes 1 - softness (1 - label_confidence) for P(label right)
    noise_sd: dict[str, float | None] = {}
    max_length: int | None = None
    longest: int | None = None
    context: int | None = None

    @property
    def too_long(self) -> TooLong | None:
        return _too_long(self)


def _too_long(manifest: RunManifest | ShardsManifest) -> TooLong | None:
    """The pairs that a run or shard folder lost to length; None if there are none."""
    counts = manifest.counts
    if not counts.get("too_long"):
        return None
    return TooLong(counts["too_long"], counts["pairs"], manifest.max_length, manifest.longest, manifest.context)


class ReferencesManifest(Manifest):
    """OUT/references/<data>: reference log-probs of data that had none."""

    stage: Literal["references"] = "references"
    reference: Reference
    noise_sd: dict[str, float | None]


class TrainManifest(Manifest):
    """OUT: a trained model; the part lists its training pairs."""

    stage: Literal["train"] = "train"
    model: str  # the model before training, as the user named it
    allowed: tuple[str, ...] | None = None  # trust flags without which the model would have been refused


# ---------------------------------------------------------------------------------------------------- reading


def read_manifest(folder: Path, kind: type[M]) -> M | None:
    """The manifest of a complete folder, or None while it is incomplete or was never started."""
    return read_one_of(folder, kind)


def read_one_of(folder: Path, *kinds: type[M]) -> M | None:
    """As `read_manifest`, for a folder of any of these kinds."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = read_json(path)
    known = content.get("schema_version") if isinstance(content, dict) else None
    if known != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {known!r}, this program reads version {SCHEMA_VERSION}; "
            "make the folder again with this version"
        )
    stages = {kind.model_fields["stage"].default: kind for kind in kinds}
    if content.get("stage") not in stages:
        raise UserError(f"{folder}: a {content.get('stage')!r} folder, expected {' or '.join(map(repr, stages))}")
    try:
        return stages[content["stage"]].model_validate(content)
    except ValidationError as e:
        first = e.errors()[0]
        where, why = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {where}: {why}, got {first['input']!r:.80}; make the folder again") from e


def stage_of(folder: Path) -> str | None:
    """The kind of a complete folder, without further checks; None if there is no manifest."""
    path = folder / MANIFEST
    content = read_json(path) if path.is_file() else None
    return content.get("stage") if isinstance(content, dict) else None


def require_manifest(folder: Path, kind: type[M], made_by: str) -> M:
    """The manifest of a complete folder; otherwise a UserError that names the command that makes one."""
    stage = kind.model_fields["stage"].default
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a {stage} folder, made by `{made_by}`")
    actual = stage_of(folder)
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder}: no {MANIFEST}, so it is not a finished {stage} folder; run `{made_by}`")
    if actual != stage:
        raise UserError(f"{folder}: a {actual!r} folder, expected {stage!r}, made by `{made_by}`")
    manifest = read_manifest(folder, kind)
    assert manifest is not None
    return manifest


def check_key(held: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise a UserError naming each field in which a folder's key differs from the settings asked for."""
    differing = [k for k in sorted({*held, *wanted}) if held.get(k) != wanted.get(k)]
    if differing:
        lines = "\n".join(f"  {k}: the folder has {held.get(k)!r}, you asked for {wanted.get(k)!r}" for k in differing)
        raise UserError(
            f"{folder} was made with other settings:\n{lines}\n"
            "Use those settings, another --out, or --overwrite to replace this folder."
        )
