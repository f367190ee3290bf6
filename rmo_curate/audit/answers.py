"""Checks of one answer by itself: each takes the text and says in words what is wrong, or nothing.

The words complete "The chosen answer …". Patterns are English where they are words; each page in docs/findings says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

MOST_WORDS_SHOWN = 60  # characters of the text quoted in a sentence

# ---------------------------------------------------------------------------------------------------- cut short

ENDS_WELL = set(".!?…\"'”’»)]}>`*_~|;=。！？」』）/\\%€$°")
ENDS_OPEN = set(",([{–—-:&+")
SHORT = 120  # characters; a shorter answer may be a name, a number, a title
FULL_LINE = 60  # characters of a last line that is a sentence and not an item
FENCE = re.compile(r"^[^\S\n]*```", re.M)  # over line ends, it would look at every blank line from every one before it
RULE = re.compile(r"[-*_=\s]+")  # a line across the page
# Ends without a stop: a quotation's author, a hashtag, the name below a letter, the result of an equation.
UNSTOPPED_END = re.compile(
    r"(?:[\"”'*_] ?[-–—~] ?[^.!?]{2,60}|#\w+|= ?[-+]?[\d.,]+"
    r"|\b(?i:regards|wishes|sincerely|truly|faithfully|yours|love|cheers|thanks|best),? (?:[A-Z]\w*\.? ?){1,3})$"
)
UNSTOPPED, LAST_LINES = 2, 1000  # of the last lines, so many end without a stop: then that is how this text writes
ITEM = re.compile(r"\s*(?:[-*•·–]|\d+[.)]|[A-Za-z][.)]|#+|\|)")


def truncated(text: str) -> str:
    text = text.rstrip()
    if len(FENCE.findall(text)) % 2:
        return "opens a code block that it does not close"
    if len(text) < SHORT or text[-1] in ENDS_WELL:
        return ""
    *before, line = text.rsplit("\n", LAST_LINES + 1)
    if RULE.fullmatch(line):
        return ""
    if text[-1] in ENDS_OPEN:
        return f"stops in the middle, at {quoted(line[-30:])}"
    item_or_address = ITEM.match(line) or "://" in line
    if not text[-1].isalnum() or len(line) < FULL_LINE or item_or_address or UNSTOPPED_END.search(line):
        return ""
    unstopped = (len(other) >= FULL_LINE and other.rstrip()[-1:].isalnum() for other in before[-LAST_LINES:])
    if sum(unstopped) >= UNSTOPPED:
        return ""
    return f"stops in the middle of a sentence, at {quoted(line[-30:])}"


# ---------------------------------------------------------------------------------------------------- refusals

REFUSAL = re.compile(
    r"(?:sorry|apologi[sz]e)[,.;]? (?:but|that is not"
    r"|i (?:can(?:not|'?t| not)|am (?:not|just|only|an?)|do(?:n't| not))\b)"
    r"|\bi(?:'m| am) (?:really |very |so |truly )?(?:unable|not able|not allowed|not comfortable)\b"
    r"|\bi (?:can ?not|can't|won't|will not|could not|couldn't|shouldn't) (?:\w+ ){0,2}?"
    r"(?:help|assist|provide|answer|fulfil|fulfill|comply|do that|support|engage|create|generate|write|discuss|offer"
    r"|share|recommend|condone|encourage|give|tell you|say)\b"
    r"|\bi (?:do not|don't) (?:think (?:it(?:'s| is) a good idea|i should)|feel comfortable"
    r"|want to (?:help|encourage))",
    re.I,
)
BEGINNING = 250  # characters in which a refusal comes
# A text without any of these matches nothing, as below for the marks of a template: they are looked for first.
REFUSAL_HINTS = ("sorry", "apologi", "unable", " not", "cannot", "n't")


def refusal(text: str) -> str:
    beginning = text[:BEGINNING].replace("’", "'")
    lower = beginning.lower()
    if not any(hint in lower for hint in REFUSAL_HINTS):
        return ""
    match = REFUSAL.search(beginning)
    return f"refuses ({quoted(match.group())})" if match else ""


BOILERPLATE = re.compile(
    r"\bas an? (?:ai|artificial intelligence|large language|language)\b[ \w-]{0,20}(?:model|assistant)?"
    r"|\bi hope (?:this|that) (?:helps|was helpful)|\blet me know if (?:you (?:have|need)|there)"
    r"|\b(?:please )?(?:feel free|don't hesitate) to (?:ask|reach|contact|let)|\bis there anything else"
    r"|\b(?:knowledge|training) (?:cut-?off|data (?:only )?goes)",
    re.I,
)


# A text without any of these words matches nothing: looking for them first takes a fifth of the time.
BOILERPLATE_HINTS = ("as a", "hope th", "let me know", "feel free", "hesitate", "anything else", "cut", "data")


def boilerplate(text: str) -> str:
    lower = text.lower()
    if not any(hint in lower for hint in BOILERPLATE_HINTS):
        return ""
    match = BOILERPLATE.search(text.replace("’", "'"))
    return f"has a stock phrase ({quoted(match.group())})" if match else ""


# ---------------------------------------------------------------------------------------------------- loops

LOOP_WORDS = 50
MOST_WORDS = MOST_LINES = 20_000  # looked at: of a longer text the first, since any text repeats more as it goes on
LOOP_DISTINCT = 0.4  # least share of distinct three-word sequences
LOOP_LINES, LOOP_LINE = 4, 20  # times that a line of at least so many letters and digits occurs


def repetitive(text: str) -> str:
    words = text.split(maxsplit=MOST_WORDS)[:MOST_WORDS]
    if len(words) < LOOP_WORDS:
        return ""
    distinct_words = set(words)
    # With words nearly all distinct, so are all sequences.
    if len(distinct_words) < 0.75 * len(words) and distinct_share(words) < LOOP_DISTINCT:
        bars = {word for word in distinct_words if not any(map(str.isalnum, word))}  # of a table: they do not count
        words = [word for word in words if word not in bars]
        if len(words) >= LOOP_WORDS and (distinct := distinct_share(words)) < LOOP_DISTINCT:
            return f"repeats itself: {100 * (1 - distinct):.0f}% of its three-word sequences are repeats"
    lines = [line.strip() for line in text.split("\n", MOST_LINES)[:MOST_LINES] if len(line) >= LOOP_LINE]
    if len(lines) - len(set(lines)) >= LOOP_LINES - 1:
        often = {line: n for line, n in Counter(lines).items() if n >= LOOP_LINES}
        often = {line: n for line, n in often.items() if sum(map(str.isalnum, line)) >= LOOP_LINE}
        if often:
            most = max(often, key=lambda line: (often[line], line))
            return f"repeats the line {quoted(most)} {often[most]} times"
    return ""


def distinct_share(words: list[str]) -> float:
    """Of the three-word sequences of `words`, the share that is distinct."""
    return len(set(zip(words, words[1:], words[2:], strict=False))) / max(1, len(words) - 2)


# ---------------------------------------------------------------------------------------------------- characters

DAMAGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]|Ã[\x80-\xbf\u0192\u201a]|Â[\xa0-\xbf]|â€|ï»¿|ðŸ")
MARKER = re.compile(
    r"<\|[a-z0-9_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</s>|<(?:start|end)_of_turn>|<(?:eos|pad|unk|bos)>"
    r"|^[ \t]*(?:#{1,4} ?)?(?:Human|Assistant|Instruction|Response|### ?(?:Input|User))[ \t]*:[ \t]*",
    re.M,
)


CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def encoding(text: str) -> str:
    match = (CONTROL if text.isascii() else DAMAGE).search(text)
    if not match:
        return ""
    named = {"\ufffd": "a replacement character"}.get(match.group(), "")
    if not named and len(match.group()) == 1:
        named = f"the control character U+{ord(match.group()):04X}"
    return f"has {named or 'wrongly decoded characters, ' + quoted(match.group())}"


MARKER_HINTS = (
    *("<|", "INST]", "SYS>>", "</s>", "_of_turn>", "<eos>", "<pad>", "<unk>", "<bos>"),
    *("Human", "Assistant", "Instruction", "Response", "Input", "User"),
)


def template_marker(text: str) -> str:
    if not any(hint in text for hint in MARKER_HINTS):
        return ""
    match = MARKER.search(text)
    return f"has a chat template marker in its text, {quoted(match.group())}" if match else ""


# ---------------------------------------------------------------------------------------------------- scripts

SCRIPTS = {
    "Latin": "A-Za-zÀ-ɏ",
    "Greek": "Ͱ-Ͽ",
    "Cyrillic": "Ѐ-ӿ",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
    "Chinese or Japanese": "\u3040-\u30ff\u4e00-\u9fff",
    "Korean": "\uac00-\ud7af",
}
SCRIPT = re.compile("|".join(f"([{letters}])" for letters in SCRIPTS.values()))
SCRIPT_NAMES = tuple(SCRIPTS)
SAMPLE = 2000  # characters looked at


def script(text: str) -> str:
    """The writing system of most of its letters; empty where there are none that are known."""
    text = text[:SAMPLE]
    if text.isascii():
        return "Latin" if any(c.isalpha() for c in text) else ""
    counts = [0] * len(SCRIPT_NAMES)
    for letter in SCRIPT.finditer(text):
        counts[(letter.lastindex or 1) - 1] += 1
    return SCRIPT_NAMES[counts.index(max(counts))] if any(counts) else ""


def quoted(text: str) -> str:
    """Up to MOST_WORDS_SHOWN characters of data in quotation marks, on one line."""
    line = " ".join(text.split())
    return f"“{line[:MOST_WORDS_SHOWN]}{'…' if len(line) > MOST_WORDS_SHOWN else ''}”"


# ---------------------------------------------------------------------------------------------------- all of them

Check = Callable[[str], str]
CHECKS: dict[str, Check] = {
    "repetitive": repetitive,
    "template_marker": template_marker,
    "encoding": encoding,
    "truncated": truncated,
    "refusal": refusal,
    "boilerplate": boilerplate,
}
