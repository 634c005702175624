"""The texts of a bundle's corpus: written once, read by row.

One JSON line per training example in corpus order, and beside it the byte offset of each line.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wherefrom.records import TrainingExample

EXAMPLES = "corpus/examples.jsonl"
EXAMPLE_OFFSETS = "corpus/offsets.npy"


def searched_text(example: TrainingExample) -> str:
    """Prompt and completion as one text: what BM25, near-duplicate groups and a sentence encoder are given of a training example."""
    return f"{example.prompt}\n{example.completion}"


def write_examples(bundle: Path, examples: Iterator[TrainingExample]) -> list[str]:
    """Store the texts of the corpus with the byte offset of each row; returns `searched_text` of each."""
    (bundle / "corpus").mkdir(parents=True, exist_ok=True)
    offsets, texts = [0], []
    with (bundle / EXAMPLES).open("wb") as lines:
        for example in examples:
            lines.write(example.model_dump_json().encode("utf-8") + b"\n")
            offsets.append(lines.tell())
            texts.append(searched_text(example))
    np.save(bundle / EXAMPLE_OFFSETS, np.array(offsets, dtype=np.int64))
    return texts


def iter_examples(bundle: Path) -> Iterator[TrainingExample]:
    """All training examples of a bundle, in corpus order."""
    with (bundle / EXAMPLES).open("rb") as lines:
        for line in lines:
            yield TrainingExample.model_validate_json(line)


class ExampleTexts:
    """Reads single training examples of a bundle by row."""

    def __init__(self, bundle: Path) -> None:
        self._file = bundle / EXAMPLES
        self._offsets = np.load(bundle / EXAMPLE_OFFSETS, mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def read(self, rows: list[int]) -> list[TrainingExample]:
        """The examples of the given rows, in that order."""
        found = []
        with self._file.open("rb") as lines:
            for row in rows:
                lines.seek(int(self._offsets[row]))
                found.append(TrainingExample.model_validate_json(lines.readline()))
        return found
