"""Training and evaluation from Python: the functions that the commands of `rmo-train` call, with typed results.

`import rmo_train` provides these names; torch is loaded when one of them is called. A path may be text, a Path, or an
object that stands for a folder (a Run or Shards of `rmo_curate`). A user's mistake raises UserError, a failure during
the work ProcessingError. Progress and notes go to standard error, nothing to standard output.
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
    """Settings of training, and what the model may do."""


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
    """Train `model` on the kept pairs of `shards` and write it to the folder `out`, like `rmo-train run`.

    shards: a shard folder. model: a folder, a Hub name or smollm2-135m. eval_data: a run or shard folder with held-out
    pairs of other prompts. The same call resumes an interrupted run, and does nothing after a finished one;
    `overwrite` replaces `out`. `ignore_identity`: train a model other than the one that scored the pairs.

    Returns the result: folder, pairs, steps, the last step's metrics, and the evaluation on `eval_data`.
    UserError: shards, model or settings that do not fit together. ProcessingError: out of memory, a full disk.
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
    """Measure how often `model` prefers the chosen answer of held-out pairs, with 95% intervals, like `rmo-train eval`.

    data: a run or shard folder; rewards are relative to its reference log-probs (nats). out: JSON file for the results.
    dtype `auto`: the precision of the references. tokens_per_batch: tokens per packed row. `ignore_identity`: accept
    another tokenizer or chat template. `allow_pickle`, `trust_remote_code`: load weights from pickle files; run the
    code that comes with the model.

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
    """Tell whether model b is better than model a: paired differences in accuracy, with 95% intervals and verdicts.

    a, b: evaluations of the same pairs, or their JSON files. UserError if the pairs are not the same.
    """
    from rmo_train.evaluation.comparison import compare as compared
    from rmo_train.evaluation.result import Evaluation, read_evaluation

    def read(given: Evaluation | AnyPath) -> Evaluation:
        return given if isinstance(given, Evaluation) else read_evaluation(Path(given))

    def named(given: Evaluation | AnyPath, letter: str) -> str:
        return letter if isinstance(given, Evaluation) else os.fspath(given)

    with in_keywords():
        return compared(read(a), read(b), (named(a, "a"), named(b, "b")))
