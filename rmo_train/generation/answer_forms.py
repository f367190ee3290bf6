"""The forms in which benchmarks store prompts and answers.

- AlpacaEval (github.com/tatsu-lab/alpaca_eval, README, "model_outputs"): a JSON list of {instruction, output,
  generator, dataset}. Answers are joined to the reference's by `instruction`; all records of an instruction are used.
- Arena-Hard v2 (github.com/lmarena/arena-hard-auto, data/arena-hard-v2.0 and src/arenahard/gen_answer.py): prompts are
  lines of {uid, category, subcategory, language, prompt}. Answers are lines of {uid, ans_id, model, messages, tstamp},
  whose last message is {role: assistant, content: {answer}}. They are looked up by `uid`: one answer per prompt.
- MT-Bench (github.com/lm-sys/FastChat, fastchat/llm_judge/gen_model_answer.py): prompts are lines of {question_id,
  category, turns}. Answers are lines of {question_id, answer_id, model_id, choices, tstamp}, and a choice is {index,
  turns}.
- IFEval (github.com/google-research/google-research, instruction_following_eval/evaluation_lib.py): prompts are lines
  of {key, prompt, instruction_id_list, kwargs}. Answers are lines of {prompt, response}. They are looked up by
  `prompt`: one answer per prompt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rmo_train.console.errors import UserError
from rmo_train.generation.prompts import Prompt
from rmo_train.store.files import sha256_text, write_bytes, write_json

AnswerForm = Literal["auto", "alpaca-eval", "arena-hard", "mt-bench", "ifeval"]  # auto: the form of the prompts


@dataclass(frozen=True)
class Answer:
    """A model's answer to a prompt: one text per turn, without special tokens."""

    turns: tuple[str, ...]
    finished: bool = True  # False: a turn was cut at --max-new-tokens


@dataclass(frozen=True)
class Stored:
    """One record of a file of answers."""

    key: Hashable  # identifies its prompt
    question: tuple[str, ...] | None  # the user's messages; None if the form does not store them
    answers: tuple[tuple[str, ...], ...]  # one text per turn
    generator: str | None


@dataclass(frozen=True)
class Form:
    """How a benchmark stores its prompts and a model's answers."""

    title: str
    markers: tuple[str, ...]  # fields that identify its prompts
    lines: bool  # answers are JSON lines, not a list
    several: bool  # it can store several answers to a prompt
    turns: bool  # it can store answers of several turns
    key: str  # the prompt's field by which answers are looked up
    write: Callable[[Prompt, Sequence[Answer], str], list[dict[str, Any]]]
    is_answer: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], Stored]

    def fits(self, prompt: Prompt) -> bool:
        return all(name in prompt.record for name in self.markers)

    def key_of(self, prompt: Prompt) -> Hashable:
        """The key that joins an answer to `prompt`; a UserError if the prompt lacks it."""
        if self.key in ("instruction", "prompt"):
            return prompt.text
        if self.key not in prompt.record:
            raise UserError(
                f"{prompt.where}: no field `{self.key}`, by which {self.title} looks up answers; add one, or choose "
                "another format with --to"
            )
        return prompt.record[self.key]


# ---------------------------------------------------------------------------------------------------- the forms


def _to_alpaca_eval(prompt: Prompt, answers: Sequence[Answer], generator: str) -> list[dict[str, Any]]:
    record = {"instruction": prompt.text}
    about = {"generator": generator} if prompt.dataset is None else {"generator": generator, "dataset": prompt.dataset}
    return [record | {"output": answer.turns[0]} | about for answer in answers]


def _to_arena_hard(prompt: Prompt, answers: Sequence[Answer], generator: str) -> list[dict[str, Any]]:
    (text,) = answers[0].turns
    return [
        {
            "uid": prompt.record["uid"],
            "ans_id": _answer_id(prompt, answers, generator),
            "model": generator,
            "messages": [*prompt.messages, {"role": "assistant", "content": {"answer": text}}],
            "tstamp": time.time(),
        }
    ]


def _to_mt_bench(prompt: Prompt, answers: Sequence[Answer], generator: str) -> list[dict[str, Any]]:
    return [
        {
            "question_id": prompt.record["question_id"],
            "answer_id": _answer_id(prompt, answers, generator),
            "model_id": generator,
            "choices": [{"index": i, "turns": list(answer.turns)} for i, answer in enumerate(answers)],
            "tstamp": time.time(),
        }
    ]


def _to_ifeval(prompt: Prompt, answers: Sequence[Answer], generator: str) -> list[dict[str, Any]]:
    (text,) = answers[0].turns
    return [{"prompt": prompt.text, "response": text}]


def _answer_id(prompt: Prompt, answers: Sequence[Answer], generator: str) -> str:
    return sha256_text(json.dumps([prompt.content, [a.turns for a in answers], generator]))[:22]


def _of_alpaca_eval(record: Mapping[str, Any]) -> Stored:
    instruction = record["instruction"]
    return Stored(instruction, (instruction,), ((record["output"],),), record.get("generator"))


def _of_arena_hard(record: Mapping[str, Any]) -> Stored:
    *asked, last = record["messages"]
    content = last["content"]
    answer = content["answer"] if isinstance(content, dict) else content
    question = tuple(m["content"] for m in asked if m["role"] == "user")
    return Stored(record["uid"], question, ((answer,),), record.get("model"))


def _of_mt_bench(record: Mapping[str, Any]) -> Stored:
    answers = tuple(tuple(choice["turns"]) for choice in record["choices"])
    return Stored(record["question_id"], None, answers, record.get("model_id"))


def _of_ifeval(record: Mapping[str, Any]) -> Stored:
    return Stored(record["prompt"], (record["prompt"],), ((record["response"],),), None)


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda record: all(name in record for name in names)


FORMS: dict[str, Form] = {
    "alpaca-eval": Form(
        "AlpacaEval", ("instruction",), lines=False, several=True, turns=False, key="instruction",
        write=_to_alpaca_eval, is_answer=_has("instruction", "output"), read=_of_alpaca_eval,
    ),
    "arena-hard": Form(
        "Arena-Hard v2", ("uid", "prompt"), lines=True, several=False, turns=False, key="uid",
        write=_to_arena_hard, is_answer=_has("uid", "messages"), read=_of_arena_hard,
    ),
    "mt-bench": Form(
        "MT-Bench", ("question_id", "turns"), lines=True, several=True, turns=True, key="question_id",
        write=_to_mt_bench, is_answer=_has("question_id", "choices"), read=_of_mt_bench,
    ),
    "ifeval": Form(
        "IFEval", ("prompt", "instruction_id_list"), lines=True, several=False, turns=False, key="prompt",
        write=_to_ifeval, is_answer=_has("prompt", "response"), read=_of_ifeval,
    ),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- choosing


def recognised(prompts: Sequence[Prompt]) -> str | None:
    """The form of the prompts; None if they have none, a UserError if they have several."""
    where: dict[str, str] = {}
    for prompt in prompts:
        for name, form in FORMS.items():
            if form.fits(prompt):
                where.setdefault(name, prompt.where)
    if len(where) > 1:
        several = ", ".join(f"{name} ({prompt})" for name, prompt in where.items())
        raise UserError(f"the prompts fit several formats: {several}; choose the format of the answers with --to")
    return next(iter(where), None)


def check_fits(name: str, prompts: Sequence[Prompt], samples: int) -> None:
    """Refuse prompts and samples that the form `name` cannot store, before anything is generated."""
    form = FORMS[name]
    if samples > 1 and not form.several:
        others = " or ".join(f"--to {other}" for other, f in FORMS.items() if f.several)
        raise UserError(
            f"--samples {samples}: {form.title} looks up answers by `{form.key}`, so it has one answer per prompt; "
            f"expected --samples 1, or {others}"
        )
    seen: dict[Hashable, str] = {}
    for prompt in prompts:
        key = form.key_of(prompt)
        if not form.turns and prompt.later:
            raise UserError(
                f"{prompt.where}: {1 + len(prompt.later)} turns, but answers for {form.title} have one; expected "
                "--to mt-bench, or prompts of one turn"
            )
        if form.lines and key in seen:
            raise UserError(
                f"{prompt.where}: the same `{form.key}` as {seen[key]}; {form.title} looks up answers by it, so it "
                "would find only one of the two; make them differ, or leave one out"
            )
        seen[key] = prompt.where


# ---------------------------------------------------------------------------------------------------- files


def write_answers(
    path: Path, name: str, prompts: Sequence[Prompt], answers: Sequence[Sequence[Answer]], generator: str
) -> None:
    """Write all prompts' answers in the form `name`, atomically."""
    form = FORMS[name]
    records = [r for p, of in zip(prompts, answers, strict=True) for r in form.write(p, of, generator)]
    if form.lines:
        write_bytes(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode())
    else:
        write_json(path, records)
