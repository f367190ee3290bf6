"""JSON lines, and JSON lists read element by element, so that memory does not grow with the file."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rmo_curate.read.readers.record import BOM, Record, open_bytes
from rmo_train.console.errors import UserError

LIST = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")  # a list of objects
CHUNK = 1 << 20  # bytes read at a time
SPACE = " \t\n\r"
NUMBER = "0123456789.eE+-"  # what may follow a part of a number that is a number itself


# Columns that make an object a record and not the holder of a list of them.
ASKED = {"prompt", "chosen", "messages", "conversations", "context", "contents", "instruction", "question", "input"}


class TwiceTheKey(ValueError):
    """An object with two values under one key, of which a reader would keep the last."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise TwiceTheKey(f"the key {twice!r} occurs twice in one object")
    return value


FEW = 4  # objects in a line; of more, those inside the record are not looked through for keys that stand twice
DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _parse_line(number: int, line: bytes) -> Record:
    text = line.decode("utf-8", errors="backslashreplace").rstrip("\r\n")
    try:
        line.decode("utf-8")
        if text.count("{") <= FEW:
            return Record(number, DECODER.decode(text), text)
        value = json.loads(text)
        if isinstance(value, dict) and any(text.count(f'"{key}"') > 1 for key in value):  # a column may stand twice
            DECODER.decode(text)
        return Record(number, value, text)
    except UnicodeDecodeError as e:
        return Record(number, text=text, problem=f"not UTF-8 at byte {e.start + 1} of the line")
    except json.JSONDecodeError as e:
        comma = e.msg == "Extra data" and text[e.pos :].strip() == ","
        cause = "a comma after the object; each line must be one object" if comma else e.msg
        return Record(number, text=text, problem=f"not JSON at column {e.colno}: {cause}")
    except (ValueError, RecursionError) as e:  # an integer of thousands of digits, lists nested too deep
        return Record(number, text=text, problem=f"not readable as JSON: {e}")


def read_jsonl(path: Path) -> Iterator[Record]:
    """One object a line; blank lines are not records, but count as lines. A list under this suffix is read as one."""
    if _is_list(path):
        yield from _elements(path)
        return
    with open_bytes(path) as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1:
                line = line.removeprefix(BOM)
            if line.strip():
                yield _parse_line(number, line)


def read_json(path: Path) -> Iterator[Record]:
    """A list of objects, or an object that holds one list; JSON lines under this suffix are read as such."""
    with open_bytes(path) as f:
        start = f.read(CHUNK).removeprefix(BOM).lstrip()
    if not start:
        return
    if start.startswith(b"["):
        yield from _elements(path)
    elif _is_json_lines(path):
        yield from read_jsonl(path)
    else:
        yield from _list_in_object(path)


def _elements(path: Path) -> Iterator[Record]:
    with open_bytes(path) as f:
        values = _Values(f)
        try:
            for number, value in enumerate(values.items(), start=1):
                yield Record(number, value)
        except json.JSONDecodeError as e:
            line, column = values.position(e)
            raise UserError(f"{path}:{line}:{column}: not JSON: {e.msg}; correct the file there") from e
        except (ValueError, RecursionError) as e:
            raise UserError(f"{path}: not readable as JSON: {e}") from e


def _is_list(path: Path) -> bool:
    """Whether a file of lines is one list of objects: its first line begins one and is no value of its own, or it is
    the only line."""
    with open_bytes(path) as lines:
        start = lines.read(CHUNK)
    if not LIST.match(start):
        return False
    if len(start) == CHUNK and b"\n" not in start.lstrip(BOM).lstrip():  # a line too long to be held
        return True
    with open_bytes(path) as lines:
        filled = (line for line in lines if line.removeprefix(BOM).strip())
        first = _parse_line(1, next(filled).removeprefix(BOM))
        return first.problem is not None or next(filled, None) is None


def _is_json_lines(path: Path) -> bool:
    """Whether the first line that is not blank is an object of its own and more follows."""
    with open_bytes(path) as lines:
        filled = (line for line in lines if line.removeprefix(BOM).strip())
        first = _parse_line(1, next(filled).removeprefix(BOM))
        return isinstance(first.value, dict) and next(filled, None) is not None


def _list_in_object(path: Path) -> Iterator[Record]:
    with open_bytes(path) as f:
        content = f.read()
    try:
        value = DECODER.decode(content.decode("utf-8-sig"))
    except json.JSONDecodeError as e:
        raise UserError(f"{path}:{e.lineno}:{e.colno}: not JSON: {e.msg}; correct the file there") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not readable as JSON: {e}") from e
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a list of records, found {type(value).__name__}")
    if ASKED & value.keys():  # the one record of the file, printed over several lines
        yield Record(1, value)
        return
    lists = {k: v for k, v in value.items() if isinstance(v, list)}
    if len(lists) != 1:
        raise UserError(
            f"{path}: an object with {len(lists)} lists (keys: {', '.join(map(repr, value)) or 'none'}); "
            "expected a list of records, or an object that holds exactly one list"
        )
    for number, item in enumerate(next(iter(lists.values())), start=1):
        yield Record(number, item)


class _Values:
    """The elements of the JSON list in a stream, one at a time."""

    def __init__(self, stream: IO[bytes]):
        self.stream = stream
        self.decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self.buffer, self.at, self.ended = "", 0, False
        self.lines, self.column = 0, 0  # what was dropped from the buffer's start: lines, characters of the last line

    def items(self) -> Iterator[Any]:
        self._expect("[")
        if self._next() == "]":
            self.at += 1
        else:
            while True:
                yield self._value()
                if self._expect(",]") == "]":
                    break
                if self._next() == "]":
                    raise json.JSONDecodeError("a comma before the end of the list", self.buffer, self.at)
        if self._next():
            raise json.JSONDecodeError("Extra data", self.buffer, self.at)

    def position(self, error: json.JSONDecodeError) -> tuple[int, int]:
        """1-based line and column in the file."""
        return self.lines + error.lineno, error.colno + (self.column if error.lineno == 1 else 0)

    def _more(self) -> None:
        """Drop what is read and read on: as much again as is left, so that a long element is not parsed often."""
        gone = self.buffer[: self.at]
        if (n := gone.count("\n")) > 0:
            self.lines, self.column = self.lines + n, len(gone) - gone.rfind("\n") - 1
        else:
            self.column += len(gone)
        chunk = self.stream.read(max(CHUNK, len(self.buffer) - self.at))
        self.ended = not chunk
        self.buffer, self.at = self.buffer[self.at :] + self.decode(chunk, final=self.ended), 0

    def _next(self) -> str:
        """The next character that is no white space, empty at the end; it is not consumed."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at] in SPACE:
                self.at += 1
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if self.ended:
                return ""
            self._more()

    def _expect(self, characters: str) -> str:
        if (upcoming := self._next()) and upcoming in characters:
            self.at += 1
            return upcoming
        wanted = " or ".join(repr(c) for c in characters)
        raise json.JSONDecodeError(f"Expecting {wanted}", self.buffer, self.at)

    def _value(self) -> Any:
        while True:
            try:
                value, end = DECODER.raw_decode(self.buffer, self.at)
                goes_on = isinstance(value, int | float) and self.buffer[end : end + 1] in NUMBER
                if self.ended or not goes_on:
                    self.at = end
                    return value
            except json.JSONDecodeError:
                if self.ended:
                    raise
            self._more()
