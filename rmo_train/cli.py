"""The command line of rmo-train: train, evaluate, compare, generate, win rates and merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field

from rmo_train.console.settings import Sections, Settings, flags, from_recipe, is_awaited, run_app
from rmo_train.evaluation.winrate.judge import JudgeSettings
from rmo_train.generation.answer_forms import AnswerForm
from rmo_train.generation.command import GenerationSettings, run_generation
from rmo_train.report import comparison_lines, evaluation_lines, rates_lines
from rmo_train.training.settings import TrainCommand, TrainSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Dtype = Literal["auto", "float32", "bfloat16"]


@app.callback()
def rmo_train() -> None:
    """Train on curated preference shards, and measure the result."""


@app.command()
@flags(TrainCommand, "train")
def run(
    settings: TrainCommand,
    recipe: Sections,
    resume_from_checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint to go on from (default: the newest in --out)")
    ] = None,
    ignore_identity: Annotated[
        bool, typer.Option("--ignore-identity", help="Train though the model is not the scored one")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start --out afresh")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop")] = False,
) -> None:
    """Train a model on preference shards: DPO or another loss, diversified batches, amplified margins."""
    from rmo_train.training.command import run_training

    shards = settings.shards
    if dry_run and is_awaited(shards, recipe, "filter.out"):
        typer.echo(f"{shards} is not there yet: known after `rmo-curate filter`")
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
    typer.echo("\n".join(lines))


class EvalCommand(Settings):
    """`rmo-train eval`."""

    data: Path = from_recipe("eval.run", description="Run or shard folder with scored pairs", argument="DATA")
    model: str = from_recipe("train.out", description="Model to measure")
    out: Path | None = Field(None, description="JSON file for the numbers")
    dtype: Dtype = Field("auto", description="auto: as the references were scored")
    tokens_per_batch: int | None = Field(None, ge=16, description="Tokens of one packed row")


@app.command("eval")
@flags(EvalCommand)
def evaluate(
    settings: EvalCommand,
    ignore_identity: Annotated[
        bool, typer.Option("--ignore-identity", help="Accept another tokenizer or template")
    ] = False,
) -> None:
    """Held-out accuracy of a model, plain and length-matched, with intervals."""
    from rmo_train.store.files import write_json
    from rmo_train.training.command import run_eval

    result = run_eval(
        settings.data,
        settings.model,
        dtype=settings.dtype,
        tokens_per_batch=settings.tokens_per_batch,
        ignore_identity=ignore_identity,
    )
    if settings.out:
        write_json(settings.out, result.as_json())
    typer.echo("\n".join(evaluation_lines(result)))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="JSON file that `eval --out` wrote")],
    b: Annotated[Path, typer.Argument(help="Another one, of another model on the same pairs")],
    json: Annotated[Path | None, typer.Option(help="JSON file for the numbers")] = None,
) -> None:
    """Whether model B is better than model A: paired differences of accuracy, with intervals."""
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
    prompts: Annotated[Path, typer.Argument(help="JSON lines, a JSON list, Parquet, or a run or shard folder")],
    model: Annotated[str, typer.Option(help="Model that answers: a folder, a hub name or smollm2-135m")],
    out: Annotated[Path, typer.Option(help="JSON file for the answers")],
    to: Annotated[
        AnswerForm, typer.Option(help="Form of the answers (auto: that of the prompts; alpaca-eval if they have none)")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out")] = False,
) -> None:
    """Answer a file of prompts, in the form of AlpacaEval, Arena-Hard v2, MT-Bench (two turns) or IFEval."""
    typer.echo("\n".join(run_generation(model, prompts, out, settings, to=to, overwrite=overwrite)))


@app.command()
@flags(JudgeSettings)
def winrate(
    settings: JudgeSettings,
    a: Annotated[Path, typer.Argument(help="Answers of model A, as `generate` writes them in any form")],
    b: Annotated[Path, typer.Argument(help="Answers of model B to the same prompts, in the same form")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts with constraints that programs check (IFEval's form); with --judge, the questions"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the rates and each prompt's result")] = None,
) -> None:
    """How often A's answers beat B's: by checkers of constraints (--prompts), or by a judge (--judge)."""
    from rmo_train.evaluation.winrate.command import run_winrate

    rates, failure = run_winrate(a, b, prompts, out, settings)
    typer.echo("\n".join(rates_lines(rates)))
    if failure:
        raise failure


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter")],
    out: Annotated[Path, typer.Option(help="Folder for the merged model")],
    dtype: Annotated[Dtype, typer.Option(help="auto: as the base is stored")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in --out")] = False,
) -> None:
    """Merge an adapter into its base: a plain model folder, for what loads no adapters."""
    from rmo_train.model.merging import merge_adapter

    typer.echo("\n".join(merge_adapter(adapter, out, dtype, overwrite=overwrite)))


def main() -> None:
    run_app(app)


if __name__ == "__main__":
    main()
