"""Commands of `wherefrom bundle` that write a new bundle of another one: without some training examples, or with more."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.attribution.bundles.adding import add_examples
from wherefrom.attribution.bundles.deriving import REBUILD_SHARE
from wherefrom.attribution.bundles.erasing import forget_examples
from wherefrom.attribution.bundles.manifest import Manifest, read_manifest
from wherefrom.attribution.bundles.model_location import copy_note, find_model, write_note
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.cli.build_options import NewFolder, SkipBadRows, StartFolder
from wherefrom.cli.placement_options import DeviceOption, DtypeOption, placement_of
from wherefrom.cli.progress import progress_bars
from wherefrom.cli.signing import Folder, Json
from wherefrom.settings import load_settings
from wherefrom.terminal import counted, say

ExampleIds = Annotated[list[str], typer.Argument(metavar="EXAMPLE_ID...", help="Ids of training examples.")]
Copies = Annotated[
    bool, typer.Option("--copies", help="Also erase other examples that have exactly the same text.")
]
SigningKey = Annotated[Path | None, typer.Option(help="File with the private key that signs the new bundle.")]


def forget(
    *,
    bundle: Folder,
    example_ids: ExampleIds,
    out: NewFolder,
    copies: Copies = False,
    key: SigningKey = None,
    as_json: Json = False,
) -> None:
    """Write a bundle without some training examples. The old one is not changed; delete it afterwards.

    Of a bundle in service, `python -m worker forget example` does all that is needed.

    Example: wherefrom bundle forget ./bundles/support vendor-7-0042 --out ./bundles/support-2
    """
    milvus = load_settings().milvus_server()
    found = forget_examples(bundle, out, example_ids, copies=copies, key=key, milvus=milvus)
    copy_note(bundle, out)
    if as_json:
        typer.echo(
            json.dumps(
                {"name": found.manifest.name, "path": str(out), "erased": list(found.example_ids)}
                | _derived(found.manifest)
                | {"signed": found.signed}
            )
        )
        return
    say(f"Wrote bundle {found.manifest.name} to {out}, without {counted(len(found.example_ids), 'example')}.")
    if not found.signed:
        say("It is not signed; sign it with `wherefrom bundle sign` where WHEREFROM_BUNDLE_KEYS is set.")
    say(f"{bundle} still holds them. Delete it, and its copies, when nothing uses it.")
    _say_rebuild(found.manifest)


def add(
    *,
    bundle: Folder,
    corpus: Annotated[Path, typer.Option(help="The new rows, in any form that a corpus has.")],
    out: NewFolder,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the model; default: where it was when the bundle was built."),
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of the adapter trained on that model.")] = None,
    start: StartFolder = None,
    skip_bad: SkipBadRows = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: Json = False,
) -> None:
    """Write a bundle with more training examples. Only the new rows go through the model.

    Whitening, projection and the other statistics stay those of the first build. The command says when a new build is due.

    Example: wherefrom bundle add ./bundles/support --corpus new.jsonl --out ./bundles/support-2
    """
    settings = load_settings()
    if model is None:
        folders = find_model(bundle, read_manifest(bundle, verify=False), settings.models_dir)
    else:
        folders = ModelFolders(model, adapter, start)
    with progress_bars(quiet=as_json) as report:
        made = add_examples(
            bundle,
            corpus,
            out,
            folders=folders,
            skip_bad=skip_bad,
            placement=placement_of(device, dtype),
            milvus=settings.milvus_server(),
            progress=report,
            on_note=lambda sentence: say(sentence, to_stderr=True),
        )
    write_note(out, folders)
    if as_json:
        typer.echo(json.dumps({"name": made.name, "path": str(out)} | _derived(made)))
        return
    say(f"Wrote bundle {made.name} to {out}. It covers {counted(made.corpus.examples, 'training example')}.")
    _say_rebuild(made)


def _derived(manifest: Manifest) -> dict[str, object]:
    derived = manifest.derived
    share = 0.0 if derived is None else derived.changed_share
    return {
        "examples": manifest.corpus.examples,
        "changed_share": round(share, 4),
        "rebuild_due": share >= REBUILD_SHARE,
    }


def _say_rebuild(manifest: Manifest) -> None:
    derived = manifest.derived
    if derived is None:
        return
    say(
        f"Its statistics are those of {counted(derived.statistics_rows, 'row')}; {derived.erased} were erased and {derived.added} added since ({derived.changed_share:.0%})."
    )
    if derived.changed_share >= REBUILD_SHARE:
        say(f"From {REBUILD_SHARE:.0%} on a new build is due: `wherefrom build` over the whole corpus.")
