"""What data, runs, shards and decisions of a stranger cannot do: name a path, reach out of a folder, run a formula."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from rmo_curate.audit.command import write_audit
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.export.formats import FORMATS
from rmo_curate.filter.reviews import read_decisions
from rmo_curate.score.stages import _slug
from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.store.files import append_line, check_inside, write_bytes
from rmo_train.store.manifests import PairsManifest, PartFile, read_manifest
from rmo_train.store.tables import JOURNAL, PAIR_SCHEMA, PartWriter
from tests.command_line import curate
from tests.rmo_curate.audit.test_audit import HOSTILE, Page

# Ids that would be a path out of the folder, a device, a command or too long a name, were they made into one.
IDS = ("../../x", "/etc/passwd", "..\\..\\x", "C:\\x", "a\x00b", "CON", "nul.txt", "~", "$(touch ran)", "-rf", "", " ",
       ".", "..", "x" * 5000, "\u202egpj.exe", "a/b", "*.parquet")  # fmt: skip


def pairs(ids) -> str:
    rows = [{"id": one, "prompt": f"question {i}", "chosen": f"yes {i}", "rejected": f"no {i}"}
            for i, one in enumerate(ids)]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_whatever_ids_are_the_files_have_the_same_names(tmp_path, model, monkeypatch):
    made = {}
    for kind, ids in (("plain", [f"p{i}" for i in range(len(IDS))]), ("hostile", IDS)):
        folder = tmp_path / kind / "here"
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        Path("pairs.jsonl").write_text(pairs(ids))
        for command in (
            ("score", "pairs.jsonl", "--model", model, "--out", "run", "--folds", 2),
            ("filter", "run", "--out", "shards", "--rule", "none"),
            ("audit", "run", "--out", "report"),
            ("audit", "pairs.jsonl", "--out", "raw"),
            ("export", "shards", "--to", "llama-factory", "--out", "export"),
            ("inspect", "pairs.jsonl", "--to", "one.jsonl"),
        ):
            assert curate(*command).code == 0, command
        made[kind] = names(tmp_path / kind)
    assert made["hostile"] == made["plain"]


@pytest.mark.parametrize(
    "name", ["../../x", "/", "..", "CON", "x" * 400, "\U0001f600" * 100 + "é" * 100, "a\x00b", "-"]
)
def test_a_checkpoint_gives_its_folder_no_path_and_no_long_name(name):
    slug = _slug(name)
    check_inside(slug)
    assert "/" not in slug and "\x00" not in slug and slug[0] not in "-."
    assert len(f".{slug}-01234567.tmp".encode()) < 256


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/../../x", "C:\\x", "..\\x", "a\x00b", ""])
def test_a_manifest_cannot_name_a_file_outside_of_its_folder(tmp_path, file):
    with pytest.raises(ValueError, match="not the name of a file in its folder"):
        PartFile(file, 1, 1, "0" * 64)
    part = {"file": file, "rows": 1, "bytes": 1, "sha256": "0" * 64}
    manifest = {"schema_version": 2, "stage": "pairs", "versions": {}, "parts": [part], "key": {}, "counts": {},
                "form": "trl", "inputs": []}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="not the name of a file in its folder"):
        read_manifest(tmp_path, PairsManifest)


def test_a_journal_cannot_take_a_file_from_elsewhere(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of x
    entry = {"file": "../secret", "rows": 1, "bytes": 1, "sha256": sha256}
    share = tmp_path / "share"
    share.mkdir()
    (share / JOURNAL).write_text(json.dumps({"key": {}}) + "\n" + json.dumps(entry) + "\n")
    writer = PartWriter(tmp_path / "stage", PairsManifest, {}, PAIR_SCHEMA)
    writer.adopt(share)
    assert writer.finished == {} and (tmp_path / "secret").exists()


def test_a_link_in_a_folder_does_not_lead_a_write_elsewhere(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".manifest.json.tmp").symlink_to(victim)
    (tmp_path / JOURNAL).symlink_to(victim)
    with pytest.raises(ProcessingError, match=r"manifest\.json"):
        write_bytes(tmp_path / "manifest.json", b"{}")
    with pytest.raises(ProcessingError, match="cannot write"):
        append_line(tmp_path / JOURNAL, "{}")
    assert victim.read_text() == "mine"


def test_a_description_of_data_cannot_name_a_file_outside_of_its_folder(tmp_path, working_folder):
    (tmp_path / "secret.jsonl").write_text(pairs(["a"]))
    info = {"d": {"file_name": "../secret.jsonl", "ranking": True}}
    (working_folder / "dataset_info.json").write_text(json.dumps(info))
    assert curate("inspect", working_folder).refused("'d' names the file '../secret.jsonl', which is not in the folder")


def test_names_of_a_stranger_do_nothing_on_the_page(make_run, tmp_path):
    """Columns, their values and checkpoints; texts, ids and sources are in `test_audit`."""
    name = "<script>$x_1$<svg onload=alert(1)>&amp;'\""
    run = make_run(
        {"base": [1.0, 2.0] * 10, f"{name}-1": [0.5, 3.0] * 10, f"oof-{name}-2": [-9.0, 3.0] * 10},
        extra={HOSTILE: [HOSTILE, "b"] * 10, "source": [HOSTILE + "!", HOSTILE] * 10},
    )
    summary = write_audit(run, tmp_path / "audit", AuditSettings())
    elements = Page(summary.page.read_text(encoding="utf-8")).elements
    assert not {tag for tag, _ in elements} & {"img", "iframe", "object", "form", "base"}
    assert [dict(a) for t, a in elements if t == "script"] == [{"type": "application/json", "id": "data"}, {}]
    for tag, attributes in elements:
        assert not [a for a in attributes if a.startswith("on") or a == "style"], (tag, attributes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"schema": "rmo-decisions-1", "decisions": [{"id": "p0", "action": "rm -rf"}]},
            "one of keep, drop, flip",
        ),
        ({"schema": "rmo-decisions-1", "decisions": [{"id": {"$ref": "x"}, "action": "keep"}]}, "has no id"),
        ({"schema": "other", "decisions": []}, "not a decisions file"),
        ([], "not a decisions file"),
    ],
)
def test_a_decisions_file_holds_ids_and_three_words_and_nothing_else(tmp_path, content, said):
    (tmp_path / "decisions.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said):
        read_decisions(tmp_path / "decisions.json")


def test_ids_come_back_from_a_decisions_file_as_they_are(tmp_path):
    ids = [*IDS, "=1+1", "+1", "@x", "\tx", "'x"]
    rows = [{"id": one, "action": "drop"} for one in ids]
    (tmp_path / "d.json").write_text(json.dumps({"schema": "rmo-decisions-1", "decisions": rows}))
    assert list(read_decisions(tmp_path / "d.json")) == ids


def test_a_recipe_is_read_as_values_alone(working_folder):
    Path("rmo.yaml").write_text("score: !!python/object/apply:os.mkdir [ran]\n")
    assert curate("score").refused("rmo.yaml: not valid YAML")
    assert not Path("ran").exists()


def test_no_trainer_is_given_a_file_that_a_spreadsheet_opens():
    """Texts of a stranger may begin with =, + or @: in JSON and Parquet no program computes them."""
    assert {Path(form.data.format(0, 1) if "{" in form.data else form.data).suffix for form in FORMATS.values()} <= {
        ".json",
        ".jsonl",
        ".parquet",
    }


def test_the_documented_way_makes_cells_inert_and_leaves_others():
    """As docs/how-to/python.md has it."""
    inert = pl.col(pl.String).str.replace(r"^([=+\-@\t\r])", "'$1")
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "a=b", "", None]
    shown = pl.DataFrame({"a": cells}).with_columns(inert)["a"].to_list()
    assert shown == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx", "a=b", "", None]
    assert 'replace(r"^([=+\\-@\\t\\r])", "\'$1")' in Path(__file__).parents[2].joinpath(
        "docs/how-to/python.md"
    ).read_text(encoding="utf-8")


def test_nothing_that_a_terminal_obeys_is_printed(working_folder):
    bad = "\x1b]0;owned\x07\x1b[2J\u202e"
    lines = [{bad: 1, "id": f"{bad}{i}", "prompt": bad, "chosen": f"a{i}"} for i in range(3)]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    refused = curate("audit", "a.jsonl", "--out", "report")
    assert refused.refused("\\x1b]0;owned")
    Path("b.jsonl").write_text("".join(json.dumps(line | {"rejected": f"b{i}"}) + "\n" for i, line in enumerate(lines)))
    for outcome in (refused, curate("audit", "b.jsonl", "--out", "report"), curate("inspect", "b.jsonl")):
        assert not set("\x1b\x07\u202e") & set(outcome.out + outcome.err)
