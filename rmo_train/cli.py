"""The command line of rmo-train: train, evaluate, compare, generate, win rates and merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field

from rmo_train.console.command_line import command_line
from rmo_train.console.progress import is_first
from rmo_train.console.settings import Sections, flags, from_recipe, is_awaited, run_app
from rmo_train.console.trust import TrustSettings
from rmo_train.console.version import Version
from rmo_train.evaluation.winrate.judge import JudgeSettings
from rmo_train.generation.answer_forms import AnswerForm
from rmo_train.generation.command import GenerationSettings, run_generation
from rmo_train.report import comparison_lines, evaluation_lines, held_out_lines, next_lines, rates_lines
from rmo_train.training.settings import TrainCommand, TrainSettings

app = command_line("rmo-train")

Dtype = Literal["auto", "float32", "bfloat16"]


@app.callback()
def rmo_train(version: Version = False) -> None:
    """Train on curated preference shards, and measure the result."""


@app.command()
@flags(TrainCommand, "train")
def run(
    settings: TrainCommand,
    recipe: Sections,
    resume_from_checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint to resume from (default: the newest one in --out)")
    ] = None,
    ignore_identity: Annotated[
        bool, typer.Option("--ignore-identity", help="Train even if --model is not the model that scored the pairs")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete --out and train again from the start")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop")] = False,
) -> None:
    """Train a model on preference pairs, with DPO or another loss. Run it again to resume."""
    from rmo_train.next_command import after_run
    from rmo_train.training.command import run_training

    shards = settings.shards
    if dry_run and is_awaited(shards, recipe, "filter.out"):
        typer.echo(f"{shards} does not exist yet; the plan is known once it does")
        return
    lines = run_training(
        shards,
        settings.model,
        settings.out,
        settings.part(TrainSettings),
        eval_data=settings.eval_data,
        resume_from_checkpoint=resume_from_checkpoint,
        ignore_identity=ignore_identity,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    if not dry_run and is_first():
        lines += next_lines(after_run(settings, recipe)) or held_out_lines(settings.model, settings.out)
    typer.echo("\n".join(lines))


class EvalCommand(TrustSettings):
    """`rmo-train eval`."""

    data: Path = from_recipe("eval.run", description="Scored pairs: a run or shard folder", argument="DATA")
    model: str = from_recipe("train.out", description="Model to evaluate: a folder, a Hub name or smollm2-135m")
    out: Path | None = Field(None, description="JSON file to write the results to")
    dtype: Dtype = Field("auto", description="Precision; auto: that of the reference log-probs")
    tokens_per_batch: int | None = Field(
        None, ge=16, description="Tokens per packed row (default: depends on the device)"
    )


@app.command("eval")
@flags(EvalCommand)
def evaluate(
    settings: EvalCommand,
    ignore_identity: Annotated[
        bool,
        typer.Option(
            "--ignore-identity",
            help="Evaluate even if the model's tokenizer or chat template is not the one the pairs were scored with",
        ),
    ] = False,
) -> None:
    """Measure a model's accuracy on held-out pairs, plain and length-matched, with 95% intervals."""
    from rmo_train.next_command import after_eval
    from rmo_train.store.files import check_can_be_written, write_json
    from rmo_train.training.command import run_eval

    if settings.out:
        check_can_be_written(settings.out)
    result = run_eval(
        settings.data,
        settings.model,
        dtype=settings.dtype,
        tokens_per_batch=settings.tokens_per_batch,
        ignore_identity=ignore_identity,
    )
    if settings.out:
        write_json(settings.out, result.as_json())
    following = next_lines(after_eval(settings.data, settings.model, settings.out))
    typer.echo("\n".join([*evaluation_lines(result), *following]))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Results of model A, written by `eval --out`")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Results of model B on the same pairs")],
    json: Annotated[Path | None, typer.Option(help="JSON file to write the comparison to")] = None,
) -> None:
    """Tell whether model B is better than model A: paired differences in accuracy, with 95% intervals."""
    from rmo_train.evaluation.comparison import compare as compared
    from rmo_train.evaluation.result import read_evaluation
    from rmo_train.store.files import write_json

    comparison = compared(read_evaluation(a), read_evaluation(b), (str(a), str(b)))
    if json:
        write_json(json, comparison.as_json())
    typer.echo("\n".join([f"A: {a}", f"B: {b}", *comparison_lines(comparison)]))


@app.command()
@flags(GenerationSettings)
def generate(
    settings: GenerationSettings,
    prompts: Annotated[
        Path,
        typer.Argument(metavar="PROMPTS", help="Prompts: JSON lines, a JSON list, Parquet, or a run or shard folder"),
    ],
    model: Annotated[str, typer.Option(help="Model that answers: a folder, a Hub name or smollm2-135m")],
    out: Annotated[Path, typer.Option(help="JSON file to write the answers to")],
    to: Annotated[
        AnswerForm,
        typer.Option(help="Benchmark whose file format to write (auto: that of the prompts, else alpaca-eval)"),
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite --out")] = False,
) -> None:
    """Generate answers to prompts, in the file format of AlpacaEval, Arena-Hard v2, MT-Bench or IFEval."""
    from rmo_train.next_command import after_generate

    lines = run_generation(model, prompts, out, settings, to=to, overwrite=overwrite)
    typer.echo("\n".join([*lines, *next_lines(after_generate(prompts, model, out, to, settings))]))


@app.command()
@flags(JudgeSettings)
def winrate(
    settings: JudgeSettings,
    a: Annotated[Path, typer.Argument(metavar="A", help="Answers of model A, written by `generate`")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Answers of model B to the same prompts, in the same format")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="IFEval prompts, whose constraints are then checked by code; with --judge: the prompts that the files "
            "answer"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write the win rates and each prompt's result to")
    ] = None,
) -> None:
    """Measure how often A's answers beat B's: by checking constraints (--prompts) or by asking a judge (--judge)."""
    from rmo_train.evaluation.winrate.command import run_winrate

    rates, failure = run_winrate(a, b, prompts, out, settings)
    typer.echo("\n".join(rates_lines(rates)))
    if failure:
        raise failure


@app.command()
@flags(TrustSettings)
def merge(
    settings: TrustSettings,
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of the LoRA adapter")],
    out: Annotated[Path, typer.Option(help="Folder for the merged model")],
    dtype: Annotated[Dtype, typer.Option(help="Precision; auto: that of the base model's stored weights")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite the model in --out")] = False,
) -> None:
    """Merge a LoRA adapter into its base model and write a plain model folder."""
    from rmo_train.model.merging import merge_adapter

    typer.echo("\n".join(merge_adapter(adapter, out, dtype, overwrite=overwrite)))


def main() -> None:
    run_app(app)


if __name__ == "__main__":
    main()
