"""The corpus without the rows of a fix list, read and written row by row.

A row is left out where its id and its text are those that people judged. A row with the id and another text stops everything: that is not the corpus
that was judged, and leaving out by id alone would take good rows away.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherefrom.attribution.corpus.files import corpus_files
from wherefrom.attribution.corpus.reading import read_row
from wherefrom.attribution.corpus.rows import CorpusRow, ReadAs
from wherefrom.attribution.corpus.tables import raw_rows
from wherefrom.errors import InvalidRecord


@dataclass
class Cleaned:
    """What was done so far."""

    kept: int = 0
    #: Ids of rows that were left out, in the order of the corpus.
    left_out: list[str] = field(default_factory=list)


def cleaned_rows(
    corpus: Path, leaving: Mapping[str, frozenset[str]], *, how: ReadAs | None = None, done: Cleaned
) -> Iterator[Any]:
    """Rows of a corpus as they stand in its files, without those that leave.

    Args:
        corpus: The file or folder.
        leaving: Hashes of the texts that leave, by the id of the training example; none where the text was erased, and whatever has the id leaves.
        how: How the corpus was read when the bundle was built.
        done: Counts along.

    Raises:
        InvalidRecord: a row cannot be read, or has the id of one that leaves and another text.
    """
    asked = how or ReadAs()
    for number, (place, content) in enumerate(_contents(corpus, asked)):
        try:
            row = read_row(content, default_id=f"row-{number:06d}", how=asked).row
            leaves = row is not None and _leaves(row, leaving)
        except InvalidRecord as error:
            raise InvalidRecord(f"{place}: {error}") from error
        if leaves and row is not None:
            done.left_out.append(row.example_id)
        else:
            done.kept += 1
            yield content


def write_lines(rows: Iterable[Any], file: Path) -> None:
    """Write rows as JSON lines."""
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _contents(corpus: Path, how: ReadAs) -> Iterator[tuple[str, Any]]:
    for file in corpus_files(corpus, split=how.split).files:
        yield from raw_rows(file)


def _leaves(row: CorpusRow, leaving: Mapping[str, frozenset[str]]) -> bool:
    texts = leaving.get(row.example_id)
    if texts is None:
        return False
    if texts and row.text_sha256() not in texts:
        raise InvalidRecord(
            f"the training example {row.example_id!r} has another text than the one on the fix list; "
            "give the corpus from which the bundle was built, read with the same options"
        )
    return True
