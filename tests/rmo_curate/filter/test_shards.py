import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from rmo_curate.filter import shards
from rmo_curate.filter.command import FilterSettings, run_filter
from rmo_curate.filter.thresholds import draws
from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.store import files, tables
from tests.manifests import manifest_of, parts_of
from tests.rmo_curate.filter.by_hand import BY_CUT, CUT, D_0, D_T

SETTINGS = FilterSettings(**CUT)
KEPT = ["p0", "p1", "p6", "p7", "p9"]


@pytest.fixture
def run(make_run) -> Path:
    rows = [{"tokens_sha": "the same"} if i in (0, 8) else {} for i in range(len(D_0))]
    extra = {"source": [f"file-{i}" for i in range(len(D_0))]}
    return make_run({"base": D_0, "oof-16": D_T}, rows=rows, too_long=[10], extra=extra)


def snapshot(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def read(out: Path) -> tuple[dict, pa.Table, pa.Table]:
    kept = tables.read_table(out, parts_of(out), tables.PAIR_SCHEMA)
    return manifest_of(out) or {}, kept, tables.read_table(out, parts_of(out, "dropped"), tables.PAIR_SCHEMA)


def test_the_layout_is_the_contract(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS_PER_FILE", 2)
    run_filter(run, tmp_path / "out", SETTINGS)
    assert list(snapshot(tmp_path / "out")) == [
        "README.md",
        "data/train-00000-of-00003.parquet",
        "data/train-00001-of-00003.parquet",
        "data/train-00002-of-00003.parquet",
        "dropped/part-00000.parquet",
        "dropped/part-00001.parquet",
        "dropped/part-00002.parquet",
        "manifest.json",
    ]
    manifest, kept, dropped = read(tmp_path / "out")
    added = [f.name for f in tables.SHARD_COLUMNS]
    assert kept.column_names == [*tables.PAIR_SCHEMA.names, "source", *added]
    assert dropped.column_names == [*kept.column_names, *(f.name for f in tables.DROP_COLUMNS)]
    assert kept["id"].to_pylist() == KEPT
    assert kept.num_rows + dropped.num_rows == manifest["counts"]["pairs"] == len(D_0)


def test_the_columns_hold_the_trajectory(run, tmp_path):
    run_filter(run, tmp_path / "out", SETTINGS)
    manifest, kept, dropped = read(tmp_path / "out")
    assert manifest["checkpoints"] == ["base", "oof-16"]
    first = kept.to_pylist()[0]
    assert first["chosen_logps"] == [-63, -55] and first["rejected_logps"] == [-64, -64] and first["margins"] == [1, 9]
    assert (first["ref_chosen_logps"], first["ref_rejected_logps"]) == (-63, -64)
    assert (first["suspicion"], first["weight"], first["label_confidence"], first["source"]) == (-8, 1, 1, "file-0")
    assert first["prompt"] == [{"role": "user", "content": "question 0?"}]
    by_id = {row["id"]: row for row in dropped.to_pylist()}
    assert {i: row["drop_reason"] for i, row in by_id.items()} == BY_CUT
    # irm's suspicion is D_0 - D_T: 4 of p2, and 2 of p3, the least that went; it weighs no evidence
    nothing = {"rule": "irm", "threshold": 2, "right": None, "reasons": []}
    assert by_id["p2"]["noisy_because"] == by_id["p3"]["noisy_because"] == nothing and by_id["p2"]["suspicion"] == 4
    assert by_id["p4"]["noisy_because"] is None and by_id["p10"]["noisy_because"] is None
    assert by_id["p5"]["keep_probability"] == 0 and by_id["p2"]["keep_probability"] == 1
    for name in ("chosen_logps", "rejected_logps", "margins", "ref_chosen_logps", "suspicion", "keep_probability"):
        assert by_id["p10"][name] is None


def test_the_manifest_says_how_they_were_made(run, tmp_path):
    run_filter(run, tmp_path / "out", SETTINGS)
    manifest = read(tmp_path / "out")[0]
    source = files.read_json(run / "manifest.json")
    assert manifest["reference"] == source["reference"] and manifest["max_length"] == 1024
    assert (manifest["end"], manifest["held_out"]) == ("oof-16", True)
    assert manifest["noise_sd"] == {"base": 0.01, "oof-16": 0.01}
    assert manifest["settings"] == SETTINGS.model_dump(mode="json")
    assert manifest["thresholds"]["tau"] == 2.25
    assert set(manifest["key"]) == {"run", *FilterSettings.model_fields}


def test_draws_are_written_beside_the_pairs_that_they_dropped(run, tmp_path):
    run_filter(run, tmp_path / "out", FilterSettings(low_q=0.5))
    rows = [r for r in read(tmp_path / "out")[2].to_pylist() if r["drop_reason"] == "ambiguous"]
    assert rows
    for row in rows:
        assert row["draw"] == draws(42, pa.array([row["id"]]))[0] < 1 - row["keep_probability"]


def test_load_dataset_gives_the_kept_pairs_and_by_name_the_dropped(run, tmp_path):
    from datasets import load_dataset

    out = tmp_path / "out"
    run_filter(run, out, SETTINGS)
    loaded = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"]["id"][:] == KEPT
    assert loaded["train"][0]["margins"] == [1, 9]
    assert loaded["train"][0]["chosen"] == [{"role": "assistant", "content": "good answer 0"}]
    dropped = load_dataset(str(out), "dropped", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(dropped) == 6 and "drop_reason" in dropped.column_names


def test_the_card_states_the_counts_and_the_command(run, tmp_path):
    run_filter(run, tmp_path / "out", FilterSettings(preset="paper"))
    card = (tmp_path / "out" / "README.md").read_text()
    counts = read(tmp_path / "out")[0]["counts"]
    assert card.startswith("---\ntags:\n- dpo\n- preference\n")
    assert f"| kept | {counts['kept']} |" in card and f"| noisy | {counts['noisy']} |" in card
    assert "`rmo-curate filter RUN --out SHARDS --preset paper --seed 42`" in card
    assert "`oof-16` (held out)" in card and "`train.jsonl`" in card


def test_the_same_command_again_rewrites_nothing(run, tmp_path):
    out = tmp_path / "out"
    run_filter(run, out, SETTINGS)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert run_filter(run, out, SETTINGS) == [
        f"{out}: already done, 5 of 10 scored pairs kept",
        "not scored, over the length limit of 1,024 tokens: 1 of 11 pairs (9%); score with a larger --max-length to "
        "keep them",
    ]
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_other_settings_are_refused_by_name_unless_overwritten(run, tmp_path):
    out = tmp_path / "out"
    run_filter(run, out, SETTINGS)
    before = snapshot(out)
    with pytest.raises(UserError, match=r"high_q: the folder has 0.8, you asked for 0.95[^$]*--overwrite"):
        run_filter(run, out, FilterSettings(low_q=0.25, high_q=0.95, hard=True))
    assert snapshot(out) == before
    run_filter(run, out, FilterSettings(low_q=0.25, high_q=0.95, hard=True), overwrite=True)
    assert snapshot(out) != before
    run_filter(run, out, SETTINGS, overwrite=True)
    assert snapshot(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "run"]


def test_other_scores_are_refused(run, make_run, tmp_path):
    run_filter(run, tmp_path / "out", SETTINGS)
    other = make_run({"base": D_0, "oof-16": D_T[::-1]}, name="other")
    with pytest.raises(UserError, match="run: the folder has"):
        run_filter(other, tmp_path / "out", SETTINGS)


def test_a_checkpoint_outside_the_trajectory_changes_nothing(make_run, tmp_path):
    run_filter(make_run({"base": D_0, "oof-16": D_T}, name="a"), tmp_path / "out", SETTINGS)
    more = make_run({"base": D_0, "oof-16": D_T, "insample-16": D_0}, name="b")
    assert "already done" in run_filter(more, tmp_path / "out", SETTINGS)[0]
    assert "already done" in run_filter(more, tmp_path / "out", SETTINGS.model_copy(update={"end": "oof-16"}))[0]


def test_other_evidence_is_refused_though_the_trajectory_is_the_same(make_run, tmp_path):
    run_filter(make_run({"base": D_0, "oof-16": D_T}, name="a"), tmp_path / "out", SETTINGS)
    more = make_run({"base": D_0, "oof-16": D_T, "oof-lora-16": D_0}, name="b")
    asked = SETTINGS.model_copy(update={"end": "oof-16"})
    with pytest.raises(UserError, match="run: the folder has"):
        run_filter(more, tmp_path / "out", asked)


def test_what_a_killed_run_left_is_cleared_and_the_next_one_finishes(run, tmp_path):
    (tmp_path / ".out.partial" / "data").mkdir(parents=True)
    (tmp_path / ".out.partial" / "data" / "train-00007-of-00009.parquet").write_bytes(b"of a longer run")
    run_filter(run, tmp_path / "out", SETTINGS)
    run_filter(run, tmp_path / "clean", SETTINGS)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "clean")
    assert not (tmp_path / ".out.partial").exists()


def test_an_overwrite_that_fails_keeps_the_old_shards(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_filter(run, out, SETTINGS)
    before = snapshot(out)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "dataset_card", full)
        with pytest.raises(ProcessingError, match="the disk is full"):
            run_filter(run, out, FilterSettings(), overwrite=True)
    assert snapshot(out) == before
    out.rename(tmp_path / ".out.old")  # killed after the old folder was moved away, before the new one took its place
    assert "already done" in run_filter(run, out, SETTINGS)[0]
    assert snapshot(out) == before and not (tmp_path / ".out.old").exists()


def test_shards_with_a_file_gone_are_made_again(run, tmp_path):
    out = tmp_path / "out"
    run_filter(run, out, SETTINGS)
    before = snapshot(out)
    (out / "data" / "train-00000-of-00001.parquet").unlink()
    assert "wrote" in run_filter(run, out, SETTINGS)[-1]
    assert snapshot(out) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_holds_something_else_is_never_replaced(run, tmp_path, overwrite):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for out, kind in (
        (mine, "not made by `rmo-curate filter`"),
        (run, "a 'run' folder"),
        (mine / "thesis.txt", "not made by `rmo-curate filter`"),
    ):
        with pytest.raises(UserError, match=kind):
            run_filter(run, out, SETTINGS, overwrite=overwrite)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_dry_run_says_the_same_and_writes_nothing(run, tmp_path):
    before = snapshot(tmp_path)
    dry = run_filter(run, tmp_path / "out", SETTINGS, dry_run=True)
    assert snapshot(tmp_path) == before and not (tmp_path / "out").exists()
    assert dry[:-1] == run_filter(run, tmp_path / "out", SETTINGS)[:-1]


def test_dropping_every_pair_is_refused(make_run, tmp_path):
    run = make_run({"base": [0.0] * 4, "oof-16": [-1.0, -2.0, -3.0, -4.0]})
    with pytest.raises(UserError, match=r"no pairs are left.*4 noisy.*--high-q"):
        run_filter(run, tmp_path / "out", FilterSettings(rule="irm", low_q=0, high_q=0))
    assert not (tmp_path / "out").exists()


def test_nothing_dropped_still_leaves_a_readable_dropped_folder(make_run, tmp_path):
    run_filter(make_run({"base": [1.0, 2.0]}), tmp_path / "out", FilterSettings(rule="none"))
    manifest, kept, dropped = read(tmp_path / "out")
    assert (kept.num_rows, dropped.num_rows, manifest["end"], manifest["held_out"]) == (2, 0, None, None)
    assert "drop_reason" in dropped.column_names and kept["suspicion"].to_pylist() == [None, None]
