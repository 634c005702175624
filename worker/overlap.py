"""Bundles without a model: examples only, cited by word overlap. For trying queue and database where no model is at hand.

Such a bundle says so: its form is ``overlap``, in the database and on every page. `wherefrom build` makes none. The folder holds
one file, whose hash is the corpus hash that the database has.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from wherefrom.attribution.memory import OverlapAttributor
from wherefrom.errors import BundleCorrupt, UnknownBundle
from wherefrom.records import BundleInfo, TrainingExample

OVERLAP_FORM = "overlap"
_EXAMPLES = "examples.jsonl"


def write_overlap_bundle(folder: Path, examples: Iterable[TrainingExample]) -> str:
    """Make the folder of such a bundle; the hash of its corpus."""
    folder.mkdir(parents=True)
    text = "".join(f"{example.model_dump_json()}\n" for example in examples)
    (folder / _EXAMPLES).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_overlap_bundle(bundle: BundleInfo, folder: Path) -> list[TrainingExample]:
    """The examples, after checking their hash.

    Raises:
        UnknownBundle: the folder has no such file.
        BundleCorrupt: the file was changed.
    """
    try:
        content = (folder / _EXAMPLES).read_bytes()
    except OSError as error:
        raise UnknownBundle(f"bundle {bundle.name}: {folder / _EXAMPLES}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != bundle.corpus_sha256:
        raise BundleCorrupt(f"bundle {bundle.name}: {_EXAMPLES} has changed")
    return [TrainingExample.model_validate_json(line) for line in content.splitlines()]


def open_overlap_bundle(bundle: BundleInfo, folder: Path) -> OverlapAttributor:
    """The engine over such a bundle; see `read_overlap_bundle`."""
    return OverlapAttributor(bundle.name, read_overlap_bundle(bundle, folder))
