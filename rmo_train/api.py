"""Training and evaluation from Python: the functions that the commands of `rmo-train` call, with typed results.

`import rmo_train` has these names; torch is loaded when one of them is called. Paths are given as text, as a Path or as
what stands for a folder (a run or shards of `rmo_curate`). A mistake raises UserError, what fails in the middle
ProcessingError. Progress and notes go to standard error, nothing to standard output.
"""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rmo_train.console.errors import ProcessingError, RmoError, UserError
from rmo_train.console.keywords import from_keywords, in_keywords, takes
from rmo_train.console.trust import Trust, TrustSettings, granting
from rmo_train.training.settings import TrainSettings

if TYPE_CHECKING:
    from rmo_train.evaluation.comparison import Comparison
    from rmo_train.evaluation.result import Evaluation
    from rmo_train.training.command import Trained

__all__ = ["ProcessingError", "RmoError", "UserError", "compare", "evaluate", "train"]

AnyPath = str | PathLike[str]


class TrainKeywords(TrainSettings, TrustSettings):
    """How a model is trained, and what it may do."""


@takes(TrainKeywords)
def train(
    shards: AnyPath,
    model: AnyPath,
    out: AnyPath,
    *,
    eval_data: AnyPath | None = None,
    resume_from_checkpoint: AnyPath | None = None,
    ignore_identity: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> Trained:
    """Train `model` on the kept pairs of `shards` into the folder `out`, as `rmo-train run` does.

    shards: a shard folder. model: a folder, a hub name or smollm2-135m. eval_data: a run or shard folder with held-out
    pairs, of other prompts. The same call again resumes an interrupted training, and trains nothing after a finished
    one; `overwrite` starts `out` afresh. `ignore_identity`: train though the model is not the scored one.

    Returns what it came to: folder, pairs, steps, the last step's metrics, and the evaluation on `eval_data`.
    UserError: shards, model or settings that do not fit together; ProcessingError: no memory, a full disk.
    """
    from rmo_train.training.command import run_training, trained_in

    chosen = from_keywords(TrainKeywords, settings, "train()")
    folder = Path(out)
    with chosen.in_force():
        run_training(
            Path(shards),
            os.fspath(model),
            folder,
            chosen.part(TrainSettings),
            eval_data=None if eval_data is None else Path(eval_data),
            resume_from_checkpoint=None if resume_from_checkpoint is None else Path(resume_from_checkpoint),
            ignore_identity=ignore_identity,
            overwrite=overwrite,
        )
    return trained_in(folder)


def evaluate(
    data: AnyPath,
    model: AnyPath,
    *,
    out: AnyPath | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    tokens_per_batch: int | None = None,
    ignore_identity: bool = False,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Evaluation:
    """How often `model` prefers the chosen answer of held-out pairs, with 95% intervals, as `rmo-train eval` has it.

    data: a run or shard folder, whose reference log-probs rewards are taken against (nats). out: JSON file for the
    numbers. dtype `auto`: as the references were scored. tokens_per_batch: tokens of one packed row. `ignore_identity`:
    accept another tokenizer or chat template. `allow_pickle`, `trust_remote_code`: load weights from pickle files, run
    the code that comes with the model.

    UserError: data without references, another tokenizer, pairs longer than the model's context.
    """
    from rmo_train.store.files import write_json
    from rmo_train.training.command import run_eval

    with in_keywords(), granting(Trust(allow_pickle, trust_remote_code)):
        result = run_eval(
            Path(data),
            os.fspath(model),
            dtype=dtype,
            tokens_per_batch=tokens_per_batch,
            ignore_identity=ignore_identity,
        )
        if out is not None:
            write_json(Path(out), result.as_json())
    return result


def compare(a: Evaluation | AnyPath, b: Evaluation | AnyPath) -> Comparison:
    """Whether model b is better than model a: paired differences of accuracy with 95% intervals and verdicts.

    a, b: evaluations of the same pairs, or the JSON files of such. UserError where the pairs are not the same.
    """
    from rmo_train.evaluation.comparison import compare as compared
    from rmo_train.evaluation.result import Evaluation, read_evaluation

    def read(given: Evaluation | AnyPath) -> Evaluation:
        return given if isinstance(given, Evaluation) else read_evaluation(Path(given))

    def named(given: Evaluation | AnyPath, letter: str) -> str:
        return letter if isinstance(given, Evaluation) else os.fspath(given)

    with in_keywords():
        return compared(read(a), read(b), (named(a, "a"), named(b, "b")))
