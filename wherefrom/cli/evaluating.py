"""The command that measures a bundle and writes its card. Needs the `[engine]` extra."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.atomic import write_text
from wherefrom.attribution.bundles.card_file import finish_replacing, replace_card
from wherefrom.attribution.bundles.manifest import read_card
from wherefrom.cli.build_options import Adapter, Threads
from wherefrom.cli.building import set_threads
from wherefrom.cli.offline import Json, KnownModel
from wherefrom.cli.placement_options import DeviceOption, DtypeOption, placement_of
from wherefrom.cli.progress import progress_bars
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.card import evaluated_card
from wherefrom.evaluation.evaluating import evaluate_bundle
from wherefrom.evaluation.material import MaterialFiles
from wherefrom.evaluation.page import card_page
from wherefrom.evaluation.report import Report
from wherefrom.json_text import finite_numbers
from wherefrom.library import open_with_model
from wherefrom.terminal import say

LossesName = Annotated[
    str | None, typer.Option(help="Name of their losses in the bank; default: the queries' file name.")
]
RepeatedBank = Annotated[
    Path | None,
    typer.Option(help="Bank of the same subsets retrained with another seed, for the ceiling of LDS."),
]
KnownOutputs = Annotated[
    Path | None,
    typer.Option(help="Outputs as JSONL with `gold`: ids of the training examples that taught them."),
]
Controls = Annotated[
    Path | None,
    typer.Option(
        help="Outputs whose cause is not in the corpus and that were not used to calibrate the bundle."
    ),
]


def evaluate(
    *,
    bundle: Annotated[
        Path, typer.Option(help="Folder of the bundle. Its card is replaced; its name does not change.")
    ],
    bank: Annotated[Path | None, typer.Option(help="Bank of retrained models, for LDS.")] = None,
    bank_queries: Annotated[
        Path | None, typer.Option(help="The queries whose losses the bank holds.")
    ] = None,
    bank_losses: LossesName = None,
    bank_repeat: RepeatedBank = None,
    known: KnownOutputs = None,
    controls: Controls = None,
    stress: Annotated[
        Path | None, typer.Option(help="Result of python -m benchmarks.shifts --json, copied into the card.")
    ] = None,
    overhead: Annotated[
        Path | None,
        typer.Option(help="Result of python -m benchmarks.overhead --json, copied into the card."),
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Also write the card as an HTML page.")] = None,
    model: KnownModel = None,
    adapter: Adapter = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Measure a bundle and write its card.

    The card gets the figures that the given files allow, with intervals and plots. The others are listed with the reason. Figures of an
    earlier run are replaced, so give all files at once.

    Example: wherefrom evaluate --bundle ./bundles/support --bank ./bank --bank-queries held_out.jsonl --known known.jsonl --page card.html
    """
    files = MaterialFiles(
        bank=bank,
        bank_queries=bank_queries,
        bank_losses=bank_losses,
        bank_repeat=bank_repeat,
        known=known,
        controls=controls,
        stress=stress,
        overhead=overhead,
    )
    files.check()
    if page is not None and not page.parent.is_dir():
        raise ConfigurationError(f"{page.parent}: folder not found; create it first")
    set_threads(threads)
    finish_replacing(bundle)
    opened = open_with_model(bundle, model, adapter, placement=placement_of(device, dtype))
    with progress_bars(quiet=as_json) as progress:
        report = evaluate_bundle(opened, files, progress)
    name = opened.manifest.name
    card = evaluated_card(read_card(bundle), report, files=files, manifest=opened.manifest)
    replace_card(bundle, card)
    if page is not None:
        write_text(page, card_page(name, card))
    _say(name, report, as_json=as_json)


def _say(name: str, report: Report, *, as_json: bool) -> None:
    quality = finite_numbers(report.quality())
    if as_json:
        typer.echo(json.dumps({"name": name, **quality}))
        return
    if quality["measures"]:
        say(f"{'figure':<66}{'value':>8}  {'95 % interval':<16}  measured on")
    for label, one in quality["measures"].items():
        between = "" if one["interval"] is None else "[{:.3f}, {:.3f}]".format(*one["interval"])
        say(f"{label:<66}{one['value']:>8.3f}  {between:<16}  {one['n']} {one['of']}")
    for label, reason in report.missing.items():
        say(f"not measured: {label}: {reason}")
    say(
        f"The card of bundle {name} now holds these figures. A service that has the bundle shows them at /bundles/{name}."
    )


def add_commands(app: typer.Typer) -> None:
    """Put the command under an app."""
    app.command("evaluate")(evaluate)
