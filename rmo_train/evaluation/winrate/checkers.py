"""Constraints that a program verifies: IFEval's, by the library `if-verifiable` (extra `winrate`).

A prompt's constraints are its `instruction_id_list`, with the arguments of each in `kwargs` (Zhou et al. 2023, arXiv
2311.07911). An answer satisfies a prompt if it meets every one of them: strictly as it stands, or loosely, which also
tries it without its first line, without its last, and without asterisks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.evaluation.winrate.needs import needed
from rmo_train.generation.prompts import Prompt

# Checkers that count sentences or tokens with NLTK, whose model must be downloaded; no other data are needed.
NEED_PUNKT = ("length_constraints:number_sentences", "change_case:capital_word_frequency")


@dataclass(frozen=True)
class Met:
    """Which constraints of its prompt an answer meets, in their order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


class Checkers:
    """The checkers of some prompts, tested before the first answer is checked."""

    def __init__(self, prompts: Sequence[Prompt]):
        registry = needed("if_verifiable.ifeval.instructions_registry", "the constraint checkers")
        self.known: Mapping[str, Any] = registry.INSTRUCTION_DICT
        # Without a seed its results are random.
        needed("langdetect", "the constraint checkers").DetectorFactory.seed = 0
        for prompt in prompts:
            self._check(prompt)

    def met(self, prompt: Prompt, answer: str) -> Met:
        """Which constraints of `prompt` the answer meets; an empty answer meets none."""
        from if_verifiable.common import evaluate_instructions

        names, kwargs = constraints(prompt)
        try:
            results, _ = evaluate_instructions(answer, list(names), list(kwargs), prompt.text, dict(self.known))
        except Exception as e:  # of the library, on an answer that it did not foresee
            raise ProcessingError(
                f"{prompt.where}: a checker failed on {answer!r:.60} ({type(e).__name__}: {e}); leave out this prompt"
            ) from e
        if not results:
            return Met((False,) * len(names), (False,) * len(names))
        return Met(tuple(r.strict_pass for r in results), tuple(r.loose_pass for r in results))

    def _check(self, prompt: Prompt) -> None:
        names, kwargs = constraints(prompt)
        for name, arguments in zip(names, kwargs, strict=True):
            if name not in self.known:
                raise UserError(
                    f"{prompt.where}: no checker for the constraint {name!r}; expected one of IFEval's: "
                    f"{', '.join(sorted(self.known))}"
                )
            self._check_arguments(prompt, name, arguments)
            if name in NEED_PUNKT and not _has_punkt():
                raise UserError(
                    f"{prompt.where}: the checker of {name} needs NLTK's model punkt_tab, a separate download; "
                    "run `python -m nltk.downloader punkt_tab` once, or leave out such prompts"
                )

    def _check_arguments(self, prompt: Prompt, name: str, arguments: Mapping[str, Any]) -> None:
        """Require all arguments: a checker draws missing ones at random, which would be another constraint."""
        checker = self.known[name](name)
        try:
            checker.build_description(**arguments)
            taken = checker.get_instruction_args() or {}
        except Exception as e:  # of the library: a wrong name, type or value
            raise UserError(
                f"{prompt.where}: the arguments {dict(arguments)} do not fit the constraint {name}: {e}; correct its "
                "`kwargs`"
            ) from e
        missing = [argument for argument in taken if argument not in arguments]
        if missing:
            raise UserError(
                f"{prompt.where}: the constraint {name} has no {', '.join(missing)} in its `kwargs`; expected a value"
            )


def constraints(prompt: Prompt) -> tuple[tuple[str, ...], tuple[Mapping[str, Any], ...]]:
    """Names and arguments of the constraints of `prompt`, without the null arguments that Parquet adds."""
    names, kwargs = prompt.record.get("instruction_id_list"), prompt.record.get("kwargs")
    if not (isinstance(names, list) and names):
        raise UserError(
            f"{prompt.where}: no constraints; expected `instruction_id_list` and `kwargs`, as in IFEval's prompts, "
            "or a judge: --judge URL --judge-model NAME"
        )
    if not (isinstance(kwargs, list) and len(kwargs) == len(names) and all(isinstance(g, dict) for g in kwargs)):
        raise UserError(
            f"{prompt.where}: `kwargs` is {kwargs!r:.60}; expected an object for each of {len(names)} constraints"
        )
    return tuple(names), tuple({k: v for k, v in g.items() if v is not None} for g in kwargs)


def _has_punkt() -> bool:
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        return False
    return True
