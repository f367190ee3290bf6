"""Write an audit: DIR/report.html (one file, opens offline) and DIR/audit.json.

Both come from one `Report`, so a number on the page is the number in the JSON.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from rmo_curate.audit import baseline, suspects
from rmo_curate.audit.collect import collect_data, collect_run, name_of
from rmo_curate.audit.contents import SCHEMA, Audit
from rmo_curate.audit.gates import GateTripped, TrippedGate, tripped
from rmo_curate.audit.page import render
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.audit.summary import summary_lines
from rmo_curate.audit.texts import read_data
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.read.files import STDIN
from rmo_curate.read.hub import HUB
from rmo_curate.read.memory import InMemory
from rmo_curate.runs.run import open_run
from rmo_curate.score.run_folder import is_run
from rmo_train.console.errors import UserError
from rmo_train.store import files

PAGE, NUMBERS = "report.html", "audit.json"
WHAT = {"run": "a scored run", "data": "data without scores"}
MADE_BY, MADE_BY_WITHIN = "<title>Preference data audit", 8192  # by which a page of ours is told, near its beginning
FRAME = 'style="width: 100%; height: 46rem; border: 0" title="Preference data audit"'


@dataclass(frozen=True)
class AuditSummary:
    """An audit that was written. A notebook shows its page."""

    page: Path
    json: Path
    lines: tuple[str, ...]  # for the terminal
    tripped: tuple[TrippedGate, ...]  # the conditions of --fail-on that are met

    @property
    def numbers(self) -> dict[str, Any]:
        """What audit.json has: every number on the page."""
        numbers: dict[str, Any] = files.read_json(self.json)
        return numbers

    def _repr_html_(self) -> str:
        """The whole page in a frame. What it shows is data, so the frame has no part in the notebook around it."""
        page = html.escape(self.page.read_text(encoding="utf-8"))
        return f'<iframe sandbox="allow-scripts allow-downloads" {FRAME} srcdoc="{page}"></iframe>'

    def check(self) -> None:
        """GateTripped (exit code 4) where a --fail-on trips."""
        if self.tripped:
            raise GateTripped("; ".join(map(str, self.tripped)))


def write_audit(
    run_folder: Path, out: Path, settings: AuditSettings, filter_settings: FilterSettings | None = None
) -> AuditSummary:
    """Audit the scored run in `run_folder`; replaces `out`/report.html and `out`/audit.json.

    Without `filter_settings` the page shows what `filter` does by default, or, on a run that has no proxy, what every
    rule does. With a rule that needs a proxy on such a run: UserError, as from `filter`.
    """
    check_out(out, "run", run_folder.resolve().name)
    before = read_before(settings)
    return write(collect_run(open_run(run_folder), settings, filter_settings), out, settings, before)


def write_data_audit(
    data: Sequence[str | InMemory], out: Path, settings: AuditSettings, *, columns: Mapping[str, str] | None = None
) -> AuditSummary:
    """Audit data that no model has scored: files, folders, `hf:` names or data in memory, as `score` takes them."""
    paths = [path for path in data if isinstance(path, str)]
    if runs := [path for path in paths if is_run(Path(path))]:
        raise UserError(f"{runs[0]} is a run folder: audit it alone, or give data files only")
    if len(paths) == 1 and paths[0] != STDIN and not paths[0].startswith(HUB) and not Path(paths[0]).exists():
        raise UserError(f"{paths[0]}: no such file or folder; give data, or a run folder made by `rmo-curate score`")
    names = tuple(part if isinstance(part, str) else part.name for part in data)
    check_out(out, "data", name_of(names))
    before = read_before(settings)
    read = read_data(data, settings.limit, columns)
    return write(collect_data(read, names, settings), out, settings, before)


def read_before(settings: AuditSettings) -> Mapping[str, Any] | None:
    """The --baseline, read before there is any work, and before a new audit.json can take its place."""
    return None if settings.baseline is None else baseline.read_baseline(settings.baseline, SCHEMA)


def check_out(out: Path, kind: str, name: str) -> None:
    """UserError if an audit of the data called `name` would replace anything but an earlier audit of them."""
    name = suspects.presentable(name)  # as the report has it
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; expected a folder")
    page = out / PAGE
    if page.is_file() and MADE_BY not in page.read_bytes()[:MADE_BY_WITHIN].decode(errors="replace"):
        raise UserError(f"--out {out}: {PAGE} in it was not made by `rmo-curate audit`; give another folder")
    held = audited(out / NUMBERS)
    if held is not None and held != (kind, name):
        raise UserError(
            f"--out {out}: has the audit of {held[1]!r} ({WHAT[held[0]]}), not of {name!r} ({WHAT[kind]}); give "
            f"another folder, or delete {PAGE} and {NUMBERS} in it"
        )


def audited(numbers: Path) -> tuple[str, str] | None:
    """What an earlier audit in the same folder is of: (kind, name); None where there is none that can be read."""
    try:
        held = json.loads(numbers.read_bytes())
    except (OSError, ValueError):
        return None
    kind, name = (held.get("kind"), held.get("name")) if isinstance(held, dict) else (None, None)
    return (kind, name) if kind in WHAT and isinstance(name, str) else None


def write(audit: Audit, out: Path, settings: AuditSettings, before: Mapping[str, Any] | None) -> AuditSummary:
    numbers = as_json(audit.report)
    failed = tripped(settings.fail_on, numbers)
    if before is not None:
        audit = replace(audit, report=replace(audit.report, changes=baseline.changes(before, numbers)))
        numbers = as_json(audit.report)
    page, json_path = out / PAGE, out / NUMBERS
    files.write_bytes(page, render(audit, settings.characters).encode())  # the larger one: a disk fills here first
    files.write_bytes(json_path, json.dumps(numbers, indent=1, ensure_ascii=False).encode())
    return AuditSummary(page, json_path, summary_lines(audit.report, page, json_path), tuple(failed))


def as_json(value: Any) -> Any:
    """Dataclasses as plain JSON values; a number that is not finite becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {suspects.presentable(str(k)): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if isinstance(value, str):
        return suspects.presentable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
