"""The audit of data that no model has scored, as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rmo_curate.audit.checks import KINDS
from rmo_curate.audit.explained import explained
from rmo_curate.audit.overview import REJECTED_RECORDS
from rmo_curate.audit.schema import published
from tests.command_line import Outcome, curate
from tests.rmo_curate.audit.test_audit import embedded_data
from tests.rmo_curate.scored import record, write_jsonl

DOCS = Path(__file__).parents[3] / "docs"


def planted() -> list[dict[str, Any]]:
    """Twenty sound pairs and one of each defect, by name of its id."""
    sound = [record(i, id=f"sound-{i}", source="a" if i % 3 else "b") for i in range(20)]
    good, bad = (
        "Water boils at a hundred degrees Celsius at sea level.",
        "It never boils, whatever anybody may say of it.",
    )
    other = "At sea level it does so at a hundred degrees, and at less than that on a mountain."
    asked = "At what temperature does water boil?"
    defects = {
        "reversed-1": {"prompt": asked, "chosen": good, "rejected": bad},
        "reversed-2": {"prompt": asked, "chosen": bad.upper(), "rejected": good},
        "cycle-1": {"prompt": "Which one is best?", "chosen": good, "rejected": bad},
        "cycle-2": {"prompt": "Which one is best?", "chosen": bad, "rejected": other},
        "cycle-3": {"prompt": "Which one is best?", "chosen": other, "rejected": good},
        "prefix": {"prompt": "And so?", "chosen": good, "rejected": good + " " + other},
        "repetitive": {"prompt": "Go on.", "chosen": "and then again " * 40 + ".", "rejected": bad},
        "encoding": {"prompt": "Is it?", "chosen": "Itâ€™s so.", "rejected": "It is not."},
        "template_marker": {"prompt": "Who?", "chosen": "He.<|im_end|>", "rejected": "She."},
        "other_script": {"prompt": "Say hello.", "chosen": "Привет!", "rejected": "Hello!"},
        "refusal": {
            "prompt": "How are knots tied?",
            "chosen": "I'm sorry, but I can't help with that.",
            "rejected": other,
        },
        "over_long": {"prompt": "Tell me all.", "chosen": "wordy " * 2000 + ".", "rejected": "No."},
    }
    return [*sound, *({"id": name, **pair} for name, pair in defects.items())]


def audit(data: Path, *more: Any) -> tuple[Outcome, dict[str, Any]]:
    outcome = curate("audit", data, "--out", "report", *more)
    path = Path("report/audit.json")
    return outcome, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def test_every_planted_defect_is_found_and_sound_pairs_have_none(working_folder):
    data = write_jsonl(working_folder / "pairs.jsonl", [*planted(), '{"prompt": "x"}', record(3, source="b")])
    outcome, found = audit(data, "--max-length", 1024)
    assert outcome.code == 0, outcome.err
    listed = {s["id"]: set(s["findings"]) for s in found["suspects"]}
    assert not [name for name in listed if name.startswith("sound")]
    assert {name: f for name, f in listed.items() if name.rsplit("-", 1)[0] not in f} == {}
    assert found["counts"]["records"] == 34 and found["counts"]["pairs"] == 32
    assert found["counts"]["rejects_by_reason"] == {"missing_field": 1, "duplicate": 1}
    assert found["findings"]["duplicate"]["count"] == 1
    assert found["findings"]["reversed"]["count"] == 2 and found["findings"]["cycle"]["count"] == 3
    assert found["contradictions"] == 5 and found["flagged"] == len(listed) == found["suspects_found"]
    worst = found["suspects"][0]
    assert worst["points"] == max(s["points"] for s in found["suspects"]) and worst["why"]
    assert found["kind"] == "data" and "there are 32 pairs" in found["not_estimated"]
    lines = [json.loads(line).get("id") for line in data.read_text().splitlines()]
    assert {s["id"]: (s["source_file"], s["source_line"]) for s in found["suspects"]} == {
        s["id"]: (str(data), lines.index(s["id"]) + 1) for s in found["suspects"]
    }
    (at,) = re.findall(r'"id":"prefix","at":"([^"]*)"', Path("report/report.html").read_text())
    assert at == f"{data}:{lines.index('prefix') + 1}"
    assert f"look at {worst['id']} at {worst['source_file']}:{worst['source_line']}: {worst['because']}" in outcome.out
    slices = {(s["column"], s["value"]): s["pairs"] for s in found["slices"]}
    assert slices["source", "a"] == 13 and slices["source", "b"] == 7 and slices["source", "(none)"] == 12


def test_counts_add_up_for_every_finding(working_folder):
    _, found = audit(write_jsonl(working_folder / "pairs.jsonl", planted()))
    for name, finding in found["findings"].items():
        if finding["chosen_only"] is not None:
            assert finding["count"] == finding["chosen_only"] + finding["rejected_only"] + finding["both"], name
        assert finding["count"] == sum(name in s["findings"] for s in found["suspects"]) or finding["of"] == "records"
    by_slice: dict[str, int] = {}
    for row in found["slices"]:
        by_slice[row["column"]] = by_slice.get(row["column"], 0) + row["pairs"]
    assert set(by_slice.values()) == {found["counts"]["pairs"]}
    assert found["curve"]["unit"] == "log-odds"
    assert found["likely_wrong"] is None and found["not_estimated"]  # of so few nothing is told


def test_the_page_holds_what_audit_json_holds(working_folder):
    outcome, found = audit(write_jsonl(working_folder / "pairs.jsonl", planted()))
    page = Path("report/report.html").read_text(encoding="utf-8")
    shown = dict(re.findall(r'data-finding="(\w+)">([\d,]+)<', page))
    assert shown == {name: str(f["count"]) for name, f in found["findings"].items() if f["count"]}
    assert [p["id"] for p in embedded_data(page)["pairs"]] == [s["id"] for s in found["suspects"]]
    assert len(outcome.out.splitlines()) <= 25


def test_overlap_with_held_out_data(working_folder):
    data = write_jsonl(
        working_folder / "pairs.jsonl",
        [record(i, prompt=f"question number {i} of them all, is it so?") for i in range(12)],
    )
    held = write_jsonl(
        working_folder / "held.jsonl",
        [
            record(3, prompt="question number 3 of them all, is it so?"),  # the same pair
            record(99, prompt="Question  number 5 of them all, is it so?"),  # the same prompt
        ],
    )
    outcome, found = audit(data, "--against", held)
    overlap = found["overlap"]
    assert (overlap["same_prompts"], overlap["same_pairs"], overlap["held_out_pairs"]) == (2, 1, 2)
    assert {s["id"] for s in found["suspects"] if "overlap" in s["findings"]} != set()
    assert "not held out" in outcome.out
    assert audit(data)[1]["overlap"] is None


# ---------------------------------------------------------------------------------------------------- in CI


def test_a_gate_that_trips_exits_with_4_and_the_report_is_written(working_folder):
    data = write_jsonl(working_folder / "pairs.jsonl", planted())
    outcome, found = audit(data, "--fail-on", "contradictions>4", "--fail-on", "findings.refusal.count>=2")
    assert outcome.code == 4 and found["contradictions"] == 5
    assert "contradictions is 5" in outcome.err and "refusal" not in outcome.err
    assert audit(data, "--fail-on", "contradictions>5", "--fail-on", "length_bias>0.99")[0].code == 0


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("lenght_bias>0.8", "did you mean 'length_bias'"),
        ("length_bias=0.8", "expected a name, one of > >= < <=, and a number"),
        ("share_against>0.2", "unknown for these data"),
        ("overlap.same_prompts>0", "--against"),
    ],
)
def test_a_gate_that_can_say_nothing_does_not_pass(working_folder, gate, said):
    data = write_jsonl(working_folder / "pairs.jsonl", planted())
    outcome, _ = audit(data, "--fail-on", gate)
    assert outcome.refused(said)
    assert not Path("report/report.html").exists()


def test_the_baseline_tells_what_changed(working_folder):
    data = write_jsonl(working_folder / "pairs.jsonl", planted())
    audit(data)
    old = Path("report/audit.json").rename("old.json")
    same, found = audit(data, "--baseline", old)
    assert same.code == 0 and found["changes"] == [] and "since the baseline" not in same.out
    write_jsonl(data, planted()[:-3])
    outcome, found = audit(data, "--baseline", old)
    changed = {c["name"]: (c["before"], c["after"]) for c in found["changes"]}
    assert changed["counts.pairs"] == (32, 29) and changed["findings.refusal.count"] == (1, 0)
    assert "since the baseline" in outcome.out
    assert "Since the baseline" in Path("report/report.html").read_text()


def test_a_baseline_that_is_none_is_refused_before_any_work(working_folder):
    data = write_jsonl(working_folder / "pairs.jsonl", planted())
    for name, content, said in (
        ("a.json", "{", "not JSON"),
        ("b.json", '{"schema": "x"}', "rmo-audit-1"),
        ("c.json", None, "No such file"),
    ):
        if content is not None:
            Path(name).write_text(content)
        assert audit(data, "--baseline", name)[0].refused(said)
    assert not Path("report").exists()


# ---------------------------------------------------------------------------------------------------- what is refused


def test_what_is_not_data_is_refused(working_folder):
    assert curate("audit", "nowhere.jsonl", "--out", "r").refused("nowhere.jsonl: no such file or folder")
    assert curate("audit", "--out", "r").refused("RUN or DATA")
    data = write_jsonl(working_folder / "pairs.jsonl", planted())
    assert curate("audit", data).refused("--out")
    assert curate("audit", data, "--out", data).refused("is a file; expected a folder")
    mine = working_folder / "mine"
    mine.mkdir()
    (mine / "report.html").write_text("<title>My own report</title>")
    assert curate("audit", data, "--out", mine).refused("was not made by `rmo-curate audit`; give another folder")
    assert (mine / "report.html").read_text() == "<title>My own report</title>"
    assert curate("audit", data, "--out", "r").code == curate("audit", data, "--out", "r").code == 0
    other, before = (
        write_jsonl(working_folder / "other.jsonl", planted()[:40]),
        (working_folder / "r/audit.json").read_bytes(),
    )
    refused = curate("audit", other, "--out", "r")
    assert refused.refused("--out r: has the audit of 'pairs.jsonl' (data without scores), not of 'other.jsonl'")
    assert (working_folder / "r/audit.json").read_bytes() == before
    (working_folder / "r/audit.json").write_text('{"kind": "run", "name": "other.jsonl"}')
    assert curate("audit", other, "--out", "r").refused("has the audit of 'other.jsonl' (a scored run), not of")
    (working_folder / "r/audit.json").write_text("[]")  # what cannot be read is nobody's
    assert curate("audit", other, "--out", "r").code == 0
    (mine / "report.html").unlink()
    assert curate("audit", data, "--out", mine).code == curate("audit", data, "--out", mine).code == 0  # beside others


def test_a_long_pair_is_a_finding_only_where_a_limit_is_given(working_folder):
    data = write_jsonl(working_folder / "pairs.jsonl", planted())
    assert audit(data)[1]["findings"]["over_long"]["count"] == 0
    assert audit(data, "--max-length", 1024)[1]["findings"]["over_long"]["count"] == 1


def test_held_out_data_without_an_overlap_are_said_to_have_none(working_folder):
    data = write_jsonl(working_folder / "pairs.jsonl", planted())
    other = write_jsonl(working_folder / "other.jsonl", [record(100)])
    assert "no prompt is also in other.jsonl, exactly or nearly" in audit(data, "--against", other)[0].out


def test_flags_of_data_are_refused_on_a_run(make_run, working_folder):
    run = make_run({"base": [1.0, 2.0]})
    assert curate("audit", run, "--out", "r", "--limit", 3).refused("--limit is for data")
    assert curate("audit", run, "--out", "r", "--map", "prompt=q").refused("--map is for data")
    data = write_jsonl(working_folder / "pairs.jsonl", planted())
    assert curate("audit", run, data, "--out", "r").refused("is a run folder: audit it alone")


def test_columns_limits_and_lengths_are_taken(working_folder):
    rows = [{"q": f"{i}?", "good": "yes, so it is", "bad": f"no {i}"} for i in range(10)]
    data = write_jsonl(working_folder / "pairs.jsonl", rows)
    outcome, found = audit(
        data, *("--map", "prompt=q", "--map", "chosen=good", "--map", "rejected=bad"), "--limit", 7, "--max-length", 8
    )
    assert outcome.code == 0, outcome.err
    assert found["counts"]["pairs"] == 7 and found["identity"]["max_length"] == 8
    assert found["findings"]["over_long"]["count"] == 0


# ---------------------------------------------------------------------------------------------------- what is promised


def test_the_published_schema_is_the_one_that_audits_follow(working_folder, make_run):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((DOCS / "audit.schema.json").read_text())
    assert schema == json.loads(json.dumps(published())), (
        "run: python -m rmo_curate.audit.schema > docs/audit.schema.json"
    )
    found = [audit(write_jsonl(working_folder / "pairs.jsonl", planted()))[1]]
    run = make_run({"base": [1.0, -2.0, 3.0, 2.0] * 5, "oof-4": [2.0, -4.0, 3.5, -9.0] * 5})
    curate("audit", run, "--out", "of-run")
    found.append(json.loads(Path("of-run/audit.json").read_text()))
    curate("audit", make_run({"base": [1.0, -2.0]}, name="base"), "--out", "of-base")
    found.append(json.loads(Path("of-base/audit.json").read_text()))
    for each in found:
        jsonschema.validate(each, schema, jsonschema.Draft202012Validator)
        assert each["schema"] == "rmo-audit-1" and set(each) == set(schema["properties"])


def test_every_finding_is_explained_and_every_page_is_of_a_finding():
    named = {*KINDS, *REJECTED_RECORDS, "length_bias", "margin_against_the_label"}
    assert {page.stem for page in (DOCS / "findings").glob("*.md")} == named == {e.name for e in explained()}
    titles = {e.name: e.title for e in explained()}
    assert {name: titles[name] for name in KINDS} == {name: kind.title for name, kind in KINDS.items()}
    listed = (DOCS / "audit.md").read_text()
    assert [name for name in named if f"(findings/{name}.md)" not in listed] == []
    for page in (DOCS / "findings").glob("*.md"):
        text = page.read_text()
        assert [
            part for part in ("**What it means.**", "**How it is computed.**", "**What to do.**") if part not in text
        ] == []


def test_many_long_pairs_make_a_page_below_5_mb_that_says_what_it_leaves_out(working_folder):
    import random

    rng = random.Random(0)
    vocabulary = [f"word{i}" for i in range(3000)]
    rows = [
        {
            "prompt": f"{i} " + " ".join(rng.choices(vocabulary, k=60)),
            "chosen": "I'm sorry, but I can't help. " + " ".join(rng.choices(vocabulary, k=300)) + ".",
            "rejected": " ".join(rng.choices(vocabulary, k=300)) + ".",
        }
        for i in range(3580)
    ]
    outcome, found = audit(write_jsonl(working_folder / "pairs.jsonl", rows))
    assert outcome.code == 0 and found["suspects_found"] == 3580
    page = Path("report/report.html")
    assert page.stat().st_size < 5_000_000
    listed = len(embedded_data(page.read_text())["pairs"])
    assert 500 < listed < 3580
    assert f"The worst {listed:,} of 3,580 pairs" in page.read_text()


def test_data_without_a_usable_pair_are_refused_with_their_reasons(working_folder):
    same = [{"prompt": "a", "chosen": "b", "rejected": "b"}] * 3
    outcome, _ = audit(write_jsonl(working_folder / "pairs.jsonl", same))
    assert outcome.refused("not one usable pair in 3 records", "identical_responses")
    assert not Path("report").exists()
