"""What is told of each pair by itself, in one process a core where there are many: checks, keys, words, signatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from rmo_curate.audit import answers
from rmo_curate.audit.preferences import text_key
from rmo_curate.audit.shingles import PROMPT_MARK, profile
from rmo_curate.audit.texts import Texts
from rmo_curate.read.batching import in_batches
from rmo_curate.read.processes import in_processes, workers_for
from rmo_train.console.progress import progress

CHOSEN, REJECTED, WHOLE = 1, 2, 4  # where a pair has a finding: bits, WHOLE = the pair and no side of it
BOTH = CHOSEN | REJECTED
BATCH, BATCH_CHARACTERS = 4096, 2**24  # pairs that are looked at together, of long ones fewer

Batch = tuple[Sequence[str], Sequence[str], Sequence[str]]  # prompts, chosen, rejected answers


@dataclass(frozen=True)
class PerPair:
    """n pairs; answers are 0 chosen, 1 rejected, texts 0 prompt, 1 chosen, 2 rejected."""

    checks: np.ndarray  # uint8 [n, answers.CHECKS]: sides that have it
    prefix: np.ndarray  # uint8 [n]: the side that the other answer begins with
    other_script: np.ndarray  # uint8 [n]: the side whose writing system is neither the prompt's nor the other answer's
    script: np.ndarray  # str [n], of the prompt
    keys: np.ndarray  # uint64 [n, 3]: equal for texts that differ in case and white space only
    words: np.ndarray  # int64 [n, 3]
    prompt_signatures: np.ndarray  # uint32 [n, PERMUTATIONS], MinHash of the prompt
    signatures: np.ndarray  # the same of prompt and both answers together

    @classmethod
    def together(cls, parts: Sequence[PerPair]) -> PerPair:
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


def per_pair(texts: Texts, workers: int | None = None) -> PerPair:
    """All of `texts`; `workers`: processes (default: all allowed cores where it pays). The result is the same."""
    workers = workers or workers_for(len(texts))
    parts = [told(((), (), ()))]
    with progress("check each pair", len(texts), "pair") as bar:
        for part in in_processes(told, batches(texts), workers, "checks pairs"):
            parts.append(part)
            bar.advance(len(part.words))
    return PerPair.together(parts)


def batches(texts: Texts) -> Iterator[Batch]:
    rows = zip(texts.prompt, texts.chosen, texts.rejected, strict=True)
    for batch in in_batches(rows, BATCH, BATCH_CHARACTERS, lambda sides: sum(map(len, sides))):
        prompts, chosen, rejected = zip(*batch, strict=True)
        yield prompts, chosen, rejected


def told(batch: Batch) -> PerPair:
    prompts, chosen, rejected = batch
    scripts = [answers.script(prompt) for prompt in prompts]
    of_prompt, of_chosen, of_rejected = profile(prompts, PROMPT_MARK), profile(chosen), profile(rejected)
    return PerPair(
        checks=np.stack([sides(look, chosen, rejected) for look in answers.CHECKS.values()], axis=1),
        prefix=prefixes(chosen, rejected),
        other_script=other_scripts(scripts, chosen, rejected),
        script=np.array(scripts, dtype=object),
        keys=np.stack([keys(column) for column in batch], axis=1),
        words=np.stack([of_prompt[0], of_chosen[0], of_rejected[0]], axis=1),
        prompt_signatures=of_prompt[1],
        signatures=np.minimum(of_prompt[1], np.minimum(of_chosen[1], of_rejected[1])),
    )


def sides(look: answers.Check, chosen: Sequence[str], rejected: Sequence[str]) -> np.ndarray:
    """Which answers of each pair a check says something of."""
    n = len(chosen)
    has = [np.fromiter((bool(look(text)) for text in column), bool, n) for column in (chosen, rejected)]
    return has[0] * np.uint8(CHOSEN) | has[1] * np.uint8(REJECTED)


def prefixes(chosen: Sequence[str], rejected: Sequence[str]) -> np.ndarray:
    """CHOSEN where the rejected answer begins with the chosen one, REJECTED the other way round."""
    found = np.zeros(len(chosen), np.uint8)
    for i, (one, other) in enumerate(zip(chosen, rejected, strict=True)):
        a, b = one.strip(), other.strip()
        if b.startswith(a):
            found[i] = BOTH if a == b else CHOSEN
        elif a.startswith(b):
            found[i] = REJECTED
    return found


def other_scripts(prompts: Sequence[str], chosen: Sequence[str], rejected: Sequence[str]) -> np.ndarray:
    """The side whose writing system is neither the prompt's nor the other answer's; prompts: their systems."""
    found = np.zeros(len(chosen), np.uint8)
    for i, (asked, one, other) in enumerate(zip(prompts, chosen, rejected, strict=True)):
        a, b = answers.script(one), answers.script(other)
        if asked and a and b and a != b:
            found[i] = CHOSEN * (a != asked) | REJECTED * (b != asked)
    return found


def keys(texts: Sequence[str]) -> np.ndarray:
    """uint64 [texts]: of ten million texts, two others are alike by chance once in 300,000 data sets."""
    return np.frombuffer(b"".join(map(text_key, texts)), np.uint64).reshape(-1, 2)[:, 0].copy()
