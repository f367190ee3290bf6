"""`rmo-curate inspect`: what data hold before anything is scored. What was detected, three samples, problems by kind.

Data are looked through once to detect and count, and once more to render. Everything printed goes through `visible`:
text of unknown origin must not be able to steer a terminal.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rmo_curate.read.pair_rendering import batches, render_pairs
from rmo_curate.read.render_pool import tokens_sha
from rmo_curate.read.sources import Pair, Reject, Source, open_source
from rmo_curate.score.conversion import check_target, write_pairs_as_lines
from rmo_curate.score.length_limit import length_limit, limit_line
from rmo_curate.score.run_folder import records_line
from rmo_curate.score.settings import ScoreSettings
from rmo_train.console.progress import progress
from rmo_train.console.wording import counted, place
from rmo_train.data.rendering import (
    BOUNDARY_MISMATCH,
    TEMPLATE_DROPS_TOOLS,
    TEMPLATE_REWRITES_HISTORY,
    TEMPLATE_REWRITES_RESPONSE,
    Rendered,
    Renderer,
    TemplateRefused,
)
from rmo_train.store.tables import TOO_LONG

SHOWN = 220  # characters of a text; of a longer one the middle is left out
SHOWN_TOKENS = 4  # token ids at either end
EXAMPLES = 3  # ids named for each kind of problem
MOST_FILES, MOST_COLUMNS, MOST_NOTES, MOST_PROBLEMS = 6, 12, 6, 12

SAME_TOKENS = "same_tokens"
BEGINS_THE_OTHER = "one_answer_begins_the_other"
REFUSED = "refused_by_the_template"
MEANING = {
    BOUNDARY_MISMATCH: "a token spans the end of the prompt; it is scored with the response",
    TEMPLATE_REWRITES_HISTORY: "the template renders the prompt differently once a response follows",
    TEMPLATE_REWRITES_RESPONSE: "the template changes the text of a response",
    TEMPLATE_DROPS_TOOLS: "the template leaves out the tools, so the model does not see them",
}


@dataclass
class Problem:
    """One kind of problem: how many records have it, and where it is seen first."""

    count: int
    first: str  # source:line
    detail: str
    ids: list[str] = field(default_factory=list)  # of the first pairs that have it

    def line(self, kind: str) -> str:
        named = f" ({', '.join(self.ids)}{', …' if self.count > len(self.ids) else ''})" if self.ids else ""
        return f"{kind}: {self.count:,}, the first at {self.first}: {self.detail}{named}"


@dataclass(frozen=True)
class Inspection:
    """What `inspect_source` found."""

    source: Source
    samples: list[tuple[Pair, Rendered | TemplateRefused | None]]  # None: no model, so nothing is rendered
    problems: dict[str, Problem]  # by kind
    tokens: np.ndarray  # int64 [rendered pairs, 3] of prompt, chosen, rejected; no rows without a model


def run_inspect(
    data: Sequence[str],
    model: str | None,
    settings: ScoreSettings,
    *,
    columns: Mapping[str, str] | None = None,
    to: Path | None = None,
) -> list[str]:
    """Look `data` through as `score` would and return the lines to print; without a model all but the tokens.

    `to`: a file for the pairs in one form.
    """
    if to is not None:
        check_target(to)
    said, renderer, most = [], None, 0
    if model is not None:
        from rmo_train.model.policy import load_tokenizer, resolve_dtype

        limit = length_limit(settings, model, str(resolve_dtype(settings.dtype)).removeprefix("torch."))
        renderer, most = Renderer(load_tokenizer(model)), limit.tokens
        said = [f"model {visible(model)}; {limit_line(limit)}"]
    source = open_source(data, limit=settings.limit, columns=columns)
    said += inspection_lines(inspect_source(source, renderer, most), renderer)
    if to is not None:
        said += ["", *map(visible, write_pairs_as_lines(source, to))]
    return said


# ---------------------------------------------------------------------------------------------------- looking


def inspect_source(source: Source, renderer: Renderer | None, max_length: int) -> Inspection:
    """Go through every record; pairs are rendered where there is a renderer. Samples: first, middle and last pair."""
    n = source.counts["pairs"]
    wanted = {0, n // 2, n - 1}
    samples: list[tuple[Pair, Rendered | TemplateRefused | None]] = []
    problems: dict[str, Problem] = {}
    lengths = array("q")
    seen: set[bytes] = set()
    at = 0
    with progress("look through", sum(source.counts.values()), "record") as bar:
        for batch in batches(source.records()):
            for record, rendered in _rendered(batch, renderer):
                if isinstance(record, Reject):
                    note(problems, record.reason.value, record, record.detail)
                    continue
                if at in wanted:
                    samples.append((record, rendered))
                at += 1
                note_texts(problems, record)
                if isinstance(rendered, TemplateRefused):
                    note(problems, REFUSED, record, str(rendered))
                elif rendered is not None:
                    lengths.extend(map(len, (rendered.prompt_ids, rendered.chosen_ids, rendered.rejected_ids)))
                    note_tokens(problems, record, rendered, max_length, seen)
            bar.advance(len(batch))
    return Inspection(source, samples, problems, np.array(lengths, dtype=np.int64).reshape(-1, 3))


def _rendered(
    batch: list[Pair | Reject], renderer: Renderer | None
) -> Iterator[tuple[Pair | Reject, Rendered | TemplateRefused | None]]:
    """Each record of `batch` with what its rendering gives (None: a reject, or no renderer)."""
    outcomes: Iterator[Rendered | TemplateRefused] = iter(())
    if renderer is not None:
        outcomes = iter(render_pairs(renderer, [record for record in batch if isinstance(record, Pair)]))
    for record in batch:
        yield record, next(outcomes) if renderer is not None and isinstance(record, Pair) else None


def note(problems: dict[str, Problem], kind: str, record: Pair | Reject, detail: str) -> None:
    problem = problems.setdefault(kind, Problem(0, place(record.source, record.line), detail))
    problem.count += 1
    if isinstance(record, Pair) and len(problem.ids) < EXAMPLES:
        problem.ids.append(record.id)


def note_texts(problems: dict[str, Problem], pair: Pair) -> None:
    """What the texts of a pair show."""
    if pair.chosen[:-1] == pair.rejected[:-1]:
        chosen, rejected = pair.chosen[-1]["content"], pair.rejected[-1]["content"]
        if chosen.startswith(rejected) or rejected.startswith(chosen):
            longer = "chosen" if len(chosen) > len(rejected) else "rejected"
            note(problems, BEGINS_THE_OTHER, pair, f"the {longer} response begins with the whole other response")


def note_tokens(
    problems: dict[str, Problem], pair: Pair, rendered: Rendered, max_length: int, seen: set[bytes]
) -> None:
    """What the tokens of a pair show; `seen` has a digest of every earlier pair's."""
    for flag in rendered.flags:
        note(problems, flag, pair, MEANING[flag])
    longest = len(rendered.prompt_ids) + max(len(rendered.chosen_ids), len(rendered.rejected_ids))
    if longest > max_length:
        note(problems, TOO_LONG, pair, f"{longest} tokens")
    digest = bytes.fromhex(tokens_sha(rendered))[:16]
    if digest in seen:
        note(problems, SAME_TOKENS, pair, "same tokens as an earlier pair; `filter` drops it as a duplicate")
    seen.add(digest)


# ---------------------------------------------------------------------------------------------------- printing


def visible(text: str) -> str:
    """`text` on one line with nothing that a terminal obeys: ⏎ for a line break, escapes for what has no glyph.

    Control characters, marks that turn the direction of writing, and characters of no width are shown as escapes.
    """
    shown = text.replace("\r\n", "⏎").replace("\n", "⏎")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def shortened(text: str) -> str:
    """`visible` text of at most about SHOWN characters."""
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2]} […] {text[-SHOWN // 2 :]}"
    return visible(text)


def inspection_lines(inspection: Inspection, renderer: Renderer | None) -> list[str]:
    """The report; at most about 60 lines."""
    source = inspection.source
    files = [f"{i.name} ({i.bytes:,} bytes)" for i in source.inputs]
    kept = [f"{e.name} ({e.type})" for e in source.extras]
    rejects = sum(source.counts.values()) - source.counts["pairs"]
    lines = [
        *files[:MOST_FILES],
        *([f"and {counted(len(files) - MOST_FILES, 'more file')}"] if len(files) > MOST_FILES else []),
        source.said,
        *(f"{role} is read from the column {column!r}" for role, column in source.columns.items()),
        f"other columns kept: {', '.join(kept[:MOST_COLUMNS]) or 'none'}"
        + (f" and {len(kept) - MOST_COLUMNS} more" if len(kept) > MOST_COLUMNS else ""),
        *source.notes[:MOST_NOTES],
        records_line(sum(source.counts.values()), source.counts["pairs"], rejects),
        *token_lines(inspection.tokens),
    ]
    for number, (pair, rendered) in enumerate(inspection.samples, start=1):
        lines += ["", f"sample {number} of {len(inspection.samples)}: {place(pair.source, pair.line)}, id {pair.id}"]
        lines += sample_lines(pair, rendered, renderer)
    lines += [
        "",
        f"problems ({counted(sum(source.counts.values()), 'record')} read):"
        if inspection.problems
        else "no problems found",
    ]
    worst = sorted(inspection.problems.items(), key=lambda item: (-item[1].count, item[0]))
    lines += [f"  {shortened(problem.line(kind))}" for kind, problem in worst[:MOST_PROBLEMS]]
    if len(worst) > MOST_PROBLEMS:
        lines.append(f"  and {counted(len(worst) - MOST_PROBLEMS, 'more kind')}")
    if (warning := source.warning()) is not None:
        lines.append(warning)
    if renderer is None:
        lines.append("give --model to see tokens, where the prompt ends, and what the chat template does")
    return [visible(line) for line in lines]


def token_lines(tokens: np.ndarray) -> list[str]:
    if not len(tokens):
        return []
    longest = tokens[:, 0] + tokens[:, 1:].max(axis=1)
    columns = (("prompt", tokens[:, 0]), ("chosen", tokens[:, 1]), ("rejected", tokens[:, 2]), ("pair", longest))
    shown = "; ".join(f"{name} {np.median(column):,.0f} (at most {column.max():,})" for name, column in columns)
    return [f"median tokens: {shown}; a pair is its prompt + the longer response"]


def sample_lines(pair: Pair, rendered: Rendered | TemplateRefused | None, renderer: Renderer | None) -> list[str]:
    """A sample: rendered, the boundary marked ‖; without a model, its messages."""
    if isinstance(rendered, TemplateRefused):
        return [f"  refused: {rendered}"]
    if rendered is None or renderer is None:
        return [
            f"  {name}: " + " | ".join(f"{m['role']}: {shortened(m['content'])}" for m in messages[-3:])
            for name, messages in (("prompt", pair.prompt), ("chosen", pair.chosen), ("rejected", pair.rejected))
        ]
    tokenizer, lines = renderer.tokenizer, []
    sides = (("prompt", rendered.prompt_ids), ("chosen", rendered.chosen_ids), ("rejected", rendered.rejected_ids))
    for name, ids in sides:
        text = shortened(str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)))
        end = f", ends with {tokenizer.convert_ids_to_tokens(ids[-1])!r}" if name != "prompt" else ""
        lines.append(f"  {name}, {len(ids):,} tokens [{shown_ids(ids)}]{end}")
        lines.append(f"    {text}‖" if name == "prompt" else f"    ‖{text}")
    if rendered.flags:
        lines.append(f"  flags: {', '.join(rendered.flags)}")
    return lines


def shown_ids(ids: Sequence[int]) -> str:
    """The first and the last token ids."""
    if len(ids) <= 2 * SHOWN_TOKENS:
        return " ".join(map(str, ids))
    return " ".join([*map(str, ids[:SHOWN_TOKENS]), "…", *map(str, ids[-SHOWN_TOKENS:])])
