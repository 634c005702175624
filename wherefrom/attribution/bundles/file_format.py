"""Tells a bundle that a newer release made from one that is damaged: the one is right and waits for its release, the other must be built again."""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from wherefrom.errors import BundleTooNew

BUNDLE_SCHEMA: Literal[3] = 3
#: Newest format of a bundle's files that this release reads. A change of files that the release before cannot read, or would read wrongly, raises it; a
#: bundle names the least that it needs (`entries.format_of`). 1: of the first release with this schema. 2: what whitens final gradients has scales.
NEWEST_FORMAT = 2

#: What a manifest is refused for where a newer release has a field or a value more.
_UNKNOWN = frozenset({"extra_forbidden", "literal_error"})


def refuse_newer(file: Path, error: ValidationError) -> None:
    """Refuse a manifest that has nothing wrong in it, but something that this release has no word for.

    Raises:
        BundleTooNew: names it.
    """
    found = error.errors(include_url=False, include_context=False)
    if all(one["type"] in _UNKNOWN and not _is_older(one["loc"], one["input"]) for one in found):
        raise _too_new(file, ", ".join(".".join(map(str, one["loc"])) for one in found)) from error


def refuse_format(file: Path, needed: int | None) -> None:
    """Refuse a bundle whose files this release cannot read.

    Raises:
        BundleTooNew: says what it needs.
    """
    if needed is not None and needed > NEWEST_FORMAT:
        raise _too_new(file, f"format {needed}, only those up to {NEWEST_FORMAT}")


def _is_older(place: tuple[int | str, ...], value: object) -> bool:
    """Whether this is the schema of an older release."""
    return place == ("schema",) and not (isinstance(value, int) and value > BUNDLE_SCHEMA)


def _too_new(file: Path, what: str) -> BundleTooNew:
    return BundleTooNew(
        f"{file}: a newer release made this bundle, and this one does not know {what}; run the newer release, or activate an older bundle"
    )
