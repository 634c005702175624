"""The offline commands: build a bundle, attribute a file of queries, verify a bundle. Needs the `[engine]` extra."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import (
    Rejection,
    attribute_all,
    exact_scores,
    prepare_usable,
    read_queries,
    signals_of_all,
)
from wherefrom.cli import deriving, signing, storing
from wherefrom.cli.build_choice import BuildChoice, takes_choice
from wherefrom.cli.build_options import Adapter, CorpusPath, NewFolder, Threads
from wherefrom.cli.building import build_with_progress, options_of, say_built, set_threads
from wherefrom.cli.grouping import (
    AgainstOption,
    Asked,
    GroupByOption,
    GroupOption,
    Limits,
    attribute_groups,
    check_options,
)
from wherefrom.cli.placement_options import DeviceOption, DtypeOption, placement_of
from wherefrom.cli.progress import progress_bars
from wherefrom.cli.signing import VerifyOption
from wherefrom.cli.targets import Targets
from wherefrom.library import open_with_model
from wherefrom.records import Query
from wherefrom.settings import load_settings
from wherefrom.terminal import counted, say

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON line instead of text.")]
Model = Annotated[Path, typer.Option(help="Folder of the model (safetensors, tokenizer with chat template).")]
KnownModel = Annotated[
    Path | None, typer.Option(help="Folder of the model; default: where it was when the bundle was built.")
]


class OverLongChoice(StrEnum):
    """What happens to an output over the token limit."""

    TRUNCATE = "truncate"
    REJECT = "reject"


CitationsFile = Annotated[Path | None, typer.Option(help="Write citations here, one JSON line per query.")]
ScoresFile = Annotated[
    Path | None, typer.Option(help="Write the exact score of every pair: .npy, float32 [Q, N].")
]


@takes_choice
def build(
    *,
    model: Model,
    corpus: CorpusPath,
    out: NewFolder,
    choice: BuildChoice,
    as_json: Json = False,
) -> None:
    """Build a bundle: everything that turns flagged outputs of one model into citations of its training corpus.

    To continue an interrupted build, run the same command again.

    Example: wherefrom build --model ./model --adapter ./lora --corpus train.jsonl --out ./bundles/support
    """
    set_threads(choice.threads)
    folders = ModelFolders(model, choice.adapter, choice.start)
    manifest = build_with_progress(folders, corpus, out, options=options_of(choice), quiet=as_json)
    say_built(manifest, out, as_json=as_json)


def attribute(
    *,
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    queries: Annotated[
        Path, typer.Option("--input", help="Queries as JSONL: prompt or messages, and completion.")
    ],
    model: KnownModel = None,
    adapter: Adapter = None,
    output: CitationsFile = None,
    scores: ScoresFile = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Citations per query.")] = 10,
    opponents: Annotated[int, typer.Option(min=0, help="Opponents (negative influence) per query.")] = 3,
    group: GroupOption = False,
    group_by: GroupByOption = None,
    against: AgainstOption = None,
    important: Annotated[
        bool,
        typer.Option("--important", help="Rescore candidates with the full tier, if the bundle has it."),
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=8, help="Token limit of one query.")] = 1024,
    over_long: Annotated[
        OverLongChoice,
        typer.Option(help="What to do with a query over the limit: cut it, or skip it and print its name."),
    ] = OverLongChoice.TRUNCATE,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip bad lines and queries and print which.")
    ] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    threads: Threads = 0,
    verify: VerifyOption = False,
    as_json: Json = False,
) -> None:
    """Attribute a file of model outputs without a service.

    --output gets one line and --scores one row per query, in the order of the input. Queries that were left out have none. With --group or --group-by there is one per group,
    and without --output the citations are printed.

    Example: wherefrom attribute --bundle ./bundles/support --input flagged.jsonl --output citations.jsonl

    Example: wherefrom attribute --bundle ./bundles/support --input flagged.jsonl --group-by reason --against acceptable.jsonl
    """
    targets, grouped = Targets(output, scores), group or group_by is not None
    check_options(group=group, group_by=group_by, against=against, important=important)
    targets.check(needed=not grouped)
    set_threads(threads)
    placement, hashes = placement_of(device, dtype), HashMemory.of_machine(load_settings(), afresh=verify)
    limits = Limits(max_tokens, over_long.value, skip_bad, top_k, opponents)
    if grouped:
        groups = Asked.read(queries, against, group_by, skip_bad=skip_bad)
        opened = open_with_model(bundle, model, adapter, placement=placement, hashes=hashes)
        attribute_groups(opened, groups, targets, limits=limits, as_json=as_json)
        return
    asked, skipped = read_queries(queries, skip_bad=skip_bad)
    asked = [query.model_copy(update={"important": important}) for query in asked]
    opened = open_with_model(bundle, model, adapter, placement=placement, hashes=hashes)
    _attribute_each(opened, asked, targets, limits=limits, skipped=skipped, as_json=as_json)


def _attribute_each(
    opened: Bundle, asked: Sequence[Query], targets: Targets, *, limits: Limits, skipped: int, as_json: bool
) -> None:
    """Attribute each query by itself and write what was asked for."""
    attributor = LanguageAttributor(opened)
    if attributor.note is not None:
        say(f"warning: {attributor.note}", to_stderr=True)
    prepared, rejected = prepare_usable(
        attributor, asked, max_tokens=limits.max_tokens, over_long=limits.over_long, skip_bad=limits.skip_bad
    )
    with progress_bars(quiet=as_json) as report:
        if targets.output is not None:
            found = attribute_all(
                attributor, prepared, top_k=limits.top_k, opponents=limits.opponents, progress=report
            )
            targets.write_lines(found)
        if targets.scores is not None:
            targets.write_scores(exact_scores(opened, signals_of_all(attributor, prepared), report))
    if as_json:
        counts = {"queries": len(prepared), "skipped": skipped}
        listed = [asdict(one) for one in rejected]
        typer.echo(json.dumps(counts | {"rejected": listed, "bundle": opened.manifest.name}))
        return
    _say_attributed(opened.manifest.name, len(prepared), skipped=skipped, rejected=rejected)
    targets.say()


def _say_attributed(bundle: str, queries: int, *, skipped: int, rejected: Sequence[Rejection]) -> None:
    for one in rejected:
        say(f"rejected {one.key}: {one.reason} [{one.code}]", to_stderr=True)
    say(
        f"Attributed {counted(queries, 'query', 'queries')} by bundle {bundle}; "
        f"{counted(skipped, 'bad line')} skipped, {counted(len(rejected), 'query', 'queries')} rejected."
    )


def add_commands(app: typer.Typer) -> None:
    """Put the engine's commands under an app."""
    app.command("build")(build)
    app.command("attribute")(attribute)
    bundle = typer.Typer(
        help="Verify and sign bundles; write them with other rows; put them into object storage.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    bundle.callback()(_bundle_commands)
    bundle.command("verify")(signing.verify)
    bundle.command("sign")(signing.sign)
    bundle.command("keys")(signing.keys)
    bundle.command("forget")(deriving.forget)
    bundle.command("add")(deriving.add)
    bundle.command("push")(storing.push)
    bundle.command("pull")(storing.pull)
    bundle.command("list")(storing.list_stored)
    app.add_typer(bundle, name="bundle")


def _bundle_commands() -> None:
    """Verify and sign a bundle, write one with fewer or more training examples, or bring one to object storage."""
