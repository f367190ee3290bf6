"""One run of `rmo-train winrate`: read, check or judge, write."""

from __future__ import annotations

from pathlib import Path

from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.console.progress import progress, say
from rmo_train.console.wording import counted
from rmo_train.evaluation.winrate.answers import AnswerFile, Pairing, pair, read_answers
from rmo_train.evaluation.winrate.checkers import Checkers, Met
from rmo_train.evaluation.winrate.endpoint import base_of
from rmo_train.evaluation.winrate.judge import JudgeSettings, check_settings, judge_pairs
from rmo_train.evaluation.winrate.judgements import Judgements
from rmo_train.evaluation.winrate.results import JudgedRates, Rates, as_json, of_checks, of_verdicts
from rmo_train.generation.prompts import Prompt, read_prompts
from rmo_train.store.files import write_json


def run_winrate(
    a: Path, b: Path, prompts: Path | None, out: Path | None, settings: JudgeSettings
) -> tuple[Rates, ProcessingError | None]:
    """A's win rate over B, written to `out` if given, and the error if the judge failed."""
    judged = bool(settings.judge or settings.judge_model)
    if not judged and prompts is None:
        raise UserError(
            "no way to compare the answers is given; expected --prompts FILE with IFEval's constraints, or a judge: "
            "--judge URL --judge-model NAME"
        )
    if judged and out is None:
        raise UserError(
            "--judge needs --out JSON: verdicts are stored beside that file, so that each is requested only once"
        )
    _check_out(out, (a, b, *([prompts] if prompts else [])))
    questions = read_prompts(prompts) if prompts else None
    files = read_answers(a), read_answers(b)
    pairings = pair(*files, questions)
    if questions and len(pairings) < len(questions):
        say(
            f"{len(questions) - len(pairings):,} of {counted(len(questions), 'prompt')} in {prompts} left out: "
            "not answered"
        )
    if judged:
        assert out is not None
        rates, failure = _judged(files, pairings, settings, out)
    else:
        rates, failure = _checked(files, pairings), None
    if out:
        write_json(out, as_json(rates))
    return rates, failure


def _check_out(out: Path | None, inputs: tuple[Path, ...]) -> None:
    if out is None:
        return
    if out.is_dir():
        raise UserError(f"--out {out}: this is a folder; expected the name of a JSON file")
    if any(path.exists() and out.exists() and path.samefile(out) for path in inputs):
        raise UserError(f"--out {out}: this is one of the input files; give another name")


def _checked(files: tuple[AnswerFile, AnswerFile], pairings: list[Pairing]) -> Rates:
    prompts = [p.prompt for p in pairings if p.prompt]
    checkers = Checkers(prompts)
    total = sum(len(p.a) + len(p.b) for p in pairings)
    with progress("check", total, "answer") as bar:

        def met(prompt: Prompt, answers: tuple[tuple[str, ...], ...]) -> list[Met]:
            bar.advance(len(answers))
            return [checkers.met(prompt, answer[0]) for answer in answers]

        of_a = [met(prompt, p.a) for prompt, p in zip(prompts, pairings, strict=True)]
        of_b = [met(prompt, p.b) for prompt, p in zip(prompts, pairings, strict=True)]
    return of_checks(files[0].generator, files[1].generator, pairings, of_a, of_b)


def _judged(
    files: tuple[AnswerFile, AnswerFile], pairings: list[Pairing], settings: JudgeSettings, out: Path
) -> tuple[Rates, ProcessingError | None]:
    check_settings(settings, pairings)
    url = base_of(str(settings.judge))
    kept = Judgements(out.with_name(f"{out.name}.judgements.jsonl"))
    judged, reason = judge_pairs(pairings, settings, kept)
    rates = of_verdicts(files[0].generator, files[1].generator, url, str(settings.judge_model), judged)
    return rates, _failure(rates, reason, kept)


def _failure(rates: JudgedRates, reason: str | None, kept: Judgements) -> ProcessingError | None:
    if rates.failed:
        return ProcessingError(
            f"the judge did not reply to {rates.failed:,} of {counted(2 * rates.pairs, 'request')} (first: {reason}). "
            f"The other verdicts are stored in {kept.path}: run the same command again to request the rest"
        )
    if rates.win_rate is None:
        ends = next((reply.strip()[-60:] for reply in kept.replies.values()), "")
        return ProcessingError(
            f"no pair of answers has both verdicts; expected A, B or tie on the last line of a reply, found one "
            f"that ends with {ends!r}: use a judge that follows instructions, or raise --judge-tokens"
        )
    return None
