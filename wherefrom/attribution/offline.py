"""Attribution of a file of queries without a service: citations as JSONL, or the exact score of every pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.batching import pack_queries
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.corpus import CorpusRow, ReadAs, Turns, parse_row, read_jsonl
from wherefrom.attribution.interface import OverLong
from wherefrom.attribution.kernel import cosines
from wherefrom.attribution.output_group import ReadGroup, TokenizedGroup
from wherefrom.attribution.progress import Progress
from wherefrom.attribution.query import ReadQuery, TokenizedQuery
from wherefrom.errors import EmptyCorpus, InvalidRecord, OutputTooLong, PermanentError
from wherefrom.records import Attribution, Query, Span
from wherefrom.records.explain import first_problem

T = TypeVar("T")
#: Tokens, padding included, of one pass over queries.
BATCH_TOKENS = 2048
#: A query is the prompt and one completion, whatever its earlier turns were.
_ONE_ANSWER = ReadAs(turns=Turns.LAST)
#: Corpus rows whose factors are unpacked at once when every pair is scored.
_SCORE_ROWS = 512


def read_queries(file: Path, *, skip_bad: bool = False) -> tuple[list[Query], int]:
    """Queries of a JSONL file: rows as in a corpus, with optional `spans` and `preferred`, or flagged-output records.

    Returns:
        The queries, and how many bad lines were skipped.

    Raises:
        InvalidRecord: a line is malformed; the text names the line. Nothing of the file is taken then.
        EmptyCorpus: the file holds no query.
    """
    return read_each(file, query_of, skip_bad=skip_bad)


def read_each(file: Path, read: Callable[[CorpusRow], T], *, skip_bad: bool = False) -> tuple[list[T], int]:
    """What `read` makes of each line of a JSONL file of queries, and how many bad lines were skipped.

    Raises:
        InvalidRecord: as of `read_queries`.
        EmptyCorpus: the file holds no query.
    """
    if not file.is_file():
        raise InvalidRecord(f"{file}: file not found")
    found: list[T] = []
    skipped = 0
    for place, content in read_jsonl(file):
        try:
            row = parse_row(content, default_id=f"query-{len(found) + skipped:06d}", how=_ONE_ANSWER)
            found.append(read(row))
        except InvalidRecord as error:
            if not skip_bad:
                raise InvalidRecord(f"{place}: {error}") from error
            skipped += 1
    if not found:
        raise EmptyCorpus(f"{file}: no usable query ({skipped} bad lines skipped)")
    return found, skipped


def query_of(row: CorpusRow) -> Query:
    """The query of one row of a file.

    Raises:
        InvalidRecord: a field has another shape.
    """
    listed = row.fields.get("spans") or []
    if not isinstance(listed, list):
        raise InvalidRecord("`spans` must be a list of {start, end}")
    try:
        spans = tuple(Span.model_validate(span) for span in listed)
        return Query(
            key=str(row.fields.get("idempotency_key") or row.example_id),
            turns=row.turns,
            completion=row.completion,
            plain_prompt=row.plain_prompt,
            context=row.context,
            spans=spans,
            preferred=row.fields.get("preferred"),
            token_ids=row.fields.get("token_ids"),
        )
    except ValidationError as error:
        place, what = first_problem(error)
        raise InvalidRecord(f"field `{place}`: {what}") from error


def prepare_all(
    attributor: LanguageAttributor, queries: Sequence[Query], *, max_tokens: int, over_long: OverLong
) -> list[TokenizedQuery]:
    """Queries as tokens; the first one that cannot be used raises."""
    return [attributor.prepare(query, max_tokens=max_tokens, over_long=over_long) for query in queries]


@dataclass(frozen=True)
class Rejection:
    """A query that cannot be attributed, and why."""

    key: str
    code: str
    reason: str


def prepare_usable(
    attributor: LanguageAttributor,
    queries: Sequence[Query],
    *,
    max_tokens: int,
    over_long: OverLong,
    skip_bad: bool,
) -> tuple[list[TokenizedQuery], list[Rejection]]:
    """Queries as tokens, and those that were left out: over-long ones, and with `skip_bad` whatever cannot become tokens.

    Raises:
        PermanentError: a query cannot become tokens and `skip_bad` is not set, or no query is left; the first one's own error.
    """
    prepared: list[TokenizedQuery] = []
    rejected: list[Rejection] = []
    refused = PermanentError if skip_bad else OutputTooLong
    first: PermanentError | None = None
    for query in queries:
        try:
            prepared.append(attributor.prepare(query, max_tokens=max_tokens, over_long=over_long))
        except refused as error:
            first = first or error
            rejected.append(Rejection(query.key, error.code, str(error)))
    if first is not None and not prepared:
        raise first
    return prepared, rejected


def attribute_all(
    attributor: LanguageAttributor,
    prepared: Sequence[TokenizedQuery | TokenizedGroup],
    *,
    top_k: int,
    opponents: int,
    progress: Progress,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Attribution]:
    """Attributions of all queries, in order."""
    found: dict[int, Attribution] = {}
    for batch in pack_queries(prepared, batch_tokens):
        answers = attributor.attribute([prepared[index] for index in batch], top_k=top_k, opponents=opponents)
        found.update(zip(batch, answers, strict=True))
        progress("attribute", len(found), len(prepared))
    return [found[index] for index in range(len(prepared))]


def signals_of_all(
    attributor: LanguageAttributor, prepared: Sequence[TokenizedQuery], *, batch_tokens: int = BATCH_TOKENS
) -> list[ReadQuery]:
    """All queries as the model read them, in order."""
    found: dict[int, ReadQuery] = {}
    for batch in pack_queries(prepared, batch_tokens):
        found.update(zip(batch, attributor.signals([prepared[index] for index in batch]), strict=True))
    return [found[index] for index in range(len(prepared))]


def exact_scores(
    bundle: Bundle, queries: Sequence[ReadQuery | ReadGroup], progress: Progress
) -> npt.NDArray[np.float32]:
    """Influence score (kernel cosine) of every query with every training example, float32 `[Q, N]` in corpus order."""
    count = len(bundle.store)
    scores = np.empty((len(queries), count), dtype=np.float32)
    for first in range(0, count, _SCORE_ROWS):
        rows = np.arange(first, min(first + _SCORE_ROWS, count))
        for index, query in enumerate(queries):
            kernel = bundle.store.scores(query.signals.factors, rows)[0].numpy()
            scores[index, rows] = cosines(kernel, float(query.signals.norm), bundle.store.norms[rows])
        progress("score every pair", int(rows[-1]) + 1, count)
    return scores
