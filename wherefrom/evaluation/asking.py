"""Opens a bundle and sends queries through it, for whoever looks at whole rankings rather than at citations."""

from collections.abc import Sequence
from pathlib import Path

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.batching import pack_queries
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import BATCH_TOKENS, prepare_all, read_queries, signals_of_all
from wherefrom.attribution.progress import Progress, silent
from wherefrom.attribution.query import ReadQuery, ScoredQuery
from wherefrom.records import Message, Query, Role

#: Token limit of prompt and completion together, where the caller has none of its own.
MAX_TOKENS = 1024


def built_bundle(folders: ModelFolders, corpus: Path, out: Path, options: BuildOptions) -> Bundle:
    """The opened bundle at a folder; built where it is not there yet.

    Raises:
        PermanentError: it cannot be built, or it is not a bundle of this model.
    """
    if not out.is_dir():
        build_bundle(folders=folders, corpus_path=corpus, out=out, options=options, progress=silent)
    return open_bundle(out, folders, placement=options.placement, milvus=options.index.milvus)


def question(key: str, prompt: str, completion: str) -> Query:
    """A query with one turn of a user before the completion."""
    return Query(key=key, turns=(Message(role=Role.USER, content=prompt),), completion=completion)


def read_file(attributor: LanguageAttributor, file: Path, *, max_tokens: int = MAX_TOKENS) -> list[ReadQuery]:
    """The queries of a JSONL file as the model read them, in order; over-long ones are cut.

    Raises:
        PermanentError: a query is malformed or cannot be read.
    """
    queries = read_queries(file)[0]
    return signals_of_all(
        attributor, prepare_all(attributor, queries, max_tokens=max_tokens, over_long="truncate")
    )


def ask(
    attributor: LanguageAttributor,
    queries: Sequence[Query],
    *,
    max_tokens: int = MAX_TOKENS,
    progress: Progress = silent,
) -> list[ScoredQuery]:
    """Send queries through search and scoring; acceptable answers are left aside, because banks hold losses of the completion.

    Raises:
        PermanentError: a query cannot be attributed.
    """
    plain = [query.model_copy(update={"preferred": None}) for query in queries]
    prepared = prepare_all(attributor, plain, max_tokens=max_tokens, over_long="truncate")
    found: dict[int, ScoredQuery] = {}
    for batch in pack_queries(prepared, BATCH_TOKENS):
        read = attributor.signals([prepared[index] for index in batch])
        found.update(zip(batch, map(attributor.score, read), strict=True))
        progress("ask", len(found), len(prepared))
    return [found[index] for index in range(len(prepared))]
