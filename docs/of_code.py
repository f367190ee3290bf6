"""Generated parts on what is on disk and in registries: table schemas, manifests, audit.json, forms, rules, losses."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from of_settings import cell

from rmo_curate.audit.gates import GateTripped
from rmo_curate.evidence.rules import RULES
from rmo_curate.filter.settings import PRESETS
from rmo_curate.read.form_detection import json_columns_of, parsed
from rmo_curate.read.forms import FORMS, fields_of, recognise
from rmo_curate.read.messages import RejectReason
from rmo_curate.runs import manifests as of_curation
from rmo_curate.score.inspection import MEANING
from rmo_curate.score.states import STATE_SCHEMA
from rmo_train.console.errors import ProcessingError, RmoError, Stopped, UserError
from rmo_train.objective.losses import LOSSES
from rmo_train.store import manifests
from rmo_train.store.tables import (
    DROP_COLUMNS,
    PAIR_SCHEMA,
    REJECT_SCHEMA,
    SCORE_SCHEMA,
    SHARD_COLUMNS,
    SPLIT_SCHEMA,
    TOO_LONG,
)
from tests.rmo_curate.read.published_forms import FORMS as PUBLISHED
from tests.rmo_curate.read.published_forms import Published

SCHEMA = Path(__file__).parent / "audit.schema.json"

# What a column of a table is; a column that is not here fails the check.
COLUMNS = {
    "id": "the pair's id; rows of all tables are joined by it, never by position",
    "prompt": "messages before the two responses",
    "chosen": "messages of the preferred response",
    "rejected": "messages of the other response",
    "tools": "function schemas as JSON, keys in the order of the data, or null",
    "chat_template_kwargs": "arguments of the chat template as JSON, keys in the order of the data, or null",
    "prompt_ids": "token ids of the prompt",
    "chosen_ids": "token ids of the chosen response, the end-of-turn token included",
    "rejected_ids": "the same for the rejected response",
    "tokens_sha": "sha256 of the three lists of token ids",
    "chosen_tokens": "length of `chosen_ids`",
    "rejected_tokens": "length of `rejected_ids`",
    "flags": "[flags](data.md#flags-of-pairs) of the pair",
    "source": "file that the record was read from",
    "source_file": "the file that the pair is from, as you named it",
    "source_line": "line (JSON lines) or number of the record in that file, from 1",
    "line": "line or record number in that file, from 1",
    "reason": "[reason](data.md#reasons-of-rejects) of the reject",
    "detail": "what was found, in words",
    "raw": "the record's text",
    "chosen_logp": "log-prob of the chosen response, nats, summed over its tokens",
    "rejected_logp": "the same for the rejected response",
    "fold": "fold of prompts that the pair is in; -1 if there are none",
    "held_out": "whether the model that scored the pair never saw its prompt; null = unknown",
    "difference": "hidden states, chosen minus rejected: what probes are fitted on",
    "group": "hash of prompt and tools; pairs of one group are never on both sides of a split",
    "chosen_logps": "`chosen_logp` under each checkpoint of the trajectory, nats",
    "rejected_logps": "the same for the rejected response",
    "margins": "`chosen_logps` minus `rejected_logps`, nats",
    "ref_chosen_logps": "`chosen_logp` under the reference, nats",
    "ref_rejected_logps": "the same for the rejected response",
    "suspicion": "suspicion by the filter's rule; higher = more likely a wrong label",
    "weight": "weight of the pair's loss in training; 1 unless `--action weight`",
    "label_confidence": "P(the label is right) given all evidence; 1 if none was used or a reviewer decided",
    "drop_reason": "`too_long`, `duplicate`, `noisy`, `ambiguous` or `decision`",
    "keep_probability": "probability with which the soft cut keeps the pair",
    "noisy_because": "for noisy pairs: rule, lowest suspicion dropped, P(label right), the log-odds that add up to it",
    "draw": "number in [0, 1) that was drawn for it",
}
TABLES: dict[str, Iterable[pa.Field]] = {
    "pairs": PAIR_SCHEMA,
    "rejects": REJECT_SCHEMA,
    "scores": SCORE_SCHEMA,
    "states": STATE_SCHEMA,
    "split": SPLIT_SCHEMA,
    "shards": SHARD_COLUMNS,
    "dropped": DROP_COLUMNS,
}


def row(*cells: str) -> str:
    return "| " + " | ".join(map(cell, cells)) + " |"


def columns(name: str) -> Iterator[str]:
    """Columns of a table: name, Arrow type, meaning."""
    yield from ("| column | type | meaning |", "|---|---|---|")
    for field in TABLES[name]:
        kind = re.sub(r"(element|item): ", "", str(field.type))
        yield row(f"`{field.name}`", f"`{kind}`", COLUMNS[field.name])


def said_of(cls: type) -> str:
    """The docstring of a class as Markdown."""
    return re.sub(r"\bNone\b", "null", inspect.getdoc(cls) or "").replace("<", "&lt;")


def commented(cls: type) -> dict[str, str]:
    """The comment beside each field of a class, in its source."""
    lines = inspect.getsource(cls).splitlines()
    found = {}
    for node in ast.walk(ast.parse(textwrap.dedent("\n".join(lines)))):
        if isinstance(node, ast.AnnAssign | ast.Assign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            _, mark, comment = lines[node.end_lineno - 1].partition("  # ")
            if isinstance(target, ast.Name) and mark:
                found[target.id] = re.sub(r"\bNone\b", "null", comment)
    return found


def type_name(annotation: Any) -> str:
    """A type as its annotation has it, without the modules."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(json.dumps(value) for value in arguments)
    if not arguments:
        return "null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))
    inside = [type_name(a) for a in arguments if a is not Ellipsis]
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return f"list of {inside[0]}"
    if origin is dict:
        return f"object of {inside[1]}"
    return " or ".join(inside)


def manifest_page() -> Iterator[str]:
    """The fields of every kind of manifest, those of its bases included."""
    kinds = [
        manifests.RunManifest,
        manifests.PairsManifest,
        of_curation.RejectsManifest,
        manifests.ScoresManifest,
        of_curation.StatesManifest,
        of_curation.ProbeManifest,
        of_curation.TrainedManifest,
        manifests.ShardsManifest,
        manifests.ReferencesManifest,
        manifests.TrainManifest,
        of_curation.ExportManifest,
    ]
    for kind in kinds:
        notes: dict[str, str] = {}
        for base in reversed(kind.__mro__):
            if base.__module__.startswith("rmo"):
                notes |= commented(base)
        yield from (f"### {kind.__name__}", "", said_of(kind), "")
        yield from ("| field | type | meaning |", "|---|---|---|")
        for name, field in kind.model_fields.items():
            yield row(f"`{name}`", type_name(field.annotation), notes.get(name, ""))
        yield ""
    for part in (manifests.PartFile, manifests.InputFile, manifests.Reference, manifests.Checkpoint):
        notes = commented(part)
        yield from (f"### {part.__name__}", "", said_of(part), "")
        yield from ("| field | type | meaning |", "|---|---|---|")
        for name, annotation in typing.get_type_hints(part).items():
            if typing.get_origin(annotation) is not typing.ClassVar and name != "model_config":
                yield row(f"`{name}`", type_name(annotation), notes.get(name, ""))
        yield ""


# ---------------------------------------------------------------------------------------------------- audit.json


def schema_type(schema: Mapping[str, Any]) -> str:
    """The type of a JSON Schema node, with a link to the object that it names."""
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return json.dumps(schema["const"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(part for one in schema["anyOf"] for part in schema_type(one).split(" or ")))
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {schema_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(inside := schema.get("additionalProperties"), dict):
        return f"object of {schema_type(inside)}"
    return str(kind)


def classes(cls: type) -> dict[str, type]:
    """A dataclass and those that its fields hold, by name."""
    found = {cls.__name__: cls}
    waiting = list(typing.get_type_hints(cls).values())
    while waiting:
        hint = waiting.pop()
        waiting += typing.get_args(hint)
        if is_dataclass(hint) and hint.__name__ not in found:
            found[hint.__name__] = hint
            waiting += typing.get_type_hints(hint).values()
    return found


def audit_schema() -> Iterator[str]:
    """audit.json: its fields, then each kind of object in it."""
    from rmo_curate.audit.contents import Report

    schema, known = json.loads(SCHEMA.read_text(encoding="utf-8")), classes(Report)
    for name, of in (("Report", schema), *schema["$defs"].items()):
        notes = commented(known[name]) if name in known else {}
        yield from (f"### {name}", "", of.get("description", "").replace("<", "&lt;"), "")
        yield from ("| field | type | meaning |", "|---|---|---|")
        for field, kind in of.get("properties", {}).items():
            yield row(f"`{field}`", schema_type(kind), notes.get(field, ""))
        yield ""


# ---------------------------------------------------------------------------------------------------- data


def forms() -> Iterator[str]:
    yield from ("| form | columns | optional columns | a record of it |", "|---|---|---|---|")
    for form in FORMS.values():
        needs, also = (", ".join(f"`{c}`" for c in columns) for columns in (form.needs, form.also))
        yield row(f"`{form.name}`", needs, also, form.looks)


def published() -> Iterator[str]:
    """How the forms that data are published in are read; a test has a record of each."""
    how = {form.whose: how_read(form) for form in PUBLISHED}
    plain = sum(said.startswith("`") for said in how.values())
    mapped = sum(bool(form.columns) for form in PUBLISHED)
    yield (
        f"Of {len(how)} published forms, {plain} are read as they stand, {mapped} with the `--map` that the error "
        f"prints, and {len(how) - plain - mapped} hold no pairs of texts and are refused with the reason."
    )
    yield from ("", "| published as | read as |", "|---|---|")
    for whose, said in how.items():
        yield row(whose, said)


def how_read(form: Published) -> str:
    if form.means is None:
        return f"refused: {form.why}"
    record = parsed(form.record, json_columns_of(form.whose, [form.record], form.columns))
    shown = recognise(fields_of(record, form.columns))
    if form.columns:
        return "with " + ", ".join(f"`--map {role}={column}`" for role, column in form.columns.items())
    assert shown is not None
    return f"`{shown.name}`"


def of_enum(cls: type[StrEnum], head: str) -> Iterator[str]:
    """The members of an enumeration, with the comment beside each."""
    notes = commented(cls)
    yield from (f"| {head} | meaning |", "|---|---|")
    for member in cls:
        yield row(f"`{member.value}`", notes[member.name])


def flags() -> Iterator[str]:
    yield from ("| flag | meaning |", "|---|---|")
    yield row(f"`{TOO_LONG}`", "prompt + longer response has more than `--max-length` tokens; it is not scored")
    for name, meaning in MEANING.items():
        yield row(f"`{name}`", meaning)


# ---------------------------------------------------------------------------------------------------- registries


def rules() -> Iterator[str]:
    yield from ("| rule | suspicion `s` | needs a proxy |", "|---|---|---|")
    for rule in RULES.values():
        said = inspect.getdoc(rule.fit(None)) or ""  # no rule there is fits anything to the pairs first
        yield row(f"`{rule.name}`", said.replace(" Needs no proxy.", ""), "yes" if rule.needs_proxy else "no")


def presets() -> Iterator[str]:
    names = list(next(iter(PRESETS.values())))
    yield "| preset | " + " | ".join(f"`{name}`" for name in names) + " |"
    yield "|---" * (1 + len(names)) + "|"
    for preset, of in PRESETS.items():
        yield row(f"`{preset}`", *(str(of[name]).lower() for name in names))


def losses() -> Iterator[str]:
    yield from ("| loss | equation | default beta | reads the reference | source |", "|---|---|---|---|---|")
    for loss in LOSSES.values():
        reads = "yes" if loss.needs_reference else "no"
        yield row(f"`{loss.name}`", f"`{loss.equation}`", f"{loss.default_beta:g}", reads, loss.source)


def exit_codes() -> Iterator[str]:
    yield from ("| code | meaning |", "|---|---|")
    yield row("0", "Done. Rejected records are a normal result.")
    yield row("1", "A defect of this program, with its traceback.")
    errors: tuple[type[RmoError], ...] = (UserError, ProcessingError, GateTripped, Stopped)
    for error in sorted(errors, key=lambda e: e.exit_code):
        yield row(str(error.exit_code), inspect.getdoc(error) or "")


PARTS: dict[str, Callable[[], Iterable[str]]] = {
    **{f"columns/{name}": partial(columns, name) for name in TABLES},
    "manifests": manifest_page,
    "audit.json": audit_schema,
    "forms": forms,
    "published-forms": published,
    "rejects": partial(of_enum, RejectReason, "reason"),
    "flags": flags,
    "rules": rules,
    "presets": presets,
    "losses": losses,
    "exit-codes": exit_codes,
}
