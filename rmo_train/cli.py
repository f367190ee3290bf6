"""The command line of rmo-train: train, evaluate, compare, generate, win rates and merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rmo_train.console.settings import RecipeOption, build, flags, place, read_recipe, run_app, without_places
from rmo_train.evaluation.winrate.judge import JudgeSettings
from rmo_train.generation.answer_forms import AnswerForm
from rmo_train.generation.generate import GenerationSettings, run_generation
from rmo_train.training.config import TrainSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def rmo_train() -> None:
    """Train on curated preference shards, and measure the result."""


@app.command()
@flags(TrainSettings)
def run(
    shards: Annotated[Path | None, typer.Argument(help="Shard folder made by `rmo-curate filter`")] = None,
    model: Annotated[str | None, typer.Option(help="Model to train: a folder, a hub name or smollm2-135m")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the trained model")] = None,
    eval_data: Annotated[Path | None, typer.Option(help="Run or shard folder with held-out pairs")] = None,
    recipe: RecipeOption = None,
    resume_from_checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint to go on from (default: the newest in --out)")
    ] = None,
    ignore_identity: Annotated[
        bool, typer.Option("--ignore-identity", help="Train though the model is not the scored one")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start --out afresh")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop")] = False,
    **given: Any,
) -> None:
    """Train a model on preference shards: DPO or another loss, diversified batches, amplified margins."""
    from rmo_train.training.run import run_training

    found = read_recipe(recipe)
    settings = build(TrainSettings, "train", without_places("train", found), given)
    folder = Path(place(shards, found, "SHARDS", "train.shards", "filter.out"))
    if dry_run and shards is None and not folder.exists():
        typer.echo(f"{folder} is not there yet: known after `rmo-curate filter`")
        return
    held_out = eval_data or found.get("train", {}).get("eval_data")
    lines = run_training(
        folder,
        place(model, found, "--model", "train.model", "score.model"),
        Path(place(out, found, "--out", "train.out")),
        settings,
        eval_data=Path(held_out) if held_out else None,
        resume_from_checkpoint=resume_from_checkpoint,
        ignore_identity=ignore_identity,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    typer.echo("\n".join(lines))


@app.command("eval")
def evaluate(
    data: Annotated[Path | None, typer.Argument(help="Run or shard folder with scored pairs")] = None,
    model: Annotated[str | None, typer.Option(help="Model to measure")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the numbers")] = None,
    recipe: RecipeOption = None,
    dtype: Annotated[str, typer.Option(help="auto (as the references were scored), float32 or bfloat16")] = "auto",
    tokens_per_batch: Annotated[int | None, typer.Option(help="Tokens of one packed row")] = None,
    ignore_identity: Annotated[
        bool, typer.Option("--ignore-identity", help="Accept another tokenizer or template")
    ] = False,
) -> None:
    """Held-out accuracy of a model, plain and length-matched, with intervals."""
    from rmo_train.store.tables import write_json
    from rmo_train.training.run import run_eval

    found = read_recipe(recipe)
    result = run_eval(
        Path(place(data, found, "DATA", "eval.run")),
        place(model, found, "--model", "train.out"),
        dtype=dtype,
        tokens_per_batch=tokens_per_batch,
        ignore_identity=ignore_identity,
    )
    if out:
        write_json(out, result.as_json())
    typer.echo("\n".join(result.lines()))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="JSON file that `eval --out` wrote")],
    b: Annotated[Path, typer.Argument(help="Another one, of another model on the same pairs")],
    json: Annotated[Path | None, typer.Option(help="JSON file for the numbers")] = None,
) -> None:
    """Whether model B is better than model A: paired differences of accuracy, with intervals."""
    from rmo_train.evaluation.comparison import compare as compared
    from rmo_train.evaluation.result import read_evaluation
    from rmo_train.store.tables import write_json

    found = compared(read_evaluation(a), read_evaluation(b), (str(a), str(b)))
    if json:
        write_json(json, found.as_json())
    typer.echo("\n".join([f"A: {a}", f"B: {b}", *found.lines()]))


@app.command()
@flags(GenerationSettings)
def generate(
    prompts: Annotated[Path, typer.Argument(help="JSON lines, a JSON list, Parquet, or a run or shard folder")],
    model: Annotated[str, typer.Option(help="Model that answers: a folder, a hub name or smollm2-135m")],
    out: Annotated[Path, typer.Option(help="JSON file for the answers")],
    to: Annotated[
        AnswerForm, typer.Option(help="Form of the answers (auto: that of the prompts; alpaca-eval if they have none)")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out")] = False,
    **given: Any,
) -> None:
    """Answer a file of prompts, in the form of AlpacaEval, Arena-Hard v2, MT-Bench (two turns) or IFEval."""
    settings = build(GenerationSettings, "generate", {}, given)
    typer.echo("\n".join(run_generation(model, prompts, out, settings, to=to, overwrite=overwrite)))


@app.command()
@flags(JudgeSettings)
def winrate(
    a: Annotated[Path, typer.Argument(help="Answers of model A, as `generate` writes them in any form")],
    b: Annotated[Path, typer.Argument(help="Answers of model B to the same prompts, in the same form")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts with constraints that programs check (IFEval's form); with --judge, the questions"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the rates and each prompt's result")] = None,
    **given: Any,
) -> None:
    """How often A's answers beat B's: by checkers of constraints (--prompts), or by a judge (--judge)."""
    from rmo_train.evaluation.winrate.command import run_winrate

    rates, failure = run_winrate(a, b, prompts, out, build(JudgeSettings, "winrate", {}, given))
    typer.echo("\n".join(rates.lines()))
    if failure:
        raise failure


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter")],
    out: Annotated[Path, typer.Option(help="Folder for the merged model")],
    dtype: Annotated[str, typer.Option(help="auto (as the base is stored), float32 or bfloat16")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in --out")] = False,
) -> None:
    """Merge an adapter into its base: a plain model folder, for what loads no adapters."""
    from rmo_train.model.merging import merge_adapter

    typer.echo("\n".join(merge_adapter(adapter, out, dtype, overwrite=overwrite)))


def main() -> None:
    run_app(app)


if __name__ == "__main__":
    main()
