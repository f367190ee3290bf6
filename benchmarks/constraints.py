"""Constraints that a program can check: kinds, their wordings, and pure checkers of an answer.

A kind draws what it asks for (a number, a word, a phrase) from lists of its own; `Constraint.holds` says whether an
answer does as asked. Checkers read the answer without the white space around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import flips

Given = Mapping[str, Any]  # what one constraint asks for: number, word, phrase or keys
BULLET = re.compile(r"^\s*[-*•]\s+\S")
NUMBERED = re.compile(r"^\s*(\d+)[.)]\s+\S")
SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"')\]]|$)")
FENCE = re.compile(r"^```(?:json)?\s*\n(.*?)\n?```$", re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """One kind of constraint. Every wording has the same fields in braces, and `choices` their possible values."""

    wordings: tuple[str, ...]
    holds: Callable[[str, Given], bool]
    choices: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Constraint:
    """What one prompt asks of its answer."""

    kind: str
    given: Given
    wording: str

    def holds(self, answer: str) -> bool:
        return KINDS[self.kind].holds(answer.strip(), self.given)


def draw(kind: str, *seed: str | int) -> Constraint:
    """A constraint of `kind`: its wording and values by hash of the seed."""

    def chosen(name: str, values: tuple[Any, ...]) -> Any:
        return values[int(flips.draw("constraint", name, *seed) * len(values))]

    given = {name: chosen(name, values) for name, values in KINDS[kind].choices.items()}
    wording = chosen("wording", KINDS[kind].wordings)
    return Constraint(kind, given, wording.format(**given))


# ---------------------------------------------------------------------------------------------------- checkers


def words(answer: str) -> list[str]:
    """Words of an answer in lower case; an apostrophe or a hyphen inside a word belongs to it."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", answer.lower())


def lines(answer: str) -> list[str]:
    return [line for line in answer.splitlines() if line.strip()]


def sentences(answer: str) -> int:
    """How many sentences end in an answer; a last one without its mark counts."""
    ends = [m.end() for m in SENTENCE_END.finditer(answer)]
    rest = answer[ends[-1] :] if ends else answer
    return len(ends) + bool(words(rest))


def loud_word(answer: str, given: Given) -> bool:
    """At least one word of three letters or more in capitals."""
    return bool(re.search(r"\b[A-Z]{3,}\b", answer))


def at_most(answer: str, given: Given) -> bool:
    return 0 < len(words(answer)) <= given["number"]


def at_least(answer: str, given: Given) -> bool:
    return len(words(answer)) >= given["number"]


def bullets(answer: str, given: Given) -> bool:
    return sum(bool(BULLET.match(line)) for line in lines(answer)) >= given["number"]


def numbered(answer: str, given: Given) -> bool:
    """A numbered list 1 to `number`, each number once and in order."""
    found = [int(m.group(1)) for line in lines(answer) if (m := NUMBERED.match(line))]
    return found == list(range(1, given["number"] + 1))


def json_object(answer: str, given: Given) -> bool:
    """A JSON object that has the key asked for; a code fence around it is allowed."""
    fenced = FENCE.match(answer)
    try:
        found = json.loads(fenced.group(1) if fenced else answer)
    except json.JSONDecodeError:
        return False
    return isinstance(found, dict) and given["key"] in found


def keyword(answer: str, given: Given) -> bool:
    return given["word"] in words(answer)


def without_word(answer: str, given: Given) -> bool:
    return bool(words(answer)) and given["word"] not in words(answer)


def starts(answer: str, given: Given) -> bool:
    return words(answer)[:1] == [given["word"].lower()]


def ends(answer: str, given: Given) -> bool:
    """The phrase ends the answer; a full stop or quotation marks after it are allowed."""
    return answer.lower().rstrip(".!\"' ").endswith(given["phrase"].lower().rstrip(".!"))


def no_comma(answer: str, given: Given) -> bool:
    return bool(words(answer)) and "," not in answer


def quotation(answer: str, given: Given) -> bool:
    """At least one word between double quotation marks."""
    return bool(re.search(r'"[^"]*\w[^"]*"', answer.replace("“", '"').replace("”", '"')))


def question(answer: str, given: Given) -> bool:
    return "?" in answer


def one_sentence(answer: str, given: Given) -> bool:
    return sentences(answer) == 1


def last_mark(answer: str, given: Given) -> bool:
    return answer.endswith(MARKS[given["mark"]])


def digits(answer: str, given: Given) -> bool:
    return any(c.isdigit() for c in answer)


# ---------------------------------------------------------------------------------------------------- the kinds

WORDS = (
    "window",
    "always",
    "water",
    "friend",
    "money",
    "music",
    "winter",
    "bridge",
    "garden",
    "color",
    "quiet",
    "hand",
)
OPENINGS = ("The", "In", "It", "I", "A", "If", "You", "When")
CLOSINGS = ("That is all", "Good luck", "Try it today", "Enjoy", "Take care", "And that matters", "The end")
KEYS = ("title", "name", "text", "description")
MARKS = {"question mark": "?", "exclamation mark": "!"}

KINDS: Mapping[str, Kind] = {
    "loud-word": Kind(
        (
            "Write at least one word in ALL CAPITALS.",
            "Put one important word in CAPITAL LETTERS.",
            "At least one word must be in UPPER CASE.",
        ),
        loud_word,
        {},
    ),
    "at-most": Kind(
        ("Use at most {number} words.", "Answer in {number} words or fewer.", "Do not use more than {number} words."),
        at_most,
        {"number": (15, 20, 25, 30)},
    ),
    "at-least": Kind(
        ("Use at least {number} words.", "Write {number} words or more.", "Do not use fewer than {number} words."),
        at_least,
        {"number": (30, 40)},
    ),
    "bullets": Kind(
        (
            "Use a bullet list of at least {number} items.",
            "Give at least {number} bullet points, each on a line that starts with a dash.",
            "Answer as a list:\n- like\n- this\nwith {number} items or more.",
        ),
        bullets,
        {"number": (2, 3)},
    ),
    "numbered": Kind(
        (
            "Answer with a numbered list of exactly {number} short points.",
            "Give {number} short points, numbered 1. to {number}.",
            "Number your points, and give exactly {number} of them.",
        ),
        numbered,
        {"number": (2, 3, 4)},
    ),
    "json": Kind(
        (
            'Answer only with a JSON object that has the key "{key}".',
            'Reply in JSON, with the key "{key}".',
            'Format the answer as a short JSON object: {{"{key}": "..."}}',
        ),
        json_object,
        {"key": KEYS},
    ),
    "keyword": Kind(
        (
            'Include the word "{word}" in your answer.',
            'Your answer must contain the word "{word}".',
            'Use the word "{word}" somewhere.',
        ),
        keyword,
        {"word": WORDS},
    ),
    "without-word": Kind(
        (
            'Do not use the word "{word}".',
            'Avoid the word "{word}" in your answer.',
            'The word "{word}" must not appear.',
        ),
        without_word,
        {"word": ("and", "of", "to", "is", "it", "in")},
    ),
    "starts": Kind(
        (
            'Start your answer with the word "{word}".',
            'Begin with "{word}".',
            'The first word of the answer must be "{word}".',
        ),
        starts,
        {"word": OPENINGS},
    ),
    "ends": Kind(
        (
            'End your answer with "{phrase}".',
            'Finish with the words "{phrase}".',
            'The last words of the answer must be "{phrase}".',
        ),
        ends,
        {"phrase": CLOSINGS},
    ),
    "no-comma": Kind(
        ("Do not use any commas.", "Write without commas.", "Your answer must not contain a single comma."),
        no_comma,
        {},
    ),
    "quotation": Kind(
        (
            "Put at least one word in double quotation marks.",
            'Include something in double quotes, like "this".',
            "Quote somebody, in double quotation marks.",
        ),
        quotation,
        {},
    ),
    "question": Kind(
        ("Ask the reader a question.", "Your answer must contain a question.", "Include one question in the answer."),
        question,
        {},
    ),
    "one-sentence": Kind(
        ("Answer in exactly one sentence.", "Write a single sentence.", "Use only one sentence, no more."),
        one_sentence,
        {},
    ),
    "last-mark": Kind(
        (
            "End with a {mark}.",
            "The last character of your answer must be a {mark}.",
            "The answer must finish with a {mark}.",
        ),
        last_mark,
        {"mark": tuple(MARKS)},
    ),
    "digits": Kind(
        ("Mention a number, in digits.", "Use at least one digit.", "Give a figure, such as 7 or 1990."),
        digits,
        {},
    ),
}
