"""What must hold of any input, by area: the properties that `benchmarks.fuzz` looks for counterexamples to.

Each takes an empty folder and a case, raises where a promise is broken (an AssertionError, or the traceback that a user
would have seen), and returns what it went through.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq

from benchmarks.fuzz_files import Made
from benchmarks.fuzz_runs import Damage, FilterCase
from rmo_curate.audit.schema import published
from rmo_curate.export.formats import Trainer
from rmo_curate.read.files import read
from rmo_curate.read.sources import Pair, Reject, Source, open_source
from rmo_curate.score.conversion import write_pairs_as_lines
from rmo_curate.score.pairs_stage import write_pairs
from rmo_train.console.errors import UserError
from rmo_train.data.rendering import Renderer
from rmo_train.store.files import read_json
from rmo_train.store.manifests import MANIFEST, PairsManifest, ShardsManifest, read_manifest
from rmo_train.store.tables import PAIR_SCHEMA, REJECT_SCHEMA, read_table
from tests.command_line import Outcome, curate
from tests.rmo_curate.made_run import write_run
from tests.tiny import make_tokenizer

SAID, DONE = 2, 0
SCRIPTS = 2  # of the audit's page: its data and its own program


@dataclass(frozen=True)
class Tally:
    """What one case went through."""

    files: int = 1
    records: int = 0  # read + rejected
    pairs: int = 0
    refused: int = 0  # files or settings that are an error with a way out


def opened(path: Path, made: Made) -> Source | None:
    """The source of the file; None where it is refused, which must be said with the file's name."""
    try:
        return open_source([str(path)], columns=made.columns)
    except UserError as e:
        assert any(place in str(e) for place in (path.name, "column", "the texts of", "usable pair")), f"where is {e}?"
        return None


def content(pair: Pair) -> tuple[Any, ...]:
    """What makes two pairs the same."""
    return pair.id, pair.prompt, pair.chosen, pair.rejected, pair.tools, pair.chat_template_kwargs


# ---------------------------------------------------------------------------------------------------- reading


def reading(folder: Path, made: Made) -> Tally:
    """Every record is a pair or a reject, twice the same; in one form they read back as the same pairs."""
    path = made.write(folder)
    if (source := opened(path, made)) is None:
        return Tally(refused=1)
    outcomes = list(source.records())
    assert repr(outcomes) == repr(list(source.records())), "a second reading gives other records"
    lines = [record.line for _, record in read(source.files, None)]
    assert {outcome.line for outcome in outcomes} == set(lines), "a record is neither a pair nor a reject"
    assert len(lines) == source.input_records
    if made.records is not None:
        assert len(lines) == made.records, f"{made.records} records went in, {len(lines)} came out"
    pairs = [outcome for outcome in outcomes if isinstance(outcome, Pair)]
    rejects = Counter(outcome.reason.value for outcome in outcomes if isinstance(outcome, Reject))
    assert source.counts == {"pairs": len(pairs), **rejects}
    assert len({pair.id for pair in pairs}) == len(pairs), "an id stands twice"
    for outcome in outcomes:
        (outcome.raw if isinstance(outcome, Reject) else outcome.id).encode()  # fits into a table
    converted(source, folder / "out.jsonl", pairs, sum(rejects.values()))
    return Tally(records=len(lines), pairs=len(pairs))


def converted(source: Source, out: Path, pairs: list[Pair], rejects: int) -> None:
    """`inspect --to`: the same pairs with the same ids, each reject beside them."""
    write_pairs_as_lines(source, out)
    again = list(open_source([str(out)]).records())
    assert [content(p) for p in again if isinstance(p, Pair)] == [content(p) for p in pairs], "another pair comes back"
    assert len(again) == len(pairs), "a pair comes back as a reject"
    beside = out.with_name("out.rejects.jsonl")
    assert rejects == (len(beside.read_bytes().splitlines()) if beside.exists() else 0)


# ---------------------------------------------------------------------------------------------------- rendering


@cache
def renderer() -> Renderer:
    return Renderer(make_tokenizer())


def rendering(folder: Path, made: Made) -> Tally:
    """RUN/pairs and RUN/rejects hold every record; the tokens say what the messages say."""
    path = made.write(folder)
    if (source := opened(path, made)) is None:
        return Tally(refused=1)
    run, tokenizer = folder / "run", renderer().tokenizer
    made_of = write_pairs(source, renderer(), run, {}, part_size=5, max_length=200, context=2048)
    rows = read_table(run / "pairs", made_of, PAIR_SCHEMA).to_pylist()
    refused = read_table(run / "rejects", _manifest_of(run / "rejects"), REJECT_SCHEMA).to_pylist()
    outcomes = list(source.records())
    assert len(rows) + len(refused) == len(outcomes) == made_of.counts["records"]
    of = {outcome.id: outcome for outcome in outcomes if isinstance(outcome, Pair)}
    for row in rows:
        pair = of[row["id"]]
        assert [row["prompt"], row["chosen"], row["rejected"]] == [
            [dict(m) for m in side] for side in (pair.prompt, pair.chosen, pair.rejected)
        ]
        for side in ("chosen", "rejected"):
            text = tokenizer.decode(row["prompt_ids"] + row[f"{side}_ids"], clean_up_tokenization_spaces=False)
            said = row[side][-1]["content"]
            assert said in text or "<|" in said, f"{side} is not what its tokens say"
    return Tally(records=len(outcomes), pairs=len(rows))


def _manifest_of(folder: Path) -> Any:
    from rmo_curate.runs.manifests import RejectsManifest

    return read_manifest(folder, RejectsManifest)


# ---------------------------------------------------------------------------------------------------- audits


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.found: Counter[str] = Counter()
        self.handlers: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def ended(outcome: Outcome) -> bool:
    """Whether a command did its work; else it must have been refused with one error and no traceback."""
    assert outcome.code in (DONE, SAID), outcome
    if outcome.code == SAID:
        outcome.refused()
    return outcome.code == DONE


def auditing(folder: Path, made: Made) -> Tally:
    """`inspect` and `audit` end with 0 or 2; the page runs no script of the data; audit.json is as published."""
    path = made.write(folder)
    looked = ended(curate("inspect", path, *made.flags))
    audited = ended(curate("audit", path, *made.flags, "--out", folder / "audit"))
    assert looked == audited, "inspect and audit do not agree on whether the file can be read"
    if not audited:
        assert not (folder / "audit").exists()
        return Tally(refused=1)
    counts = check_audit(folder / "audit")
    return Tally(records=counts["records"], pairs=counts["pairs"])


@cache
def schema() -> Mapping[str, Any]:
    return published()


def check_audit(out: Path) -> Mapping[str, int]:
    """The page and audit.json of an audit; returns its counts."""
    numbers = json.loads((out / "audit.json").read_text(encoding="utf-8"), parse_constant=_no_such_number)
    jsonschema.validate(numbers, schema(), jsonschema.Draft202012Validator)
    counts = numbers["counts"]
    assert counts["records"] == counts["pairs"] + counts["rejects"]
    assert counts["rejects"] == sum(counts["rejects_by_reason"].values())
    assert counts["kept"] + sum(counts["dropped"].values()) == counts["pairs"]
    tags = Tags((out / "report.html").read_text(encoding="utf-8"))
    assert tags.found["script"] == SCRIPTS and not tags.handlers, "the data brought a script into the page"
    assert tags.found["html"] == tags.found["body"] == 1
    return counts  # type: ignore[no-any-return]


def _no_such_number(name: str) -> None:
    raise AssertionError(f"audit.json has {name}, which is no JSON")


# ---------------------------------------------------------------------------------------------------- filter


def filtering(folder: Path, case: FilterCase) -> Tally:
    """Every pair is kept or dropped, once; decisions are followed; exports and the audit account for all of them."""
    run = write_run(folder / "run", **case.run)
    ids = [row["id"] for row in case.run["rows"]]
    flags = case.flags(folder)
    made = curate("filter", run, "--out", folder / "shards", *flags)
    if not ended(made):
        assert not (folder / "shards").exists()
        return Tally(refused=1)
    kept, dropped = shard_ids(folder / "shards")
    assert sorted(kept + dropped) == sorted(ids), "a pair is lost, or is there twice"
    for name, action in case.followed(ids).items():
        assert (name in dropped) == (action == "drop"), f"{name} was to be {action}"
    before = {p.name: p.read_bytes() for p in (folder / "shards").rglob("*") if p.is_file()}
    assert ended(curate("filter", run, "--out", folder / "again", *flags))
    assert {p.name: p.read_bytes() for p in (folder / "again").rglob("*") if p.is_file()} == before
    if kept:
        exported(folder, case.to, len(kept))
    if case.audited and ended(curate("audit", run, "--out", folder / "audit")):
        assert check_audit(folder / "audit")["pairs"] == len(ids)
    return Tally(records=len(ids), pairs=len(ids))


def shard_ids(shards: Path) -> tuple[list[str], list[str]]:
    """The ids of kept and of dropped pairs."""
    manifest = read_manifest(shards, ShardsManifest)
    assert manifest is not None
    kept, dropped = (
        [i for part in parts for i in pq.read_table(shards / part.file, columns=["id"])["id"].to_pylist()]
        for parts in (manifest.parts, manifest.dropped.parts)
    )
    assert manifest.counts["kept"] == len(kept) and manifest.counts["pairs"] == len(kept) + len(dropped)
    return kept, dropped


def exported(folder: Path, to: Trainer, kept: int) -> None:
    """An export writes or lists every kept pair."""
    out = folder / "export"
    if not ended(curate("export", folder / "shards", "--to", to, "--out", out)):
        return
    counts = read_json(out / MANIFEST)["counts"]
    listed = out / "omitted.jsonl"
    omitted = len(listed.read_bytes().splitlines()) if listed.exists() else 0
    assert counts == {"kept": kept, "written": kept - omitted, "omitted": omitted}


# ---------------------------------------------------------------------------------------------------- damage


def damage(folder: Path, case: Damage) -> Tally:
    """A file of a run or shard folder is damaged: what reads the folder says so, or gives what it gave before."""
    run = write_run(folder / "run", **case.run)
    shards = folder / "shards"
    made = curate("filter", run, "--out", shards, "--rule", "irm", "--high-q", "0.5")
    assert made.code == DONE, made
    whole = dict(_readers(folder, "whole", case))
    place = {"run": run, "shards": shards}[case.of]
    hit = case.apply(place)
    after = dict(_readers(folder, "hit", case))
    for name, outcome in after.items():
        if ended(outcome) and hit.suffix == ".parquet":
            assert _results(folder / f"hit-{name}") == _results(folder / f"whole-{name}"), f"{name} used damaged {hit}"
    assert whole.keys() == after.keys()
    return Tally(records=len(case.run["rows"]), pairs=len(case.run["rows"]))


def _readers(folder: Path, name: str, case: Damage) -> Iterator[tuple[str, Outcome]]:
    """Every command that reads the folders, into folders named after it."""
    run, shards = folder / "run", folder / "shards"
    settings = ("--rule", "irm", "--high-q", "0.5")
    yield "filter", curate("filter", run, "--out", folder / f"{name}-filter", *settings)
    yield "export", curate("export", shards, "--to", "trl", "--out", folder / f"{name}-export")
    yield "status", curate("status", run)
    if case.audited:
        yield "audit", curate("audit", run, "--out", folder / f"{name}-audit", "--worst", 3)


def _results(out: Path) -> dict[str, bytes]:
    """The tables that a command made."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*.parquet"))}


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


__all__ = ["PairsManifest", "Tally", "auditing", "damage", "emptied", "filtering", "reading", "rendering"]
