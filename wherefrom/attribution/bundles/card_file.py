"""Replaces the card of a finished bundle, the only file of it that may change: the bundle's name leaves the card out, its manifest does not.

Two files must change together. Both new ones are written beside the bundle first, then moved into it, the card before the manifest. Where the machine stops between
the two moves, the bundle is refused as changed, and `finish_replacing` (or the same replacement again) makes the second move.
"""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wherefrom.atomic import disk_errors, write_bytes
from wherefrom.attribution.bundles.manifest import CARD, MANIFEST, Manifest, hash_file, read_manifest
from wherefrom.errors import BundleMismatch


def replace_card(bundle: Path, card: Mapping[str, Any]) -> Manifest:
    """Write another card into an intact bundle; its name stays.

    Raises:
        BundleCorrupt: the bundle is not intact.
        BundleMismatch: the card's figures were measured on other training examples.
        DiskFull: nothing was changed.
        ValueError: the card holds numbers that JSON has no form for.
    """
    manifest = read_manifest(bundle)
    _check_rows(card, manifest)
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    mode = stat.S_IMODE((bundle / MANIFEST).stat().st_mode)
    with disk_errors(bundle):
        write_bytes(_waiting(bundle, CARD), text.encode("utf-8"), mode=mode)
        files = dict(manifest.files) | {CARD: hash_file(_waiting(bundle, CARD))}
        sealed = manifest.model_copy(update={"files": files}).sealed()
        write_bytes(_waiting(bundle, MANIFEST), sealed.to_bytes(), mode=mode)
    _waiting(bundle, CARD).replace(bundle / CARD)
    _waiting(bundle, MANIFEST).replace(bundle / MANIFEST)
    return sealed


def _check_rows(card: Mapping[str, Any], manifest: Manifest) -> None:
    """Refuse figures of other rows; cards of earlier releases do not say theirs."""
    quality = card.get("quality")
    measured = quality.get("corpus_sha256") if isinstance(quality, Mapping) else None
    if measured is not None and measured not in manifest.fitted_on:
        raise BundleMismatch(
            f"bundle {manifest.name}: the card's figures were measured on other training examples (SHA-256 {str(measured)[:12]}, here {manifest.corpus.sha256[:12]}); "
            "run `wherefrom evaluate` on this bundle"
        )


def finish_replacing(bundle: Path) -> bool:
    """Make the second move of a replacement that was stopped between the two; leftovers that do not fit stay unused.

    Returns:
        Whether there was one.
    """
    waiting = _waiting(bundle, MANIFEST)
    if not waiting.is_file() or not (bundle / CARD).is_file():
        return False
    try:
        planned = Manifest.model_validate_json(waiting.read_bytes())
        present = read_manifest(bundle, verify=False)
    except ValidationError:
        return False
    fits = planned.name == present.name and planned.seal == planned.seal_of_content()
    if not fits or planned.files.get(CARD) != hash_file(bundle / CARD):
        return False
    waiting.replace(bundle / MANIFEST)
    return True


def _waiting(bundle: Path, name: str) -> Path:
    """Where a new file waits: beside the bundle, because a file more inside it would make the bundle corrupt."""
    return bundle.with_name(f".{bundle.name}.{name}.new")
