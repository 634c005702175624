"""The offline commands: build a bundle, attribute a file of queries, verify a bundle. Needs the `[engine]` extra."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.indexes import IndexWishes
from wherefrom.attribution.bundles.manifest import Manifest
from wherefrom.attribution.bundles.model_location import write_note
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.corpus import ReadAs
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import (
    Rejection,
    attribute_all,
    exact_scores,
    prepare_usable,
    read_queries,
    signals_of_all,
)
from wherefrom.attribution.retrieval.index_drivers import DriverName
from wherefrom.cli import deriving, signing, storing
from wherefrom.cli.build_options import (
    BlocksChoice,
    BlocksOption,
    Candidates,
    CorpusPath,
    Encoder,
    EncoderWeight,
    FinalOption,
    FormChoice,
    FormOption,
    FullTier,
    IndexChoice,
    IndexOption,
    LearningCheck,
    LongestExample,
    Midpoint,
    ModelName,
    NewFolder,
    SimilarityOption,
    SkipBadRows,
    StartFolder,
)
from wherefrom.cli.corpus_options import (
    FormatOption,
    JoinOption,
    SplitOption,
    TemplateArgsOption,
    TemplateOption,
    TurnsOption,
    rendering_rule,
)
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
Threads = Annotated[int, typer.Option(help="Number of torch threads; 0 lets torch decide.")]
Model = Annotated[Path, typer.Option(help="Folder of the model (safetensors, tokenizer with chat template).")]
KnownModel = Annotated[
    Path | None, typer.Option(help="Folder of the model; default: where it was when the bundle was built.")
]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter trained on that model.")]


class OverLongChoice(StrEnum):
    """What happens to an output over the token limit."""

    TRUNCATE = "truncate"
    REJECT = "reject"


CitationsFile = Annotated[Path | None, typer.Option(help="Write citations here, one JSON line per query.")]
ScoresFile = Annotated[
    Path | None, typer.Option(help="Write the exact score of every pair: .npy, float32 [Q, N].")
]


def build(
    *,
    model: Model,
    corpus: CorpusPath,
    out: NewFolder,
    adapter: Adapter = None,
    form: FormOption = FormChoice.AUTO,
    similarity: SimilarityOption = None,
    blocks: BlocksOption = BlocksChoice.AUTO,
    final: FinalOption = True,
    model_name: ModelName = None,
    candidates: Candidates = None,
    max_tokens: LongestExample = 1024,
    skip_bad: SkipBadRows = False,
    turns: TurnsOption = ReadAs.turns,
    dialect: FormatOption = None,
    split: SplitOption = None,
    midpoint: Midpoint = False,
    full_tier: FullTier = False,
    start: StartFolder = None,
    encoder: Encoder = None,
    encoder_weight: EncoderWeight = None,
    chat_template: TemplateOption = None,
    template_args: TemplateArgsOption = None,
    join: JoinOption = "",
    index: IndexOption = IndexChoice.AUTO,
    learning_check: LearningCheck = True,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Build a bundle: everything that turns flagged outputs of one model into citations of its training corpus.

    To continue an interrupted build, run the same command again.

    Example: wherefrom build --model ./model --adapter ./lora --corpus train.jsonl --out ./bundles/support
    """
    set_threads(threads)
    options = BuildOptions(
        form=form.value,
        similarity=None if similarity is None else similarity.value,
        blocks=blocks.value,
        final=final,
        model_name=model_name,
        max_tokens=max_tokens,
        candidates=candidates,
        midpoint=midpoint,
        full_tier=full_tier,
        skip_bad=skip_bad,
        read=ReadAs(turns, dialect, split),
        encoder=encoder,
        encoder_weight=encoder_weight,
        rendering=rendering_rule(chat_template, template_args, join=join),
        check_learning=learning_check,
        index=_index_wishes(index),
        placement=placement_of(device, dtype),
    )
    _build_and_say(ModelFolders(model, adapter, start), corpus, out, options=options, as_json=as_json)


def _index_wishes(choice: IndexChoice) -> IndexWishes:
    settings = load_settings()
    return IndexWishes(
        driver=None if choice is IndexChoice.AUTO else DriverName(choice.value),
        memory_share=settings.index_memory_share,
        milvus=settings.milvus_server(),
    )


def _build_and_say(
    folders: ModelFolders, corpus: Path, out: Path, *, options: BuildOptions, as_json: bool
) -> None:
    with progress_bars(quiet=as_json) as report:
        manifest = build_bundle(
            folders=folders,
            corpus_path=corpus,
            out=out,
            options=options,
            progress=report,
            on_note=_print_note,
        )
    write_note(out, folders)
    _say_built(manifest, out, as_json=as_json)


def _print_note(sentence: str) -> None:
    """What the person who builds should read, beside the progress."""
    say(sentence, to_stderr=True)


def _say_built(manifest: Manifest, out: Path, *, as_json: bool) -> None:
    corpus_entry, projection = manifest.corpus, manifest.projection
    reading = corpus_entry.reading
    if as_json:
        say(
            json.dumps(
                {
                    "name": manifest.name,
                    "path": str(out),
                    "examples": corpus_entry.examples,
                    "skipped": corpus_entry.skipped,
                    "reading": None if reading is None else reading.model_dump(mode="json"),
                }
            )
        )
        return
    say(f"Built bundle {manifest.name} in {out}.")
    say(
        f"It covers {counted(corpus_entry.examples, 'training example')}; {counted(corpus_entry.skipped, 'bad row')} skipped, "
        f"{corpus_entry.truncated} cut at {counted(manifest.parameters.max_tokens, 'token')}."
    )
    if reading is not None and (reading.explained_turns > corpus_entry.examples or reading.left_out):
        say(
            f"It explains {counted(reading.explained_turns, 'assistant turn')} (--turns {reading.turns}) and leaves "
            f"{sum(reading.left_out.values())} out; {counted(reading.untrained_rows, 'row')} without a trained turn left out."
        )
    say(
        f"Its form is {manifest.parameters.form}; its projection takes {projection.bytes / 1e6:.1f} MB, "
        f"{projection.share_of_model:.1%} of the model."
    )
    say(f"Next: python -m worker add-bundle {out}")
    say(
        f"Or without a service: wherefrom attribute --bundle {out} --input FLAGGED.jsonl --output CITATIONS.jsonl"
    )


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


def set_threads(threads: int) -> None:
    """Give torch this many threads; 0 leaves the number to it."""
    if threads:
        torch.set_num_threads(threads)


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
