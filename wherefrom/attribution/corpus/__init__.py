"""Reads a training corpus as people have it into rows that can be cited.

Files and splits (`files`), what is in them (`tables`, `json_files`, `arrow_files`), which format a row has (`dialects`), which of its turns training trained
(`training`), and the row that comes of it (`rows`). Tokens are not made here (`models.render`), hashes of files neither (`bundles.manifest`).
"""

from wherefrom.attribution.corpus.json_files import read_jsonl
from wherefrom.attribution.corpus.reading import parse_row, read_corpus, store_corpus
from wherefrom.attribution.corpus.rows import (
    Corpus,
    CorpusDigest,
    CorpusRow,
    ReadAs,
    Reading,
    Turns,
    corpus_sha256_of,
)

__all__ = [
    "Corpus",
    "CorpusDigest",
    "CorpusRow",
    "ReadAs",
    "Reading",
    "Turns",
    "corpus_sha256_of",
    "parse_row",
    "read_corpus",
    "read_jsonl",
    "store_corpus",
]
