"""What `benchmarks.fuzz` feeds the commands: data files made of broken records, and real files damaged in places.

A strategy of hypothesis each: what it draws is small (places, tokens, values), so a failure shrinks to few changes.
"""

from __future__ import annotations

import bz2
import copy
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.rmo_curate.read.broken import JUNK, places, with_junk
from tests.rmo_curate.read.published_forms import FORMS

ROOT = Path(__file__).parents[1]
REAL = (ROOT.parent / "shared" / "data", ROOT.parent / "shared" / "forms", ROOT / "data" / "demo")
OF_A_REAL_FILE = 30  # records
MOST_RECORDS = 12

# Pieces of bytes that end, open, double or disguise something in one of the kinds of file.
TOKENS = (
    b"\x00", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\xf4\x90\x80\x80", b"\r", b"\n",
    b"\r\n", b"\x0b", b"\x1a", b"\xe2\x80\xa8", b"{", b"}", b"[", b"]", b"]]", b"{}", b"[]", b'"', b'""', b"'", b",",
    b";", b"\t", b"|", b":", b"\\", b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"null", b"true", b"NaN", b"-Infinity",
    b"1e999", b"-0", b"9" * 30, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"PK\x03\x04", b"\x1f\x8b", b"BZh9",
    b"\x28\xb5\x2f\xfd", b"PAR1", b"ARROW1", b"<|im_end|>", b"<|im_start|>system\n", b"<image>", b"[INST]",
    b"\n\nHuman:", b"\n\nAssistant:", b"<extra_id_1>", b"=HYPERLINK(1)", b"</script><script>alert(1)</script>",
    b"<!--", b"{{ 1/0 }}", b"../../x", b"x" * 70_000, b"version https://git-lfs", "\u202e".encode(), "İ".encode(),
)  # fmt: skip

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, 1, mtime=0),
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}
TABLES = (".jsonl", ".jsonl", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
SUFFIXES = tuple(dict.fromkeys((*TABLES, ".ndjson", ".zip", ".jsonl.gz", ".json.xz", ".csv.bz2")))


@dataclass(frozen=True)
class Made:
    """A data file, and what is known of it."""

    name: str
    content: bytes
    records: int | None  # that it holds; None where bytes were damaged, so that nobody knows
    columns: Mapping[str, str]  # the --map that it is read with

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        path.write_bytes(self.content)
        return path

    @property
    def flags(self) -> list[str]:
        return [word for role, name in self.columns.items() for word in ("--map", f"{role}={name}")]


# ---------------------------------------------------------------------------------------------------- damage


@dataclass(frozen=True)
class Change:
    """A change of a file at a place, which is a share of its length."""

    kind: str
    start: float
    end: float
    bit: int
    token: bytes

    def apply(self, content: bytes) -> bytes:
        at, to = sorted((int(self.start * len(content)), int(self.end * len(content))))
        if self.kind == "bit":
            return content[:at] + bytes(b ^ (1 << self.bit) for b in content[at : at + 1]) + content[at + 1 :]
        if self.kind == "token":
            return content[:at] + self.token + content[at:]
        if self.kind == "gone":
            return content[:at] + content[min(to, at + 200) :]
        if self.kind == "doubled":
            return content[:to] + content[at:to] + content[to:]
        if self.kind == "exchanged":
            return content[to:] + content[at:to] + content[:at]
        if self.kind == "zeros":
            end = min(to, at + 64)
            return content[:at] + bytes(end - at) + content[end:]
        return content[:to]


KINDS = ("cut", "bit", "token", "token", "gone", "doubled", "exchanged", "zeros")
PLACES = st.floats(0, 1)
CHANGES = st.lists(
    st.builds(Change, st.sampled_from(KINDS), PLACES, PLACES, st.integers(0, 7), st.sampled_from(TOKENS)),
    min_size=1,
    max_size=4,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with one to four changes: a bit, a piece put in, gone, doubled or cut off, two pieces exchanged."""
    for change in draw(CHANGES):
        content = change.apply(content)
    return content


# ---------------------------------------------------------------------------------------------------- records

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    JUNK | TEXT | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def broken(draw: st.DrawFn, record: Mapping[str, Any]) -> dict[str, Any]:
    """`record` with up to three values exchanged, one key gone or one more."""
    changed = copy.deepcopy(dict(record))
    for _ in range(draw(st.integers(0, 3))):
        if paths := list(places(changed)):
            changed = with_junk(changed, draw(st.sampled_from(paths)), draw(VALUES))
    if changed and draw(st.integers(0, 9)) == 9:
        del changed[draw(st.sampled_from(sorted(changed)))]
    if draw(st.integers(0, 4)) == 4:
        changed[draw(TEXT | st.sampled_from(["id", "tools", "system", "history", "images", "flags", "weight"]))] = draw(
            VALUES
        )
    return changed


def numbered(record: Any, n: int) -> Any:
    """The record with the answers of record `n`: their texts are otherwise the same in all."""
    if isinstance(record, dict):
        return {key: numbered(value, n) for key, value in record.items()}
    if isinstance(record, list):
        return [numbered(value, n) for value in record]
    return f"{record} {n}" if record in ("yes", "no", "Q") else record


@st.composite
def record_lists(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Records of a published form, some of them broken or of another form; the --map of the form."""
    form = draw(st.sampled_from(FORMS))
    records = []
    for n in range(draw(st.integers(1, MOST_RECORDS))):
        other = draw(st.sampled_from(FORMS)) if draw(st.integers(0, 14)) == 14 else form
        record = numbered(other.record, n)
        records.append(draw(broken(record)) if draw(st.integers(0, 2)) == 2 else record)
    return records, dict(form.columns)


# ---------------------------------------------------------------------------------------------------- files


def lines_of(records: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def cells_of(records: Sequence[Mapping[str, Any]], delimiter: str) -> bytes:
    """CSV: what is no text stands as JSON in its cell."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(columns)
    for record in records:
        cells = (record.get(column) for column in columns)
        writer.writerow(["" if c is None else c if isinstance(c, str) else json.dumps(c) for c in cells])
    return out.getvalue().encode("utf-8", "surrogatepass")


def table_of(records: Sequence[Mapping[str, Any]], suffix: str) -> bytes | None:
    """Parquet or Arrow; None for records that no table holds."""
    try:
        table, sink = pa.Table.from_pylist([dict(record) for record in records]), io.BytesIO()
        if not table.num_columns:
            return None
        if suffix == ".parquet":
            pq.write_table(table, sink)
        else:
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        return sink.getvalue()
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def packed(content: bytes, name: str, packing: str) -> tuple[bytes, str]:
    """The file packed, and its name then."""
    if packing != ".zip":
        return PACKERS[packing](content), name + packing
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue(), name + packing


@st.composite
def made_files(draw: st.DrawFn) -> Made:
    """A file of any kind that holds a list of records, packed or not; now and then damaged."""
    records, columns = draw(record_lists())
    suffix, count = draw(st.sampled_from(TABLES)), len(records)
    content = table_of(records, suffix) if suffix in (".parquet", ".arrow") else b""
    if content is None:
        suffix = ".jsonl"
    if suffix == ".jsonl":
        content = lines_of(records)
    elif suffix == ".json":
        content = json.dumps(records).encode()
    elif suffix in (".csv", ".tsv"):
        content = cells_of(records, "," if suffix == ".csv" else "\t")
    assert content is not None
    known: int | None = None if suffix in (".csv", ".tsv") else count  # a row of empty cells is none
    if draw(st.integers(0, 4)) == 4:
        content, known = draw(damaged(content)), None
    return draw(finished(f"data{suffix}", content, known, columns))


@st.composite
def finished(draw: st.DrawFn, name: str, content: bytes, records: int | None, columns: Mapping[str, str]) -> Made:
    """The file as it is given: packed now and then, then damaged now and then, under another suffix now and then."""
    if name.endswith((".jsonl", ".json", ".csv", ".tsv")) and draw(st.integers(0, 4)) == 4:
        content, name = packed(content, name, draw(st.sampled_from([*PACKERS, ".zip"])))
        if draw(st.integers(0, 2)) == 2:
            content, records = draw(damaged(content)), None
    if draw(st.integers(0, 14)) == 14:
        name, records = "data" + draw(st.sampled_from(SUFFIXES)), None
    return Made(name, content, records, columns)


# ---------------------------------------------------------------------------------------------------- real files


@cache
def real_files() -> dict[str, bytes]:
    """The first records of the real files that are there, unpacked, and a record of every published form."""
    found = {f"form-{i}.jsonl": lines_of([numbered(form.record, n) for n in range(3)]) for i, form in enumerate(FORMS)}
    for folder in REAL:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if ".gold." in path.name:  # the judge's own figures
                continue
            if path.suffix == ".gz":
                with gzip.open(path) as packed_lines:
                    found[path.name.removesuffix(".gz")] = b"".join(islice(packed_lines, OF_A_REAL_FILE))
            elif path.suffix in (".jsonl", ".csv", ".tsv"):
                with path.open("rb") as lines:
                    found[path.name] = b"".join(islice(lines, OF_A_REAL_FILE))
            elif path.suffix == ".json":
                value = json.loads(path.read_bytes())
                first = value[:OF_A_REAL_FILE] if isinstance(value, list) else value
                found[path.name] = json.dumps(first, ensure_ascii=False).encode()
    return found


@st.composite
def changed_files(draw: st.DrawFn) -> Made:
    """A real file, or one of a published form, damaged."""
    files = real_files()
    name = draw(st.sampled_from(sorted(files)))
    return draw(finished(f"data{Path(name).suffix}", draw(damaged(files[name])), None, {}))


DATA_FILES = made_files() | changed_files()
