"""Makes a bundle of another one with fewer or more training examples: what belongs to rows is written anew, the rest is shared.

Statistics of the whole corpus (whitening, projection, centre of the similarity, row curvature, usual shares, the learned adjoint, EK-FAC factors, the calibration) stay as they were
fitted on the first bundle, so the scores of the rows that stay do not change. What searches is built anew by what builds it for a new bundle: vector indexes, BM25, near-duplicate groups. BM25 weighs words by the rows
that are there. A shared file is a hard link where the file system has them, else a copy.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherefrom.attribution.bundles.entries import format_of
from wherefrom.attribution.bundles.examples import (
    EXAMPLE_OFFSETS,
    EXAMPLES,
    WrittenExamples,
    write_examples,
)
from wherefrom.attribution.bundles.features import write_words
from wherefrom.attribution.bundles.indexes import write_indexes
from wherefrom.attribution.bundles.manifest import (
    CARD,
    MANIFEST,
    CorpusEntry,
    DerivedEntry,
    FileEntry,
    IndexEntry,
    Manifest,
    hash_file,
    read_card,
)
from wherefrom.attribution.bundles.row_arrays import OF_ROWS
from wherefrom.attribution.bundles.tokens import TokenRows
from wherefrom.attribution.ekfac.path import FOLDER as EKFAC
from wherefrom.attribution.explanation.modules import USUAL_SHARES
from wherefrom.attribution.groups import GROUPS
from wherefrom.attribution.models.adjoint import ADJOINT
from wherefrom.attribution.retrieval.encoder import ENCODER
from wherefrom.attribution.retrieval.index_drivers import DriverName
from wherefrom.errors import BundleCorrupt
from wherefrom.index_settings import MilvusServer
from wherefrom.records import TrainingExample, utc_now

#: From this share of rows that came or went since the statistics were fitted, a new build is due (docs/experiments.md has the measurement).
REBUILD_SHARE = 0.2

#: Written anew from texts and arrays.
_REBUILT = frozenset({EXAMPLES, EXAMPLE_OFFSETS, GROUPS, CARD})
_REBUILT_FOLDERS = ("index/", "lexical/", f"{EKFAC}/")
#: The same whichever rows there are.
_SHARED = frozenset(
    {
        "whitening.safetensors",
        "projection.safetensors",
        "calibration.json",
        ADJOINT,
        USUAL_SHARES,
        "features/pooled_centre.npy",
        "features/pooled_basis.npy",
        "features/final_whitening.safetensors",
        "features/row_curvature.npy",
    }
)
_SHARED_FOLDERS = (f"{ENCODER}/",)


def check_known_files(bundle: Path, manifest: Manifest) -> None:
    """Refuse a bundle with a file of which nobody said whether it holds something of its rows.

    Raises:
        BundleCorrupt: names the file.
    """
    for name in manifest.files:
        known = name in OF_ROWS | _REBUILT or name.startswith(_REBUILT_FOLDERS)
        if not known and not _is_shared(name):
            raise BundleCorrupt(
                f"{bundle}: this release does not know whether {name} holds something of training examples; build the bundle again"
            )


def share_files(bundle: Path, manifest: Manifest, target: Path) -> frozenset[Path]:
    """Put the files that do not depend on the rows into the folder of a new bundle, and make its other folders; the files there."""
    for folder in ("features", "corpus", "index", "lexical"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    shared = frozenset(target / name for name in manifest.files if _is_shared(name))
    for file in shared:
        file.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(bundle / file.relative_to(target), file)
    return shared


def _is_shared(name: str) -> bool:
    return name in _SHARED or name.startswith(_SHARED_FOLDERS)


def link_or_copy(source: Path, target: Path) -> None:
    """Let both be one file where the file system can; a copy where it cannot."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


@dataclass(frozen=True)
class Searched:
    """What was written of texts and vectors."""

    written: WrittenExamples
    #: The driver and what its indexes lose.
    index: IndexEntry


def write_searched(
    target: Path, examples: Iterable[TrainingExample], driver: DriverName, milvus: MilvusServer | None
) -> Searched:
    """Write the texts, and what is made of them and of arrays that are there: BM25, near-duplicate groups, vector indexes.

    Args:
        target: folder of the new bundle.
        examples: its rows, read once.
        driver: what makes the vector indexes.
        milvus: where Milvus is.

    Returns:
        What the manifest says of both.
    """
    written = write_examples(
        target, (one.model_copy(update={"row": row}) for row, one in enumerate(examples))
    )
    write_words(target)
    return Searched(written, write_indexes(target, written.originals, driver, milvus=milvus))


@dataclass(frozen=True)
class Change:
    """How the rows of a derived bundle differ from those of the one that it was made of."""

    erased: int = 0
    added: int = 0
    #: Further rows that were left out or cut, of those that were added.
    skipped: int = 0
    truncated: int = 0


def finish(target: Path, searched: Searched, *, bundle: Path, parent: Manifest, change: Change) -> Manifest:
    """Write card and manifest of a folder that has everything else.

    Args:
        target: the folder.
        searched: of `write_searched`.
        bundle: what it was made of, and `parent` its manifest.
        parent: see `bundle`.
        change: how the rows differ.

    Raises:
        BundleCorrupt: the card of `bundle` cannot be read.
    """
    derived, index = _derived(parent, change), searched.index
    corpus = _corpus(target, searched.written, parent.corpus, change)
    card = _card(target, _card_of(bundle), parent, corpus=corpus, derived=derived)
    card |= {"index": index.model_dump(mode="json")}
    (target / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    manifest = parent.model_copy(
        update={
            "created_at": utc_now(),
            "format": format_of(target),
            "corpus": corpus,
            "parameters": parent.parameters.fitting(corpus.examples),
            "derived": derived,
            "index": index,
            "files": {name: _entry(target, name, parent) for name in _names(target)},
        }
    ).sealed()
    (target / MANIFEST).write_bytes(manifest.to_bytes())
    return manifest


def _names(folder: Path) -> Iterator[str]:
    return (str(one.relative_to(folder)) for one in sorted(folder.rglob("*")) if one.is_file())


def _entry(target: Path, name: str, parent: Manifest) -> FileEntry:
    return parent.files[name] if _is_shared(name) else hash_file(target / name)


def _derived(parent: Manifest, change: Change) -> DerivedEntry:
    before = parent.derived
    return DerivedEntry(
        parent=parent.name,
        statistics_rows=parent.corpus.examples if before is None else before.statistics_rows,
        erased=change.erased + (0 if before is None else before.erased),
        added=change.added + (0 if before is None else before.added),
        fitted_on=tuple(sorted(parent.fitted_on)),
    )


def _corpus(target: Path, written: WrittenExamples, before: CorpusEntry, change: Change) -> CorpusEntry:
    tokens = TokenRows(target)
    return before.model_copy(
        update={
            "sha256": written.sha256,
            "examples": written.count,
            "tokens": tokens.tokens(0, len(tokens)),
            "completion_tokens": tokens.explained_tokens(),
            "skipped": before.skipped + change.skipped,
            "truncated": before.truncated + change.truncated,
        }
    )


def _card(
    target: Path,
    card: dict[str, Any],
    parent: Manifest,
    *,
    corpus: CorpusEntry,
    derived: DerivedEntry,
) -> dict[str, Any]:
    size = sum((target / name).stat().st_size for name in _names(target))
    cost = {"bundle_bytes": size, "bytes_per_example": size / corpus.examples}
    facts = {
        "made_of": parent.name,
        "rows_erased": derived.erased,
        "rows_added": derived.added,
        "rows_of_the_statistics": derived.statistics_rows,
        "rebuild_due": "yes" if derived.changed_share >= REBUILD_SHARE else "no",
    }
    kept = {name: value for name, value in card.items() if name != "plots"}
    return kept | {
        "quality": None,
        "quality_reason": f"not measured since the rows of {parent.name} were changed",
        "cost": dict(card.get("cost") or {}) | cost,
        "derived": facts,
    }


def _card_of(bundle: Path) -> dict[str, Any]:
    try:
        return read_card(bundle)
    except (OSError, ValueError) as error:
        raise BundleCorrupt(f"{bundle}: the card cannot be read: {error}") from error
