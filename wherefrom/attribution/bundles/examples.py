"""The texts of a bundle's corpus: written once, read by row.

One JSON line per training example in corpus order, and beside it the byte offset of each line.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.array_files import OffsetsFile, mapped
from wherefrom.attribution.batching import in_parts
from wherefrom.attribution.bundles.tokens import ROWS_AT_ONCE
from wherefrom.attribution.corpus import CorpusDigest
from wherefrom.attribution.first_seen import FirstSeen
from wherefrom.records import TrainingExample

EXAMPLES = "corpus/examples.jsonl"
EXAMPLE_OFFSETS = "corpus/offsets.npy"


def searched_text(example: TrainingExample) -> str:
    """Prompt and completion as one text: what BM25, near-duplicate groups and a sentence encoder are given of a training example."""
    return f"{example.prompt}\n{example.completion}"


@dataclass(frozen=True)
class WrittenExamples:
    """What is known of a corpus when its texts are written."""

    count: int
    #: SHA-256 over ids and text hashes in order.
    sha256: str
    #: For each row the first one with the same text (`retrieval.index.Copies`), int64 `[N]`.
    originals: npt.NDArray[np.int64]


def write_examples(bundle: Path, examples: Iterable[TrainingExample]) -> WrittenExamples:
    """Store the texts of the corpus, in its order, with the byte offset of each row."""
    (bundle / "corpus").mkdir(parents=True, exist_ok=True)
    digest, originals = CorpusDigest(), array("q")
    with (
        TemporaryDirectory(dir=bundle) as aside,
        FirstSeen[int](Path(aside) / "texts.sqlite") as seen,
        (bundle / EXAMPLES).open("wb") as lines,
        OffsetsFile(bundle / EXAMPLE_OFFSETS) as offsets,
    ):
        for part in in_parts(examples, ROWS_AT_ONCE):
            offsets.append_rows([lines.write(_line(one)) for one in part])
            for one in part:
                digest.add(one.example_id, one.text_sha256)
                first = seen.first(one.text_sha256, len(originals))
                originals.append(len(originals) if first is None else first)
    return WrittenExamples(len(originals), digest.hexdigest(), np.array(originals, dtype=np.int64))


def _line(example: TrainingExample) -> bytes:
    return example.model_dump_json().encode("utf-8") + b"\n"


def iter_examples(bundle: Path) -> Iterator[TrainingExample]:
    """All training examples of a bundle, in corpus order."""
    with (bundle / EXAMPLES).open("rb") as lines:
        for line in lines:
            yield TrainingExample.model_validate_json(line)


def iter_texts(bundle: Path) -> Iterator[str]:
    """`searched_text` of all training examples of a bundle, in corpus order."""
    return map(searched_text, iter_examples(bundle))


class ExampleTexts:
    """Reads single training examples of a bundle by row."""

    def __init__(self, bundle: Path) -> None:
        self._bundle, self._file = bundle, bundle / EXAMPLES
        self._offsets = mapped(bundle / EXAMPLE_OFFSETS)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[TrainingExample]:
        """All of them, in corpus order."""
        return iter_examples(self._bundle)

    def read(self, rows: list[int]) -> list[TrainingExample]:
        """The examples of the given rows, in that order."""
        found = []
        with self._file.open("rb") as lines:
            for row in rows:
                lines.seek(int(self._offsets[row]))
                found.append(TrainingExample.model_validate_json(lines.readline()))
        return found
