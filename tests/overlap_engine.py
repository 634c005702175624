"""An engine without a model for tests of the packages around it: word overlap, through the seam that anybody's engine uses.

It keeps the contract of `wherefrom.attribution.interface.Engine` (order, sign rule, errors), needs no torch and answers in
microseconds. Real worker processes and their spawned pool use it where the setting `engine` names `make_engine`. The folder of its bundles holds one
file, whose hash is the corpus hash that the database has.
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import billiard

from tasks import hint
from wherefrom.attribution.interface import KeepGoing, OverLong, PreparedQuery
from wherefrom.errors import (
    BundleCorrupt,
    ConfigurationError,
    EmptyCompletion,
    NotFound,
    OutputTooLong,
    UnknownBundle,
)
from wherefrom.records import (
    Attribution,
    BundleInfo,
    CitationDraft,
    ControlEffect,
    GroupRequest,
    MeasuredEffect,
    Method,
    Query,
    Tier,
    TrainingExample,
)
from wherefrom.settings import Settings
from worker.broker.transport import Channel
from worker.pool import connection_check

#: The setting `engine` that makes a process use this engine; `allow_other_engine` allows it.
ENGINE = "tests.overlap_engine:make_engine"
SLOW_ENGINE = "tests.overlap_engine:make_slow_engine"
ONE_BATCH_ENGINE = "tests.overlap_engine:make_one_batch_engine"
LATE_ENGINE = "tests.overlap_engine:make_late_engine"
#: Seconds until a pool process with the late engine is up, and seconds that it loads.
LATE_S, LOAD_S = 4.5, 2.5
DEAF_ENGINE = "tests.overlap_engine:make_deaf_engine"
#: Seconds of one pass of the slow engine.
SLOW_S = 0.7
LONG_ENGINE = "tests.overlap_engine:make_long_engine"
LONG_S = 5.0
FORM = "overlap"
_EXAMPLES = "examples.jsonl"


def make_engine(settings: Settings) -> "OverlapEngine":
    """The factory that the setting `engine` names."""
    return OverlapEngine(settings)


def make_slow_engine(settings: Settings) -> "OverlapEngine":
    """The same, but a pass takes long enough for a test to act while the worker is busy."""
    return SlowEngine(settings)


def make_one_batch_engine(settings: Settings) -> "OverlapEngine":
    """The slow one in a process that claims nothing ahead: every batch needs a hint."""
    hint.RUN_S = -1.0
    return SlowEngine(settings)


def make_late_engine(settings: Settings) -> "OverlapEngine":
    """The same on a busy machine: a pool process is up late, and loads for long."""
    if billiard.current_process().name != "MainProcess":
        threading.Event().wait(LATE_S)
    return LateEngine(settings)


def make_long_engine(settings: Settings) -> "OverlapEngine":
    """The same, with a pass that takes longer than a worker may be deaf."""
    _hear_soon()
    return LongEngine(settings)


def _hear_soon() -> None:
    connection_check.CHECK_S, connection_check.FRESH_S, connection_check.DEAF_S = 0.2, 1.5, 2.0


def make_deaf_engine(settings: Settings) -> "OverlapEngine":
    """The same in a worker that asks its queue once and then never again; what is deaf ends sooner than in earnest."""
    ask = Channel._brpop_start

    def ask_once(channel: Channel, timeout: float | None = None) -> None:
        if channel.heard_at is None:
            ask(channel, timeout)

    _hear_soon()
    setattr(Channel, "_brpop_start", ask_once)  # noqa: B010 - mypy takes no assignment to a method
    return OverlapEngine(settings)


class OverlapEngine:
    """Opens folders of examples; needs no model."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def check(self, bundle: BundleInfo) -> None:
        """Compare the hash."""
        self._examples(bundle)

    def check_model(self, bundle: BundleInfo) -> None:
        """None is needed."""

    def open_attributor(self, bundle: BundleInfo) -> "OverlapAttributor":
        """Read the examples."""
        return OverlapAttributor(bundle.name, self._examples(bundle))

    def open_meter(self, bundle: BundleInfo) -> "OverlapEffectMeter":
        """Read the examples."""
        return OverlapEffectMeter(self._examples(bundle))

    def _examples(self, bundle: BundleInfo) -> list[TrainingExample]:
        file = self._settings.bundles_dir / bundle.name / _EXAMPLES
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UnknownBundle(f"bundle {bundle.name}: {file}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != bundle.corpus_sha256:
            raise BundleCorrupt(f"bundle {bundle.name}: {_EXAMPLES} has changed")
        return [TrainingExample.model_validate_json(line) for line in content.splitlines()]


class LateEngine(OverlapEngine):
    """Loads for longer than any batch may take."""

    def open_attributor(self, bundle: BundleInfo) -> "OverlapAttributor":
        """Read the examples."""
        threading.Event().wait(LOAD_S)
        return super().open_attributor(bundle)


class SlowEngine(OverlapEngine):
    """Opens attributors that take their time."""

    def open_attributor(self, bundle: BundleInfo) -> "OverlapAttributor":
        """Read the examples."""
        return SlowAttributor(bundle.name, self._examples(bundle))


class LongEngine(OverlapEngine):
    """Opens attributors that take long."""

    def open_attributor(self, bundle: BundleInfo) -> "OverlapAttributor":
        """Read the examples."""
        return SlowAttributor(bundle.name, self._examples(bundle), pass_s=LONG_S)


def write_overlap_bundle(folder: Path, examples: Iterable[TrainingExample]) -> str:
    """Make the folder of such a bundle; the hash of its corpus."""
    folder.mkdir(parents=True)
    text = "".join(f"{example.model_dump_json()}\n" for example in examples)
    (folder / _EXAMPLES).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class PreparedWords:
    """The words of one query."""

    key: str
    words: tuple[str, ...]
    truncated: bool

    @property
    def tokens(self) -> int:
        """Number of words."""
        return len(self.words)

    @property
    def completion_tokens(self) -> int:
        """The same: there is no prompt."""
        return len(self.words)


class OverlapAttributor:
    """Cites the training examples that share the most words with the completion (Jaccard index)."""

    def __init__(self, bundle_name: str, examples: Sequence[TrainingExample]) -> None:
        self._bundle_name = bundle_name
        self._examples = tuple(examples)
        self._words = [frozenset(one.completion.lower().split()) for one in self._examples]

    @property
    def bundle_name(self) -> str:
        """Name given at construction."""
        return self._bundle_name

    def prepare(self, query: Query, *, max_tokens: int, over_long: OverLong) -> PreparedWords:
        """Split the completion into words."""
        words = tuple(query.completion.lower().split())
        if not words:
            raise EmptyCompletion(f"query {query.key}: the completion has no words")
        if len(words) > max_tokens and over_long == "reject":
            raise OutputTooLong(f"query {query.key}: {len(words)} words, the limit is {max_tokens}")
        return PreparedWords(query.key, words[:max_tokens], truncated=len(words) > max_tokens)

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """Rank all examples by word overlap; this measure has no opponents."""
        del opponents
        return [self._one(query, top_k) for query in prepared]

    def _one(self, query: PreparedQuery, top_k: int) -> Attribution:
        if not isinstance(query, PreparedWords):
            raise ConfigurationError("a query was prepared by another engine")
        words = frozenset(query.words)
        scores = [len(words & other) / max(1, len(words | other)) for other in self._words]
        order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:top_k]
        citations = tuple(
            CitationDraft(
                rank=rank,
                example=self._examples[row],
                tier=Tier.RETRIEVED,
                score=scores[row],
                retrieval_score=scores[row],
                influence_score=None,
                influence_magnitude=None,
                bm25_score=0.0,
                similarity_score=scores[row],
            )
            for rank, row in enumerate(order, start=1)
        )
        return Attribution(
            key=query.key,
            citations=citations,
            tokens=len(query.words),
            truncated=query.truncated,
            loss_nats=0.0,
            candidates=len(scores),
        )


class SlowAttributor(OverlapAttributor):
    """Takes some seconds for each pass."""

    def __init__(
        self, bundle_name: str, examples: Sequence[TrainingExample], *, pass_s: float = SLOW_S
    ) -> None:
        super().__init__(bundle_name, examples)
        self._pass_s = pass_s

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """As the overlap engine, later."""
        threading.Event().wait(self._pass_s)
        return super().attribute(prepared, top_k=top_k, opponents=opponents)


class OverlapEffectMeter:
    """Counts words: the effect is what the output loses of its overlap with the corpus. Never for audits.

    It keeps the contract (sign rule, controls, groups, `keep_going` between runs), needs no torch and answers in microseconds.
    """

    def __init__(self, examples: Sequence[TrainingExample], *, seeds: int = 3, controls: int = 3) -> None:
        self._examples = {one.example_id: one for one in examples}
        self._words = {one.example_id: frozenset(one.completion.lower().split()) for one in examples}
        self._seeds = seeds
        self._controls = controls

    def measure(
        self, query: Query, example_id: str, *, method: Method, keep_going: KeepGoing
    ) -> MeasuredEffect:
        """The share of the output's words that stand in the example and in no other one."""
        if example_id not in self._examples:
            raise NotFound(f"the corpus has no training example {example_id!r}")
        text_sha256 = self._examples[example_id].text_sha256
        group = tuple(name for name, one in self._examples.items() if one.text_sha256 == text_sha256)
        others = [name for name in self._examples if name not in group][: self._controls]
        weak = method is not Method.REFIT
        for _ in range(1 if weak else self._seeds):
            keep_going()
        effect = self._loss_of_words(query, group)
        return MeasuredEffect(
            effect_nats=effect,
            low_nats=None if weak else effect,
            high_nats=None if weak else effect,
            seeds=0 if weak else self._seeds,
            controls=tuple(
                ControlEffect(example_ids=(name,), effect_nats=self._loss_of_words(query, (name,)))
                for name in others
            ),
            group=group,
            weak=weak,
            cost_seconds=0.0,
        )

    def measure_group(self, query: Query, request: GroupRequest, *, keep_going: KeepGoing) -> MeasuredEffect:
        """The same for a list of ids, or for all of a source."""
        keep_going()
        ids = request.example_ids or [
            name for name, one in self._examples.items() if one.source == request.source
        ]
        if missing := [name for name in ids if name not in self._examples]:
            raise NotFound(f"the corpus has no training example {missing[0]!r}")
        if not ids:
            raise NotFound(f"the corpus has no source {request.source!r}")
        effect = self._loss_of_words(query, ids)
        return MeasuredEffect(
            effect_nats=effect, seeds=self._seeds, group=tuple(ids), weak=False, cost_seconds=0.0
        )

    def _loss_of_words(self, query: Query, left_out: Sequence[str]) -> float:
        words = frozenset(query.completion.lower().split())
        kept = [one for name, one in self._words.items() if name not in left_out]
        lost = words.intersection(*[frozenset().union(*(self._words[name] for name in left_out))])
        lost -= frozenset().union(*kept)
        return len(lost) / max(1, len(words))
