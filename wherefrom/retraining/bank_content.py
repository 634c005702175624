"""What a bank was made with, by content: the rows of its corpus and its queries, each in order.

A bank's arrays have one column per row and per query, and say nothing else of them. Another corpus of the same size would fit as well, so every file of a bank
carries two kinds of digests: that of the corpus, which is the one in the manifest of a bundle, and that of each file of queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from wherefrom.errors import ConfigurationError, InvalidRecord
from wherefrom.records import Query, sha256_of_json

_CORPUS = "corpus_sha256"
_QUERIES = "queries_sha256."
#: What is told where a bank of an earlier release is used.
UNTIED = (
    "the bank does not say which corpus and queries it was made with, because an earlier release made it; only their numbers were compared. "
    "Make the bank again to have the content compared"
)


@dataclass(frozen=True)
class BankContent:
    """Digests of a bank's corpus and queries; what an earlier release did not write is missing."""

    corpus_sha256: str | None = None
    #: By name of the query file.
    queries_sha256: Mapping[str, str] = field(default_factory=dict)

    def arrays(self) -> dict[str, Any]:
        """The arrays that stand in a file of the bank."""
        queries = {_QUERIES + name: np.array(one) for name, one in self.queries_sha256.items()}
        return queries if self.corpus_sha256 is None else {_CORPUS: np.array(self.corpus_sha256)} | queries

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """What the arrays of a file say."""
        said = {name: str(value.item()) for name, value in arrays.items() if is_content(name)}
        corpus = said.pop(_CORPUS, None)
        return cls(corpus, {name.removeprefix(_QUERIES): one for name, one in said.items()})

    @classmethod
    def joined(cls, parts: Mapping[str, Self]) -> Self:
        """What all files of a bank say; what one of them does not say is not known of the bank.

        Args:
            parts: By name of the file.

        Raises:
            InvalidRecord: two files were made with other things; the text names one.
        """
        first = next(iter(parts.values()))
        known = list(first.queries_sha256)
        for file, part in parts.items():
            if not first.agrees(part):
                raise InvalidRecord(
                    f"{file}: made with another corpus or other queries than the bank's first file"
                )
            known = [name for name in known if name in part.queries_sha256]
        corpus = None if any(part.corpus_sha256 is None for part in parts.values()) else first.corpus_sha256
        return cls(corpus, {name: first.queries_sha256[name] for name in known})

    def agrees(self, other: "BankContent") -> bool:
        """Whether nothing that both say differs."""
        both = self.queries_sha256.keys() & other.queries_sha256.keys()
        return _agree(self.corpus_sha256, other.corpus_sha256) and all(
            self.queries_sha256[name] == other.queries_sha256[name] for name in both
        )

    def check(self, *, corpus_sha256: str, name: str, queries: Sequence[Query]) -> str | None:
        """Compare with a bundle's corpus and with the queries that are asked.

        Args:
            corpus_sha256: as the bundle's manifest has it.
            name: of the queries in the bank.
            queries: as they were read.

        Returns:
            What could not be compared, in words; None where everything was.

        Raises:
            ConfigurationError: the bank was made with another corpus, or with other queries.
        """
        for what, mine, given in (
            ("corpus", self.corpus_sha256, corpus_sha256),
            (f"queries {name!r}", self.queries_sha256.get(name), queries_sha256(queries)),
        ):
            if not _agree(mine, given):
                raise ConfigurationError(
                    f"the bank was made with another {what} than this (SHA-256 {str(mine)[:12]}, here {given[:12]}): rows differ, or their order, or how they were read. "
                    "Give the bank of this corpus and these queries"
                )
        known = self.corpus_sha256 is not None and name in self.queries_sha256
        return None if known else UNTIED


def _agree(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


def is_content(array: str) -> bool:
    """Whether an array of a bank's file is a digest."""
    return array == _CORPUS or array.startswith(_QUERIES)


def queries_sha256(queries: Sequence[Query]) -> str:
    """SHA-256 over what was asked, in order; names do not count."""
    said = {"turns", "completion", "plain_prompt", "spans", "token_ids", "context"}
    return sha256_of_json(
        [one.model_dump(mode="json", include=said, exclude_defaults=True) for one in queries]
    )
