"""What is wrong with data of no known form, and the one command that would read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from rmo_curate.read.forms import candidates, convert, fields_of, recognise
from rmo_curate.read.forms.answers import is_said
from rmo_curate.read.forms.form import at
from rmo_curate.read.messages import Unfit
from rmo_train.console.errors import UserError

# Columns that say which of two answers won, in the forms of `comparisons` and elsewhere.
LABELS = (
    *("better_response_id", "winner", "labels", "label", "choice", "overall_preference", "preference"),
    *("preferred", "preference_strength", "winner_model_a", "better", "best", "vote"),
)
ONE_OF_TWO = re.compile(r".*[ _.-][abAB012]$|.*[a-z][012]$")  # an answer that is one of two, better or not
BETTER = re.compile(r"chosen|accept|prefer|better|good|win|best|positive|pos\b|real", re.I)
WORSE = re.compile(
    r"reject|unprefer|dispref|non_?-?prefer|not_?prefer|worse|bad|los|worst|negative|neg\b|generated", re.I
)
# Names of what is said about an answer and is none.
ABOUT = re.compile(
    r"model|score|rating|generator|source|rank|length|tokens|type|reason|policy|name|\bid$|_id$|margin|\.(from|role)$",
    re.I,
)
QUESTIONS = ("prompt", "question", "instruction", "query", "input", "context", "messages", "conversations", "history")
MOST = 12  # columns tried for a role
TRIED = 20  # records
ENOUGH = 0.5  # of the sample must become pairs


def labels_in(names: Sequence[str]) -> list[str]:
    return [name for name in names if name in LABELS]


def check_no_label_is_passed_over(columns: Mapping[str, str], names: Sequence[str]) -> None:
    """A UserError for an answer that is called chosen by `--map` where a label says which answer won."""
    mapped = [columns[r] for r in ("chosen", "rejected") if ONE_OF_TWO.match(columns.get(r, ""))]
    if mapped and (labels := labels_in(names)):
        raise UserError(
            f"{labels[0]!r} says which answer won, so {mapped[0]!r} is not always the chosen one: give no --map for "
            "chosen and rejected. If no form reads the data as they are, write records with prompt, chosen and rejected"
        )


def why_not_pairs(sample: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str | None:
    """The cause where the data are of a kind that holds no pairs, or none that can be told; None where it is not
    known."""
    first = sample[0]
    answers = [n for n in names if ONE_OF_TWO.match(n) and any(is_said(r.get(n)) for r in sample)]
    labels = labels_in(names)
    if len(answers) >= 2 and labels:
        return (
            f"{', '.join(answers[:2])} are two answers and {labels[0]!r} says which one won, but the form is unknown; "
            "write records with prompt, chosen and rejected"
        )
    unpaired = {"completion", "messages", "response", "conversations", "output"} & first.keys()
    if unpaired and isinstance(first.get("label", first.get("kto_tag")), bool | int | float):
        return f"unpaired data (KTO): one answer ({min(unpaired)}) and a label; expected two answers to one prompt"
    several = [n for n in names if isinstance(first.get(n), list) and n in ("completions", "responses", "answers")]
    judged = [n for n in names if re.search(r"score|reward|rank|rating", n, re.I)]
    if several and judged:
        return (
            f"{several[0]!r} holds several answers and {judged[0]!r} rates them, but the form is unknown; "
            "write records with prompt, chosen and rejected, or a list of {answer, rank} under 'answers'"
        )
    if several:
        return (
            f"{several[0]!r} holds several answers, but nothing says which one is better; add a rank or a score to each"
        )
    if unpaired and not any(WORSE.search(n) for n in names):
        alone = [n for n in names if BETTER.search(n)]
        lacking = "no column 'rejected': " if alone and "rejected" not in names else ""
        return f"{lacking}one answer ({min(alone or unpaired)}) to each prompt; expected two, of which one is preferred"
    return None


def proposed_map(sample: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> dict[str, str]:
    """The names of columns with which most of the sample become pairs; empty where there are none."""
    sample = sample[:TRIED]
    names = list(dict.fromkeys(n for record in sample for n in _paths(record) if not ABOUT.search(n)))
    better = [n for n in names if BETTER.search(n) and not WORSE.search(n)][:MOST]
    worse = [n for n in names if WORSE.search(n)][:MOST]
    asked = sorted((n for n in names if n not in {*better, *worse}), key=_likely)[:MOST]
    for chosen, rejected, prompt in product(better, worse, [None, *asked]):
        sides = {"chosen": chosen, "rejected": rejected, **({"prompt": prompt} if prompt else {})}
        tried = {**columns, **{role: name for role, name in sides.items() if role != name}}
        if not all(any(is_said(at(record, name)) for record in sample) for name in sides.values()):
            continue
        if sum(_is_pair(record, tried) for record in sample) >= ENOUGH * len(sample):
            return {role: name for role, name in tried.items() if columns.get(role) != name}
    return {}


def command(paths: Sequence[str], proposed: Mapping[str, str], columns: Mapping[str, str]) -> str:
    """The command that reads the data so."""
    maps = [f"--map {role}={name}" for role, name in {**columns, **proposed}.items()]
    return " ".join(["rmo-curate inspect", *paths, *maps])


def _paths(record: Mapping[str, Any]) -> Iterator[str]:
    """The record's columns, and the keys of the objects in them as paths."""
    for name, value in record.items():
        yield name
        if isinstance(value, dict):
            yield from (f"{name}.{key}" for key in value)


def _likely(name: str) -> int:
    last = name.rsplit(".", 1)[-1]
    return QUESTIONS.index(last) if last in QUESTIONS else len(QUESTIONS)


def _is_pair(record: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    fields = fields_of(record, columns)
    form = recognise(fields)
    if form is None:
        return False
    try:
        for candidate in candidates(form, fields):
            convert(form, candidate)
    except Unfit:
        return False
    return True
