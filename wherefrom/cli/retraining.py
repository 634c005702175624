"""The commands that make a bank of retrained models, and the recipe of a fine-tune. Need the `[engine]` extra."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from wherefrom.attribution.corpus import ReadAs
from wherefrom.cli.build_options import Threads
from wherefrom.cli.corpus_options import (
    FormatOption,
    JoinOption,
    SplitOption,
    TemplateArgsOption,
    TemplateOption,
    TurnsOption,
    rendering_rule,
)
from wherefrom.cli.offline import Json
from wherefrom.cli.placement_options import DeviceOption, TrainedDtypeOption, placement_of
from wherefrom.cli.progress import progress_bars
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.bank import Bank
from wherefrom.retraining.recipe import Recipe, read_recipe, write_recipe
from wherefrom.retraining.trainer_folder import recipe_of
from wherefrom.retraining.workers import BankJob, run_job
from wherefrom.terminal import counted, say


def bank(
    *,
    model: Annotated[Path, typer.Option(help="Folder of the base model, before the fine-tune.")],
    corpus: Annotated[Path, typer.Option(help="Training corpus of the fine-tune.")],
    queries: Annotated[
        list[Path], typer.Option(help="Queries as JSONL; repeat the option for several files.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the bank. An interrupted bank is continued.")],
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of the fine-tune's recipe; default: AdamW at 8e-4, 3 epochs, batches of 16."
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the adapter that the fine-tune started from; it is merged into the base. Not the audited adapter, which has seen every row."
        ),
    ] = None,
    retrain: Annotated[int, typer.Option(min=2, help="Number of models.")] = 64,
    turns: TurnsOption = ReadAs.turns,
    dialect: FormatOption = None,
    split: SplitOption = None,
    chat_template: TemplateOption = None,
    template_args: TemplateArgsOption = None,
    join: JoinOption = "",
    alpha: Annotated[float, typer.Option(help="Share of the corpus that each model sees.")] = 0.5,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes; give each one thread.")] = 1,
    device: DeviceOption = None,
    dtype: TrainedDtypeOption = None,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Make a bank: retrain the model on random subsets of its corpus and store every loss.

    `wherefrom calibrate` and `wherefrom evaluate` judge a bundle by it. Give --turns, --format, --split, --chat-template, --template-args and
    --join as for the bundle. To continue an interrupted bank, run the same command again.

    Example: wherefrom bank --model ./base --corpus train.jsonl --queries held_out.jsonl --recipe recipe.json --out ./bank
    """
    job = BankJob(
        model_dir=model,
        adapter_dir=adapter,
        corpus=corpus,
        queries=tuple(queries),
        recipe=Recipe() if recipe is None else read_recipe(recipe),
        out=out,
        models=retrain,
        share=alpha,
        threads=threads,
        placement=placement_of(device, dtype, training=True),
        read=ReadAs(turns, dialect, split),
        rendering=rendering_rule(chat_template, template_args, join=join),
    )
    with progress_bars(quiet=as_json) as report:
        made = run_job(job, workers=workers, progress=lambda done, total: report("retrain", done, total))
    _say_made(made, job, as_json=as_json)


def _say_made(made: Bank, job: BankJob, *, as_json: bool) -> None:
    result = {
        "path": str(job.out),
        "models": len(made),
        "examples": int(made.kept.shape[1]),
        "queries": {name: int(losses.shape[1]) for name, losses in sorted(made.query_losses.items())},
        "seconds_per_model": round(float(np.mean(made.seconds)), 1),
    }
    if as_json:
        typer.echo(json.dumps(result))
        return
    say(f"The bank in {job.out} holds {counted(len(made), 'retrained model')}.")
    say(
        f"Each saw {job.share:.0%} of {counted(int(made.kept.shape[1]), 'training example')} and took {result['seconds_per_model']} s."
    )
    say(f"Next: wherefrom evaluate --bundle BUNDLE --bank {job.out} --bank-queries {job.queries[0]}")


def recipe(
    *,
    folder: Annotated[
        Path,
        typer.Argument(
            help="Output folder of a training with PEFT or the Trainer, or one of its checkpoints."
        ),
    ],
    out: Annotated[Path, typer.Option(help="JSON file of the recipe.")] = Path("recipe.json"),
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Training examples; gives the batch size over all devices."),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Name of the adapter, if the folder holds several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the recipe of a fine-tune from the folder that it left behind.

    Read adapter_config.json, training_args.bin and trainer_state.json. Nothing in training_args.bin is run. Check the recipe before you use it: the
    command says what it assumed, and what a recipe cannot state.

    Example: wherefrom recipe ./outputs --rows 5000 --out recipe.json
    """
    if out.exists():
        raise ConfigurationError(f"{out} already exists; choose another file or delete it")
    found = recipe_of(folder, rows=rows, adapter=adapter)
    write_recipe(out, found.recipe)
    if as_json:
        content = {
            "path": str(out),
            "read": found.read,
            "notes": found.notes,
            "sha256": found.recipe.sha256(),
        }
        typer.echo(json.dumps(content))
        return
    say(f"The recipe is in {out}. It was read from {', '.join(found.read)}.")
    for note in found.notes:
        say(f"Check: {note}")
    say(f"Next: wherefrom bank --recipe {out}, or WHEREFROM_RECIPE={out} for measured effects.")


def add_commands(app: typer.Typer) -> None:
    """Put the retraining commands under an app."""
    app.command("bank")(bank)
    app.command("recipe")(recipe)
