"""Two files of answers, paired by prompt: every form that `rmo_train.generation.answer_forms` knows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo_train.console.errors import UserError, misfit
from rmo_train.console.wording import counted
from rmo_train.generation.answer_forms import FORMS, Stored
from rmo_train.generation.prompts import Prompt, json_records

Text = tuple[str, ...]  # an answer or a question: one text per turn


@dataclass(frozen=True)
class AnswerFile:
    """A model's answers, in the order of the file."""

    path: Path
    form: str
    generator: str  # the file's name if the form does not name a model
    answers: Mapping[Hashable, tuple[Text, ...]]  # by the key of their prompt
    questions: Mapping[Hashable, Text | None]


@dataclass(frozen=True)
class Pairing:
    """Both models' answers to one prompt."""

    key: Hashable
    prompt: Prompt | None  # its record in the prompts file, if given
    question: Text | None  # the user's messages; None if neither the answers nor the prompts have them
    a: tuple[Text, ...]
    b: tuple[Text, ...]


def read_answers(path: Path) -> AnswerFile:
    """The answers of a file; a UserError at the first record that is not an answer, or not in the form of the first."""
    form: str | None = None
    answers: dict[Hashable, tuple[Text, ...]] = {}
    questions: dict[Hashable, Text | None] = {}
    generator: str | None = None
    for where, record in json_records(path):
        form = form or _form_of(where, record)
        stored = _stored(where, record, form)
        if stored.key in answers and (FORMS[form].lines or not FORMS[form].several):
            raise UserError(f"{where}: a second record with `{FORMS[form].key}` {stored.key!r:.60}; expected only one")
        answers[stored.key] = answers.get(stored.key, ()) + stored.answers
        questions[stored.key] = stored.question
        generator = generator or stored.generator
    if form is None:
        raise UserError(f"{path}: the file has no answers; expected one that `rmo-train generate` wrote")
    return AnswerFile(path, form, generator or path.stem, answers, questions)


def _form_of(where: str, record: object) -> str:
    fitting = [name for name, form in FORMS.items() if isinstance(record, dict) and form.is_answer(record)]
    if len(fitting) == 1:
        return fitting[0]
    fields = ", ".join(record) if isinstance(record, dict) else type(record).__name__
    titles = ", ".join(form.title for form in FORMS.values())
    raise UserError(f"{where}: fields {fields or 'none'}; expected an answer in the format of {titles}")


def _stored(where: str, record: object, form: str) -> Stored:
    if not (isinstance(record, dict) and FORMS[form].is_answer(record)):
        raise UserError(f"{where}: not an answer in {FORMS[form].title}'s format, unlike the first one of the file")
    try:
        stored = FORMS[form].read(record)
        hash(stored.key)
    except (KeyError, TypeError, ValueError, IndexError) as e:
        raise UserError(f"{where}: damaged ({misfit(e)}); expected {FORMS[form].title}'s format") from e
    texts = [text for turns in (stored.question or (), *stored.answers) for text in turns]
    if not stored.answers or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: a question or an answer is not text; expected {FORMS[form].title}'s format")
    return stored


def pair(a: AnswerFile, b: AnswerFile, prompts: Sequence[Prompt] | None) -> list[Pairing]:
    """The answers of both files to each prompt, in A's order; a UserError if their prompts differ."""
    if a.form != b.form:
        raise UserError(
            f"{a.path} is in {FORMS[a.form].title}'s format, {b.path} in {FORMS[b.form].title}'s; expected the same "
            "format: generate both with the same --to"
        )
    form = FORMS[a.form]
    for one, other in ((a, b), (b, a)):
        missing = [key for key in one.answers if key not in other.answers]
        if missing:
            raise UserError(
                f"{one.path} answers {counted(len(missing), 'prompt')} that {other.path} does not; the first "
                f"has `{form.key}` {missing[0]!r:.60}; expected answers to the same prompts"
            )
    records = {form.key_of(p): p for p in prompts or ()}
    if prompts is not None:
        unknown = [key for key in a.answers if key not in records]
        if unknown:
            raise UserError(
                f"{a.path}: {counted(len(unknown), 'prompt')} not found in --prompts; the first has `{form.key}` "
                f"{unknown[0]!r:.60}; expected the file that the answers were generated from"
            )
    return [
        Pairing(key, records.get(key), _question(key, a, records), a.answers[key], b.answers[key]) for key in a.answers
    ]


def _question(key: Hashable, a: AnswerFile, records: Mapping[Hashable, Prompt]) -> Text | None:
    prompt = records.get(key)
    return (prompt.text, *prompt.later) if prompt else a.questions[key]
