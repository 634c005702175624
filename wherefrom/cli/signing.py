"""Commands of `wherefrom bundle`: verify hashes and signature, sign, make keys. They read files only."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.bundles.signing import check_signature, make_keys, sign_bundle
from wherefrom.terminal import counted, say

Folder = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
VerifyOption = Annotated[
    bool,
    typer.Option("--verify", help="Hash every file of the bundle, whatever this machine remembers of it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def verify(
    *,
    bundle: Folder,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with a public key; one of them must have signed the bundle. May be repeated."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every file of a bundle against the hashes of its manifest; with --key, its signature before that.

    Example: wherefrom bundle verify ./bundles/support

    Example: wherefrom bundle verify ./bundles/support --key team.pub
    """
    check_signature(bundle, key or ())
    manifest = read_manifest(bundle)
    if as_json:
        found = {"name": manifest.name, "files": len(manifest.files), "intact": True}
        typer.echo(json.dumps(found | ({"signed": True} if key else {})))
        return
    signed = "signed by an accepted key and " if key else ""
    say(f"Bundle {manifest.name} is {signed}intact: {counted(len(manifest.files), 'file')} checked.")


def sign(*, bundle: Folder, key: Annotated[Path, typer.Option(help="File with the private key.")]) -> None:
    """Check every hash of a bundle, and sign its manifest. A signature that is there is replaced.

    Sign again after `wherefrom evaluate`: it changes the card, and the manifest with it.

    Example: wherefrom bundle sign ./bundles/support --key team.key
    """
    sign_bundle(bundle, key)
    say(f"Signed {bundle}. Accept it with WHEREFROM_BUNDLE_KEYS='[\"PUBLIC_KEY_FILE\"]'.")


def keys(
    *,
    private: Annotated[Path, typer.Argument(metavar="PRIVATE", help="New file for the private key.")],
    public: Annotated[Path, typer.Argument(metavar="PUBLIC", help="New file for the public key.")],
) -> None:
    """Make an Ed25519 key pair. Keep the private file where bundles are built, and nowhere else.

    Example: wherefrom bundle keys team.key team.pub
    """
    make_keys(private, public)
    say(f"Wrote {private} (for its owner alone) and {public}.")
