"""Data of the alignment experiment: checks answers, makes pairs of them, flips labels, scores runs.

In a pair, the chosen answer satisfies its prompt's constraint and the rejected one does not; answers that were cut off
at the limit are not used. Flips exchange the answers of a pair by a hash of its id and the seed (`benchmarks.cells`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import flips as wrong_labels
from benchmarks.constraint_prompts import Prompt

Row = dict[str, Any]  # id, prompt, kind (of constraint), chosen, rejected


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt, checked."""

    prompt: str  # the prompt's id
    text: str
    tokens: int
    finished: bool  # it ended within the limit
    holds: bool  # it satisfies the constraint

    @property
    def satisfies(self) -> bool:
        """An answer that was cut off counts as not satisfying."""
        return self.finished and self.holds


def checked(prompt: Prompt, ids: Sequence[int], tokenizer: Any, ends: Sequence[int]) -> Answer:
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return Answer(prompt.id, text, len(ids), ids[-1] in ends, prompt.constraint.holds(text))


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    lines = "".join(json.dumps(asdict(a), ensure_ascii=False) + "\n" for a in answers)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(lines, encoding="utf-8")
    temporary.replace(path)


def read_answers(paths: Sequence[Path]) -> list[Answer]:
    lines = (line for path in paths for line in path.read_text(encoding="utf-8").split("\n"))
    return [Answer(**json.loads(line)) for line in lines if line]


def make_pairs(prompts: Sequence[Prompt], answers: Sequence[Answer], most: int) -> list[Row]:
    """At most `most` pairs per prompt, those most similar in length, each answer used once; in the order of prompts."""
    of_prompt: dict[str, list[Answer]] = {p.id: [] for p in prompts}
    for answer in answers:
        if answer.finished and answer.text.strip():
            of_prompt[answer.prompt].append(answer)
    rows = []
    for prompt in prompts:
        found = of_prompt[prompt.id]
        good, bad = ([a for a in found if a.holds == wanted] for wanted in (True, False))
        asked = {"prompt": prompt.text, "kind": prompt.constraint.kind}
        for n, (chosen, rejected) in enumerate(closest(good, bad)[:most]):
            rows.append({"id": f"{prompt.id}-{n}", **asked, "chosen": chosen, "rejected": rejected})
    return rows


def closest(good: Sequence[Answer], bad: Sequence[Answer]) -> list[tuple[str, str]]:
    """Texts (satisfying, not satisfying), paired greedily by the smallest difference in tokens, each used once."""
    by_gap = sorted(product(range(len(good)), range(len(bad))), key=lambda c: abs(good[c[0]].tokens - bad[c[1]].tokens))
    used: tuple[set[int], set[int]] = (set(), set())
    found = []
    for g, b in by_gap:
        if g not in used[0] and b not in used[1]:
            used[0].add(g)
            used[1].add(b)
            found.append((good[g].text, bad[b].text))
    return found


def rates_by_kind(prompts: Sequence[Prompt], answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Of each kind: answers, and the shares that were finished, that satisfy, and of prompts with both sorts."""
    kind_of = {p.id: p.constraint.kind for p in prompts}
    found: dict[str, dict[str, float]] = {}
    for kind in sorted({*kind_of.values()}):
        own = [a for a in answers if kind_of[a.prompt] == kind]
        sorts: dict[str, set[bool]] = {}
        for a in own:
            if a.finished:
                sorts.setdefault(a.prompt, set()).add(a.holds)
        found[kind] = {
            "answers": len(own),
            "finished": float(np.mean([a.finished for a in own])) if own else 0.0,
            "satisfied": float(np.mean([a.satisfies for a in own])) if own else 0.0,
            "mixed_prompts": sum(len(s) == 2 for s in sorts.values()) / max(1, len({a.prompt for a in own})),
        }
    return found


def labels_name(flips: str, rate: float, seed: int) -> str:
    """Name of the labels of a cell; those as given do not depend on the seed."""
    return f"{flips}{round(100 * rate)}-s{seed}" if rate else "none0"


def flipped(rows: Sequence[Row], flips: str, rate: float, seed: int) -> set[str]:
    """Ids of the pairs whose labels are exchanged."""
    wrong = wrong_labels.flipped(rows, flips, rate, seed)
    return {row["id"] for row, swap in zip(rows, wrong, strict=True) if swap}


def score_labels(
    rows: Sequence[Row],
    flips: str,
    rate: float,
    seed: int,
    folder: Path,
    model: str,
    score: Mapping[str, Any],
    proxy: str,
) -> dict[str, Any]:
    """Write the pairs with these labels and score them as `rmo-curate score` does; counts of the run.

    score: its settings. proxy: the kind; none scores the reference alone.
    """
    from rmo_curate.score.command import run_score
    from rmo_curate.score.settings import ProxySettings, ScoreSettings
    from rmo_train.store.manifests import RunManifest, require_manifest

    wrong = wrong_labels.flipped(rows, flips, rate, seed)
    path = wrong_labels.write_flipped(rows, wrong, folder / "pairs.jsonl")
    run_score([str(path)], model, folder / "run", ScoreSettings(**score), ProxySettings(kind=proxy))
    manifest = require_manifest(folder / "run", RunManifest, "run_score")
    return {"pairs": len(rows), "counts": manifest.counts}
