"""Features of texts, without a model: the style of each answer, and which answers and prompts are equal."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from rmo_curate.evidence.prompt_words import PromptWords
from rmo_curate.read.batching import in_batches
from rmo_curate.read.messages import Message
from rmo_train.store.id_hash import hash64

BLOCK, BLOCK_CHARACTERS = 8192, 2**24  # pairs read at a time, of long ones fewer: bounds memory
LONG = 2**16  # bytes; texts over it are hashed otherwise
AT_ONCE = min(8, os.cpu_count() or 1)  # blocks
SIDES = {"prompt": pl.String, "chosen": pl.String, "rejected": pl.String}
WORD, BETWEEN = r"\w+", "\x1e"


@dataclass(frozen=True)
class Texts:
    """n pairs. `prompt`, `chosen`, `rejected`: hashes of the prompt and of the answers to it. `style`: the style of the
    chosen answer minus that of the rejected one. `words`: of the prompt."""

    prompt: np.ndarray  # uint64 [n]
    chosen: np.ndarray  # uint64 [n]
    rejected: np.ndarray  # uint64 [n]
    style: np.ndarray  # float32 [n, STYLE]
    words: PromptWords

    def take(self, rows: np.ndarray) -> Texts:
        return Texts(self.prompt[rows], self.chosen[rows], self.rejected[rows], self.style[rows], self.words.take(rows))


def _count(pattern: str) -> pl.Expr:
    return _log(pl.col("text").str.count_matches(pattern))


def _log(count: pl.Expr) -> pl.Expr:
    """log(1 + a count): the tenth bullet matters less than the first."""
    return count.cast(pl.Float32).log1p()


def _is(expression: pl.Expr) -> pl.Expr:
    return expression.cast(pl.Float32)


_text, _lower = pl.col("text"), pl.col("text").str.to_lowercase()
_words, _asked = pl.col("words"), pl.col("asked")  # distinct words of the answer and of its prompt
_all_words, _shared = pl.col("all words"), pl.col("shared")  # their numbers: of all, and of those of the prompt, too

# name -> expression on an answer. A reader can check each feature in the text.
STYLE: dict[str, pl.Expr] = {
    "length": _log(_text.str.len_chars()),
    "words": _log(_all_words),
    "lines": _count("\n"),
    "paragraphs": _count("\n\n"),
    "sentences": _count(r"[.!?]+[\"')]*(\s|$)"),
    "headings": _count(r"(?m)^\s*#{1,6} "),
    "bullets": _count(r"(?m)^\s*[-*•] "),
    "numbered lines": _count(r"(?m)^\s*\d+[.)] "),
    "table rows": _count(r"(?m)^\s*\|"),
    "bold": _count(r"\*\*"),
    "code marks": _count("`"),
    "exclamation marks": _count("!"),
    "question marks": _count(r"\?"),
    "commas": _count(","),
    "colons": _count(":"),
    "semicolons": _count(";"),
    "dashes": _count(r"[–—]| - "),
    "quotation marks": _count('["“”„«»]'),
    "brackets": _count(r"[(\[{]"),
    "links": _count("https?://"),
    "emoji": _count(r"\p{Extended_Pictographic}"),
    "digits": _count(r"\d"),
    "distinct words": _is(_words.list.len()) / pl.max_horizontal(_all_words, 1),
    "word length": _is(_text.str.len_chars()) / pl.max_horizontal(_all_words, 1),
    "capital letters": _is(_text.str.count_matches(r"\p{Lu}")) / pl.max_horizontal(_text.str.len_chars(), 1),
    "words in capitals": _count(r"\b\p{Lu}{2,}\b"),
    "ends a sentence": _is(_text.str.contains(r"[.!?\"')]\s*$")),
    "ends with a question": _is(_text.str.contains(r"\?\s*$")),
    "starts with a mark": _is(_text.str.contains(r"^\s*[^\w\s]")),
    "starts upper-case": _is(_text.str.contains(r"^\s*\p{Lu}")),
    "sorry": _is(_lower.str.contains("sorry", literal=True)),
    "as an AI": _is(_lower.str.contains("as an ai", literal=True)),
    "opens with assent": _is(_lower.str.contains(r"^\s*(sure|certainly|of course|yes|no|here)\b")),
    "first person": _count(r"\b(I|my|me)\b"),
    "second person": _count(r"(?i)\byour?\b"),
    "words of the prompt": _is(_shared) / pl.max_horizontal(_words.list.len(), 1),
    "share of the prompt's words": _is(_shared) / pl.max_horizontal(_asked.list.len(), 1),
}


def read_texts(tables: Iterable[pa.Table]) -> Texts:
    """Features of pairs in a table with the columns prompt, chosen, rejected: lists of messages."""
    return _together(_blocks(tables))


def texts_of(
    prompt: Sequence[list[Message]], chosen: Sequence[list[Message]], rejected: Sequence[list[Message]]
) -> Texts:
    """The same from lists of messages in memory, [pairs] each, without building one large table."""

    def blocks() -> Iterator[pl.DataFrame]:
        rows = (tuple(map(_joined, sides)) for sides in zip(prompt, chosen, rejected, strict=True))
        for block in in_batches(rows, BLOCK, BLOCK_CHARACTERS, lambda row: sum(map(len, row))):
            yield pl.DataFrame(block, schema=SIDES, orient="row")

    return _together(blocks())


def _joined(messages: list[Message]) -> str:
    """As `_content`; a lone surrogate, which Arrow cannot store, becomes a question mark."""
    text = BETWEEN.join(message["content"] or "" for message in messages)
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _together(blocks: Iterator[pl.DataFrame]) -> Texts:
    """Blocks read in parallel, a few at a time: each keeps one core busy."""
    parts: list[Texts] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting: deque[Future[Texts]] = deque()
        for block in blocks:
            waiting.append(pool.submit(_read, block))
            if len(waiting) > AT_ONCE:
                parts.append(waiting.popleft().result())
        parts += [future.result() for future in waiting]
    if not parts:
        return _read(pl.DataFrame(schema=SIDES))
    prompt, chosen, rejected, differences = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("prompt", "chosen", "rejected", "style")
    )
    return Texts(prompt, chosen, rejected, differences, PromptWords.together([part.words for part in parts]))


def _blocks(tables: Iterable[pa.Table]) -> Iterator[pl.DataFrame]:
    """The texts of about `BLOCK` pairs, or `BLOCK_CHARACTERS`, at a time, whatever the sizes of the tables."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        texts = table.select(list(SIDES))
        step = max(1, min(BLOCK, BLOCK_CHARACTERS * table.num_rows // max(1, texts.nbytes)))
        for start in range(0, table.num_rows, step):
            held.append(texts.slice(start, step))
            rows, size = rows + held[-1].num_rows, size + held[-1].nbytes
            if rows >= BLOCK or size >= BLOCK_CHARACTERS:
                yield _contents(held)
                held, rows, size = [], 0, 0
    if held:
        yield _contents(held)


def _contents(tables: list[pa.Table]) -> pl.DataFrame:
    frame = pl.from_arrow(pa.concat_tables(tables))
    assert isinstance(frame, pl.DataFrame)
    return frame.select(_content(name) for name in ("prompt", "chosen", "rejected"))


def _content(name: str) -> pl.Expr:
    """The contents of a list of messages as one text."""
    return pl.col(name).list.eval(pl.element().struct.field("content").fill_null("")).list.join(BETWEEN).fill_null("")


def _read(block: pl.DataFrame) -> Texts:
    prompt = _hash(block["prompt"])
    chosen, rejected = (_hash(block[side]) ^ prompt for side in ("chosen", "rejected"))
    asked = block.select(_words_of("prompt").list.unique(maintain_order=True))["prompt"]
    difference = style(block["chosen"], asked) - style(block["rejected"], asked)
    return Texts(prompt, chosen, rejected, difference, PromptWords.of(asked))


def style(texts: pl.Series, asked: pl.Series) -> np.ndarray:
    """The features `STYLE` of every answer: float32 [answers, features]. asked: the distinct words of each prompt."""
    frame = (
        pl.DataFrame({"text": texts, "asked": asked})
        .with_columns(_words_of("text").alias("words"))
        .with_columns(_words.list.len().alias("all words"), _words.list.unique().alias("words"))
        .with_columns(_words.list.set_intersection(_asked).list.len().alias("shared"))
    )
    values = frame.select(value.cast(pl.Float32).alias(name) for name, value in STYLE.items())
    return values.to_numpy()


def _words_of(name: str) -> pl.Expr:
    return pl.col(name).str.to_lowercase().str.extract_all(WORD)


def _hash(texts: pl.Series) -> np.ndarray:
    """uint64 [texts], equal where texts are. `hash64` goes through a text by 8 bytes: quick for many, not for long."""
    long = (texts.str.len_bytes() > LONG).to_numpy()
    hashes = hash64(texts.set(pl.Series(long), "").to_arrow().cast(pa.string()))
    for i in np.flatnonzero(long):
        digest = hashlib.blake2b(texts[int(i)].encode(), digest_size=8).digest()
        hashes[i] = int.from_bytes(digest, "little")
    return hashes
