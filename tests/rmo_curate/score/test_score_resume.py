"""The scoring job a second time: after its end, after a kill at any file, after a part was damaged."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.run_folder import run_status
from rmo_train.store import files, manifests, tables
from rmo_train.training import loop
from tests.manifests import manifest_of
from tests.rmo_curate.scored import (
    PARTS,
    PROXY,
    Killed,
    checkpoint_names,
    contents,
    marks,
    score,
)


def test_a_second_call_computes_and_writes_nothing(demo_data, tiny_model_folder, run, nothing_computed):
    before = marks(run)
    score(demo_data, tiny_model_folder, run, proxy=PROXY)
    assert marks(run) == before


def test_the_same_model_and_data_under_other_names_are_the_same(
    demo_data, tiny_model_folder, run, tmp_path, nothing_computed
):
    moved = shutil.copytree(tiny_model_folder, tmp_path / "moved")
    score(shutil.copy(demo_data, tmp_path / "again.jsonl"), moved, run, proxy=PROXY)
    assert checkpoint_names(run) == ["base", "oof-2"]
    assert manifest_of(run)["reference"]["name"] == str(moved)


WRITES = {  # kind of file -> how many of them are written before the kill
    "pairs": ("pairs/part", 3),
    "pairs manifest": ("pairs/manifest", 0),
    "run manifest": ("run/manifest", 0),
    "base, first part": ("base/part", 0),
    "base, third part": ("base/part", 2),
    "base manifest": ("base/manifest", 0),
    "split": ("oof/split", 0),
    "first proxy": ("fold-0/step-2/trained", 0),
    "second proxy": ("fold-1/step-2/trained", 0),
    "proxy scores of the second fold": ("oof-2/part", 3),
    "proxy scores, manifest": ("oof-2/manifest", 0),
}


KILLS = [(at, False) for at in WRITES]
KILLS += [(at, True) for at in ("pairs", "base, third part", "second proxy", "proxy scores of the second fold")]


@pytest.mark.parametrize(("at", "renamed"), KILLS, ids=[f"{'after' if r else 'before'} {at}" for at, r in KILLS])
def test_a_killed_run_goes_on_to_the_same_bytes(
    demo_data, tiny_model_folder, full_run, tmp_path, monkeypatch, at, renamed
):
    pattern, allowed = WRITES[at]
    run = tmp_path / "full"
    write, seen = files.write_bytes, []

    def killed(path, content):
        if re.search(re.escape(pattern), path.as_posix().replace("/full/manifest", "/run/manifest")):
            seen.append(path)
            if len(seen) > allowed:
                if renamed:
                    write(path, content)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.with_name(f".{path.name}.tmp").write_bytes(content[: len(content) // 2])
                raise Killed
        write(path, content)

    with monkeypatch.context() as patch:
        for module in ("rmo_train.store.files", "rmo_train.training.record"):
            patch.setattr(f"{module}.write_bytes", killed)
        with pytest.raises(Killed):
            score(demo_data, tiny_model_folder, run, proxy=PROXY)
    journals = [files.read_json(m)["parts"] for m in run.rglob("manifest.json") if m.parent != run]
    finished = {p["file"] for parts in journals for p in parts}
    survivors = {f: m for f, m in marks(run, PARTS).items() if _recorded(run / f)}
    assert finished or survivors or at in ("pairs manifest", "pairs")
    score(demo_data, tiny_model_folder, run, proxy=PROXY)
    assert {f: m for f, m in marks(run, PARTS).items() if f in survivors} == survivors
    assert _without_leftovers(contents(run)) == contents(full_run)


def _recorded(part: Path) -> bool:
    """Whether a part was recorded as finished, in a manifest or a journal."""
    records = [part.parent / name for name in (manifests.MANIFEST, tables.JOURNAL)]
    return any(part.name in r.read_text() for r in records if r.is_file())


def _without_leftovers(found: dict[str, bytes]) -> dict[str, bytes]:
    """Half-written temporary files of the kill stay behind under names that no reader takes for data."""
    return {name: content for name, content in found.items() if not Path(name).name.startswith(".")}


def test_training_killed_between_two_steps_that_are_kept(demo_data, tiny_model_folder, tmp_path, monkeypatch):
    proxy = PROXY.model_copy(update={"steps": (1,)})
    score(demo_data, tiny_model_folder, tmp_path / "whole", proxy=proxy)
    save, saved = loop.save_model, []

    def killed(model, tokenizer, out, **more):
        saved.append(out)
        if len(saved) == 4:  # of fold 1, after the first step's model
            raise Killed
        save(model, tokenizer, out, **more)

    with monkeypatch.context() as patch:
        patch.setattr("rmo_train.training.loop.save_model", killed)
        with pytest.raises(Killed):
            score(demo_data, tiny_model_folder, tmp_path / "run", proxy=proxy)
    fold = marks(tmp_path / "run/proxies/oof/fold-0")
    assert any("proxies/oof: not finished (2 of 4 models)" in line for line in run_status(tmp_path / "run"))
    score(demo_data, tiny_model_folder, tmp_path / "run", proxy=proxy)
    assert marks(tmp_path / "run/proxies/oof/fold-0") == fold
    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "run") == whole and "scores/oof-1/manifest.json" in whole


@pytest.mark.parametrize("stage", ["pairs", "rejects", "scores/base", "scores/oof-2"])
@pytest.mark.parametrize("damage", ["truncated", "zeros", "gone"])
def test_a_damaged_part_is_said_and_made_again(demo_data, tiny_model_folder, run, full_run, capsys, stage, damage):
    part = sorted((run / stage).glob(PARTS))[-1]
    others = {f: m for f, m in marks(run, PARTS).items() if f != part.relative_to(run).as_posix()}
    good = part.read_bytes()
    if damage == "gone":
        part.unlink()
    else:
        part.write_bytes(good[: len(good) // 2] if damage == "truncated" else bytes(len(good)))
    score(demo_data, tiny_model_folder, run, proxy=PROXY)
    assert f"{stage}: {part.name} was damaged" in capsys.readouterr().err
    assert contents(run) == contents(full_run)
    assert {f: m for f, m in marks(run, PARTS).items() if f in others} == others


def test_a_part_damaged_after_a_kill_is_said_and_made_again(
    demo_data, tiny_model_folder, full_run, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    engine_score, calls = TransformersEngine.score, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 4:
            raise Killed
        return engine_score(*args)

    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "score", killed)
        with pytest.raises(Killed):
            score(demo_data, tiny_model_folder, run, proxy=PROXY)
    assert not (run / "scores/base/manifest.json").exists()
    first = run / "scores/base/part-00000.parquet"
    first.write_bytes(bytes(first.stat().st_size))
    calls.clear()
    score(demo_data, tiny_model_folder, run, proxy=PROXY)
    assert "scores/base: part-00000.parquet was damaged and will be scored again" in capsys.readouterr().err
    assert contents(run) == contents(full_run)
