"""The one command to run after another, with its real paths. Its inputs are checked first, so that no proposed command
fails; None if no command is certain to fit."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmo_train.console.errors import UserError
from rmo_train.console.settings import Sections, flag_of
from rmo_train.console.trust import TrustSettings, flags_given
from rmo_train.store.files import read_json
from rmo_train.store.manifests import TrainManifest, read_manifest
from rmo_train.training.settings import TrainCommand

if TYPE_CHECKING:
    from rmo_train.evaluation.winrate.answers import AnswerFile
    from rmo_train.generation.command import GenerationSettings


def after_run(settings: TrainCommand, recipe: Sections) -> str | None:
    """Evaluate the model; if training has done so (--eval-data), evaluate its base, to compare the two."""
    held_out, out = settings.eval_data or recipe.get("eval", {}).get("run"), settings.out
    manifest = trained(str(out))
    if held_out is None or manifest is None or not _is_evaluable(Path(held_out), manifest):
        return None
    if settings.eval_data is None:
        return _command("eval", held_out, "--model", out, "--out", out / "eval_results.json", *flags_given())
    if not _is_there(manifest.model):
        return None
    return _command("eval", held_out, "--model", manifest.model, "--out", out / "base_results.json", *flags_given())


def after_eval(data: Path, model: str, out: Path | None) -> str | None:
    """Compare with another evaluation of the same pairs; if there is none, evaluate the model's base."""
    if out is None:
        return None
    manifest = trained(model)
    if (other := _other_evaluation(out, Path(model))) is not None:
        a, b = (other, out) if manifest is not None else (out, other)
        return _command("compare", a, b)
    if manifest is None or not _is_evaluable(data, manifest) or not _is_there(manifest.model):
        return None
    return _command("eval", data, "--model", manifest.model, "--out", _beside(out), *flags_given())


def after_generate(prompts: Path, model: str, out: Path, to: str, settings: GenerationSettings) -> str | None:
    """Measure win rates against other answers to the same prompts, if programs can check them (a judge's address is not
    known here); if there are no other answers, generate those of the model's base."""
    from rmo_train.evaluation.winrate.answers import read_answers

    manifest, own = trained(model), read_answers(out)
    if (other := _other_answers(own)) is not None:
        a, b = (out, other) if manifest is not None else (other, out)
        return _command("winrate", a, b, "--prompts", prompts) if _is_checkable(own, prompts) else None
    if manifest is None or not _is_there(manifest.model) or _beside(out).exists():
        return None
    flags = [] if to == "auto" else ["--to", to]
    for name in sorted(settings.model_fields_set - TrustSettings.model_fields.keys()):
        flags += [flag_of(name), getattr(settings, name)]
    return _command("generate", prompts, "--model", manifest.model, "--out", _beside(out), *flags, *flags_given())


# ---------------------------------------------------------------------------------------------------- what is there


def trained(model: str) -> TrainManifest | None:
    """The manifest of a model made by `rmo-train run`; None for any other model."""
    try:
        return read_manifest(Path(model).expanduser(), TrainManifest)
    except UserError:  # a folder of another kind
        return None


def _is_there(model: str) -> bool:
    """Whether a model can be loaded without a download."""
    from huggingface_hub import try_to_load_from_cache

    from rmo_train.model.embedded import EMBEDDED

    if model in EMBEDDED or Path(model).expanduser().is_dir():
        return True
    return model.count("/") < 2 and isinstance(try_to_load_from_cache(model, "config.json"), str)


def _is_evaluable(folder: Path, manifest: TrainManifest) -> bool:
    """Whether `folder` has pairs with the log-probs of the model that training started from."""
    from rmo_train.data.pairs import open_pairs

    try:
        data = open_pairs(folder)
    except UserError:
        return False
    return data.has_references and data.reference.weights_sha256 == manifest.key["model"]


def _other_evaluation(out: Path, model: Path) -> Path | None:
    """The newest other evaluation of the same pairs, beside `out` or in the model's folder."""
    pairs = read_json(out)["pairs_sha256"]
    for path in _newest_first([out.parent, model], out):
        try:
            content: Any = read_json(path)
        except UserError:
            continue
        if isinstance(content, dict) and content.get("pairs_sha256") == pairs:
            return path
    return None


def _other_answers(own: AnswerFile) -> Path | None:
    """The newest other answers to the same prompts, in the same form, beside `own`."""
    from rmo_train.evaluation.winrate.answers import pair, read_answers

    for path in _newest_first([own.path.parent], own.path):
        try:
            pair(own, read_answers(path), None)
        except UserError:
            continue
        return path
    return None


def _is_checkable(answers: AnswerFile, prompts: Path) -> bool:
    """Whether the constraints in `prompts` can be checked on this machine."""
    from rmo_train.evaluation.winrate.checkers import Checkers
    from rmo_train.generation.prompts import read_prompts

    if answers.form != "ifeval":
        return False
    try:
        Checkers(read_prompts(prompts))
    except UserError:
        return False
    return True


def _newest_first(folders: Sequence[Path], without: Path) -> list[Path]:
    """The JSON files of `folders`, except `without`, the newest first."""
    files = {p.resolve(): p for folder in folders for p in (*folder.glob("*.json"), *folder.glob("*.jsonl"))}
    files.pop(without.resolve(), None)
    return sorted(files.values(), key=lambda p: p.stat().st_mtime, reverse=True)


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}-base{out.suffix}")


def _command(*words: Any) -> str:
    return shlex.join(["rmo-train", *map(str, words)])
