"""The engine as a library: open a bundle, ask which training examples taught the model an output, look at the answer.

`from wherefrom import open_bundle` reaches everything here (docs/library.md). The service and the command line use the same engine; nothing
here knows a queue or a database.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles import bundle as bundles
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.manifest import Manifest, read_manifest
from wherefrom.attribution.bundles.model_location import find_model
from wherefrom.attribution.interface import OverLong
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.placement import Placement
from wherefrom.attribution.offline import attribute_all
from wherefrom.attribution.progress import silent
from wherefrom.client.records_in import read_record
from wherefrom.errors import ConfigurationError, InvalidRecord
from wherefrom.frames import table
from wherefrom.records import Attribution, CitationDraft, GroupMember, Message, Query, QueryGroup, Span
from wherefrom.records.bounds import MAX_MEMBERS
from wherefrom.settings import load_settings

if TYPE_CHECKING:
    import pandas as pd

StrPath = str | os.PathLike[str]

#: What a citation's example adds to its row of a table; its texts are told apart from the output's.
_EXAMPLE_COLUMNS = {
    "example_id": "example_id",
    "row": "row",
    "source": "source",
    "prompt": "example_prompt",
    "completion": "example_completion",
    "fields": "fields",
}
_CITATION_COLUMNS = tuple(name for name in CitationDraft.model_fields if name not in {"rank", "example"})


@dataclass(frozen=True)
class AttributionResult:
    """Which training examples taught the model one output.

    Influence and effects follow one sign rule: positive = the training example made the output more likely.
    """

    #: The query's name: its `id`, or `query-000000` and so on.
    key: str
    #: Content name of the bundle that answered.
    bundle: str
    #: The best training examples, best first: ranks 1, 2, ...
    citations: tuple[CitationDraft, ...]
    #: Training examples that made the output less likely, strongest first: ranks -1, -2, ...
    opponents: tuple[CitationDraft, ...]
    #: Mean loss of the explained tokens under the model, nats per token.
    loss_nats: float
    #: Tokens of the completion that were explained.
    tokens: int
    #: Whether the completion, or the preferred one beside it, was cut at the token limit.
    truncated: bool
    #: Training examples that were scored exactly.
    candidates: int
    #: Share of outputs without a cause in the corpus whose best citation is as good or better; None where the bundle is not calibrated.
    conformal_p: float | None
    #: Share of known outputs that lie as far from the corpus or farther; None where the bundle is not calibrated.
    novelty_p: float | None
    #: Why the citations are not to be relied on, in words; None where the bundle sees no reason, or is not calibrated.
    abstained: str | None
    #: Influence scores between minus this and this have no sign; None where the corpus is too small to tell.
    noise_level: float | None = None
    #: What the best of as many unrelated training examples may reach, and whether no influence score is more.
    noise_best: float | None = None
    weak: bool | None = None
    #: Of a group: its outputs, in the order of `member_influence` of the citations.
    members: tuple[GroupMember, ...] = ()

    @classmethod
    def of(cls, answer: Attribution, *, bundle: str) -> Self:
        """The engine's answer, citations apart from opponents."""
        return cls(
            bundle=bundle,
            citations=tuple(one for one in answer.citations if one.rank > 0),
            opponents=tuple(one for one in answer.citations if one.rank < 0),
            **{name: getattr(answer, name) for name in _ANSWER_FIELDS},
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per citation, then one per opponent (their ranks are negative)."""
        shared = {"key": self.key, "bundle": self.bundle} | {
            name: getattr(self, name) for name in _ANSWER_FIELDS if name not in _NO_COLUMNS
        }
        for one in (*self.citations, *self.opponents):
            plain = one.model_dump(mode="json", exclude={"example", "rank"})
            example = {column: getattr(one.example, name) for name, column in _EXAMPLE_COLUMNS.items()}
            yield {**shared, "rank": one.rank, **example, **plain}

    def to_pandas(self) -> "pd.DataFrame":
        """A table with one row per citation and opponent; see docs/library.md for the columns.

        Raises:
            ConfigurationError: pandas is not installed.
        """
        return table(self.rows(), COLUMNS)


_ANSWER_FIELDS = tuple(
    one.name
    for one in fields(AttributionResult)
    if one.name in Attribution.model_fields and one.name != "citations"
)
#: Not in the tables, or there under a column of their own.
_NO_COLUMNS = {"key", "candidates", "members"}
#: Columns of the tables, in order.
COLUMNS = (
    "key", "bundle", *(name for name in _ANSWER_FIELDS if name not in _NO_COLUMNS),
    "rank", *_EXAMPLE_COLUMNS.values(), *_CITATION_COLUMNS,
)  # fmt: skip


class AttributionResults(Sequence[AttributionResult]):
    """The answers to many queries, in the order asked."""

    def __init__(self, results: Iterable[AttributionResult]) -> None:
        self._results = tuple(results)

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> AttributionResult: ...
    @overload
    def __getitem__(self, index: slice) -> "AttributionResults": ...
    def __getitem__(self, index: int | slice) -> "AttributionResult | AttributionResults":
        if isinstance(index, slice):
            return AttributionResults(self._results[index])
        return self._results[index]

    def to_pandas(self) -> "pd.DataFrame":
        """The tables of all answers, one under the other; `key` tells the queries apart."""
        return table((row for one in self._results for row in one.rows()), COLUMNS)


class OpenedBundle:
    """A bundle with its model in memory; made by `open_bundle`. One thread at a time."""

    def __init__(self, bundle: bundles.Bundle) -> None:
        self._manifest = bundle.manifest
        self._attributor: LanguageAttributor | None = LanguageAttributor(bundle)

    @property
    def name(self) -> str:
        """Content name of the bundle."""
        return self._manifest.name

    @property
    def manifest(self) -> Manifest:
        """What the bundle was built from, and how."""
        return self._manifest

    def attribute(  # noqa: PLR0913 - the fields of a flagged output, as everywhere
        self,
        *,
        completion: str,
        prompt: str | None = None,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        preferred: str | None = None,
        spans: Sequence[Span | tuple[int, int] | Mapping[str, int]] = (),
        top_k: int = 10,
        opponents: int = 3,
        important: bool = False,
        max_tokens: int = 1024,
        over_long: OverLong = "truncate",
    ) -> AttributionResult:
        """Which training examples taught the model this output.

        Args:
            completion: what the model answered.
            prompt: what it was asked, as one text; exactly one of `prompt` and `messages` is given.
            messages: the turns before the completion, each with `role` and `content`.
            preferred: an answer that would have been acceptable; the citations then explain the difference.
            spans: ranges of characters of the completion, end excluded, that are to be explained; all of it where there are none.
            top_k: number of citations.
            opponents: number of opponents at most.
            important: rescore the candidates by the full tier, where the bundle holds it.
            max_tokens: token limit of prompt and completion together.
            over_long: what happens above the limit.

        Raises:
            InvalidRecord: the output does not have the documented shape; the text names the field.
            EmptyCompletion, OutputTooLong, TemplateNotPrefix: it cannot become tokens.
            ConfigurationError: an option cannot be used, or the bundle is closed.
        """
        asked = {
            "prompt": prompt,
            "messages": messages,
            "completion": completion,
            "preferred": preferred,
            "spans": spans,
        }
        return self.attribute_many(
            [{name: value for name, value in asked.items() if value is not None}],
            top_k=top_k,
            opponents=opponents,
            important=important,
            max_tokens=max_tokens,
            over_long=over_long,
        )[0]

    def attribute_many(
        self,
        outputs: Iterable[Mapping[str, Any]],
        *,
        top_k: int = 10,
        opponents: int = 3,
        important: bool = False,
        max_tokens: int = 1024,
        over_long: OverLong = "truncate",
    ) -> AttributionResults:
        """The same for many outputs, which share passes through the model; answers stand in the order asked.

        Args:
            outputs: mappings with the fields of `attribute` (`prompt` or `messages`, `completion`, `preferred`, `spans`), and an
                `id` that becomes the answer's `key`.
            top_k: see `attribute`, as for the other options.
            opponents: the same.
            important: the same.
            max_tokens: the same.
            over_long: the same.

        Raises:
            PermanentError: as for `attribute`; the text names the output, and nothing is attributed.
        """
        attributor = self._opened()
        _check_options(top_k=top_k, opponents=opponents, max_tokens=max_tokens, over_long=over_long)
        queries = [self._query(one, index, important=important) for index, one in enumerate(outputs)]
        prepared = [
            attributor.prepare(query, max_tokens=max_tokens, over_long=over_long) for query in queries
        ]
        found = attribute_all(attributor, prepared, top_k=top_k, opponents=opponents, progress=silent)
        return AttributionResults(AttributionResult.of(one, bundle=self.name) for one in found)

    def attribute_group(
        self,
        outputs: Iterable[Mapping[str, Any]],
        *,
        against: Iterable[Mapping[str, Any]] = (),
        key: str = "group",
        top_k: int = 10,
        opponents: int = 3,
        max_tokens: int = 1024,
        over_long: OverLong = "truncate",
    ) -> AttributionResult:
        """Which training examples taught the model what several outputs have in common.

        Args:
            outputs: as of `attribute_many`, up to 256.
            against: acceptable answers to such prompts, in the same form; what the outputs share with them counts for nothing.
            key: the answer's `key`.
            top_k: see `attribute`, as for the other options.
            opponents: the same.
            max_tokens: the same, of each output.
            over_long: the same.

        Raises:
            PermanentError: as for `attribute_many`, or an acceptable answer is one of the outputs.
        """
        attributor = self._opened()
        _check_options(top_k=top_k, opponents=opponents, max_tokens=max_tokens, over_long=over_long)
        members, answers = (
            tuple(self._query(one, index, important=False) for index, one in enumerate(some))
            for some in (outputs, against)
        )
        for what, some in (("outputs", members), ("against", answers)):
            if len(some) > MAX_MEMBERS or (what == "outputs" and not some):
                raise ConfigurationError(f"{what}: {len(some)} given; a group has 1 to {MAX_MEMBERS}")
        group = QueryGroup(key=key, members=members, against=answers)
        prepared = attributor.prepare_group(group, max_tokens=max_tokens, over_long=over_long)
        found = attribute_all(attributor, [prepared], top_k=top_k, opponents=opponents, progress=silent)
        return AttributionResult.of(found[0], bundle=self.name)

    def _opened(self) -> LanguageAttributor:
        """The engine.

        Raises:
            ConfigurationError: the bundle is closed.
        """
        if self._attributor is None:
            raise ConfigurationError(f"bundle {self.name} is closed; open it again")
        return self._attributor

    def close(self) -> None:
        """Let go of the model and of the bundle's files; closing twice is no error."""
        self._attributor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _query(self, output: Mapping[str, Any], index: int, *, important: bool) -> Query:
        given = dict(output)
        key = str(given.pop("id", None) or f"query-{index:06d}")
        given["spans"] = [_span(one) for one in given.get("spans") or ()]
        try:
            record = read_record({"model": self._manifest.model.name, **given})
        except InvalidRecord as error:
            raise InvalidRecord(f"output {key}: {error}") from error
        return Query.from_record(key, record, important=important)


def open_bundle(
    path: StrPath,
    *,
    model: StrPath | None = None,
    adapter: StrPath | None = None,
    start: StrPath | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> OpenedBundle:
    """Open a bundle that `wherefrom build` made; checks every file of it and loads its model, which takes seconds.

    Args:
        path: folder of the bundle.
        model: folder of the model that the bundle explains. Without it, the folders that were built from are used where they are still there, or
            those in the setting `models_dir`.
        adapter: folder of its LoRA adapter, where it has one.
        start: folder of the weights that a full fine-tune began with, for bundles built with `--midpoint` without an adapter.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        dtype: numbers of the pass through the model: `auto` (bfloat16 on a GPU, else float32), `float32` or `bfloat16`.

    Raises:
        ConfigurationError: the device is not on this machine, or does not compute with these numbers.
        OutOfMemory: the model does not fit there.
        UnknownBundle, BundleCorrupt: there is no usable bundle at `path`.
        BundleMismatch: the model or the adapter is not the one that the bundle was built for.
        UnusableModel, UnsafeWeights: the model cannot be loaded, or is not found.
    """
    folders = [None if one is None else Path(one) for one in (model, adapter, start)]
    placement = Placement.resolve(device, dtype)
    return OpenedBundle(open_with_model(Path(path), *folders, placement=placement))


def open_with_model(
    path: Path,
    model: Path | None,
    adapter: Path | None,
    start: Path | None = None,
    *,
    placement: Placement,
    hashes: HashMemory | None = None,
) -> bundles.Bundle:
    """Open a bundle with the model that is named, or with the one that is found where none is; `hashes`: see `bundles.open_bundle`."""
    settings = load_settings()
    if model is None:
        found = find_model(path, read_manifest(path, verify=False), settings.models_dir)
        model, adapter, start = found.model, adapter or found.adapter, start or found.start
    folders = ModelFolders(model, adapter, start)
    milvus = settings.milvus_server()
    return bundles.open_bundle(path, folders, placement=placement, milvus=milvus, hashes=hashes)


def _span(given: Any) -> Any:
    """`(start, end)` as the record writes it; anything else is for the record to judge."""
    if isinstance(given, Span):
        return given
    if isinstance(given, list | tuple) and len(given) == 2:
        return {"start": given[0], "end": given[1]}
    return given


def _check_options(*, top_k: object, opponents: object, max_tokens: object, over_long: str) -> None:
    for name, value, least in (
        ("top_k", top_k, 1),
        ("opponents", opponents, 0),
        ("max_tokens", max_tokens, 8),
    ):
        if not isinstance(value, int) or value < least:
            raise ConfigurationError(f"{name} must be a whole number from {least} on, not {value!r}")
    if over_long not in ("truncate", "reject"):
        raise ConfigurationError(f"over_long must be `truncate` or `reject`, not {over_long!r}")
