"""Commands of `wherefrom bundle` that bring bundles to object storage and back, or to a folder that several machines mount."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.atomic import move_folder
from wherefrom.attribution.bundles.stored import (
    BundlePlace,
    OnBytes,
    fetch_bundle,
    push_bundle,
    stored_bundles,
)
from wherefrom.attribution.bundles.work_folder import check_out, sole_use
from wherefrom.cli.build_options import NewFolder
from wherefrom.cli.progress import Report, progress_bars
from wherefrom.cli.signing import Folder, Json
from wherefrom.errors import DiskFull
from wherefrom.storage import open_store
from wherefrom.terminal import counted, say

StoreUrl = Annotated[
    str,
    typer.Argument(
        metavar="STORE", help="Where bundles are: s3://BUCKET/PREFIX, gs://..., abfs://..., or a folder."
    ),
]
_MEGABYTE = 1_000_000


def push(
    *,
    bundle: Folder,
    store: StoreUrl,
    again: Annotated[
        bool, typer.Option("--again", help="Also upload files that are there already, such as a damaged one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a bundle and upload it under its name. An upload that was cut off goes on.

    Credentials come from the environment. Sign the bundle first where WHEREFROM_BUNDLE_KEYS is set.

    Example: wherefrom bundle push ./bundles/support s3://audits/bundles
    """
    with progress_bars(quiet=as_json) as report:
        place = push_bundle(
            bundle, open_store(store), again=again, on_bytes=_megabytes(report, "upload (MB)")
        )
    if as_json:
        typer.echo(json.dumps({"name": place.name, "url": place.url}))
        return
    say(f"Bundle {place.name} is at {place.url}. Register it with `python -m worker add-bundle {place.url}`.")


def pull(
    *,
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="URL of the bundle: that of the store, with its name at the end."),
    ],
    out: NewFolder,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with a public key; one of them must have signed the bundle. May be repeated."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a bundle and check every file of it. A download that was cut off goes on.

    Example: wherefrom bundle pull s3://audits/bundles/b-0123456789abcdef --out ./bundles/support
    """
    check_out(out)
    place = BundlePlace.of_url(url)
    work = out.with_name(f".{out.name}.pulling")
    with sole_use(work):
        check_out(out)  # who worked here before may have finished
        try:
            with progress_bars(quiet=as_json) as report:
                on_bytes = _megabytes(report, "download (MB)")
                manifest = fetch_bundle(place, work, keys=key or (), on_bytes=on_bytes)
            move_folder(work, out)
        except DiskFull:
            shutil.rmtree(work, ignore_errors=True)  # give the room back
            raise
    if as_json:
        typer.echo(json.dumps({"name": manifest.name, "path": str(out)}))
        return
    say(f"Bundle {manifest.name} is in {out}: {counted(len(manifest.files), 'file')} checked.")


def list_stored(*, store: StoreUrl, as_json: Json = False) -> None:
    """List the bundles of a store by name.

    Example: wherefrom bundle list s3://audits/bundles
    """
    names = stored_bundles(open_store(store))
    if as_json:
        typer.echo(json.dumps(names))
        return
    say("\n".join(names) or f"{store} holds no bundle.")


def _megabytes(report: Report, stage: str) -> OnBytes:
    return lambda done, total: report(stage, -(-done // _MEGABYTE), -(-total // _MEGABYTE))
