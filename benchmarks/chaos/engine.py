"""The engine of the storms: 5 to 50 ms for each output, five citations, no model. Certain outputs kill the process that attributes them.

Worker processes load it through the setting `engine`. What an output costs and cites follows from its text, so every attempt gives the
same answer.
"""

import hashlib
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos.outputs import MODEL, POISON, number_of, seconds_of
from db.bundles import catalogue
from db.session import Database
from wherefrom.attribution.interface import EffectMeter, OverLong, PreparedQuery
from wherefrom.errors import ConfigurationError
from wherefrom.records import Attribution, BundleInfo, CitationDraft, Query, Tier, TrainingExample
from wherefrom.settings import Settings

#: The setting `engine`.
ENGINE = "benchmarks.chaos.engine:make_engine"
BUNDLE = "storm"
EXAMPLES, CITATIONS = 200, 5


def example(row: int) -> TrainingExample:
    """A training example."""
    text = f"training text {row}"
    return TrainingExample(
        example_id=f"row-{row}",
        row=row,
        source=f"source-{row % 7}",
        prompt="",
        completion=text,
        text_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def register(db: Database) -> None:
    """Register the bundle that all outputs of a storm are about."""
    catalogue.register_bundle(
        db,
        name=BUNDLE,
        model=MODEL,
        weights_sha256="0" * 64,
        adapter_sha256=None,
        tokenizer_sha256="1" * 64,
        corpus_sha256="2" * 64,
        corpus_name="storm",
        corpus_examples=EXAMPLES,
        form="storm",
        card={},
        examples=[],
    )


def make_engine(settings: Settings) -> "StormEngine":
    """The factory that the setting `engine` names."""
    del settings
    return StormEngine()


class StormEngine:
    """Needs no folder and no model."""

    def check(self, bundle: BundleInfo) -> None:
        """There is no folder."""

    def check_model(self, bundle: BundleInfo) -> None:
        """There is no model."""

    def open_attributor(self, bundle: BundleInfo) -> "StormAttributor":
        """Nothing is loaded."""
        return StormAttributor(bundle.name)

    def open_meter(self, bundle: BundleInfo) -> EffectMeter:
        """Storms measure no effects."""
        raise ConfigurationError(f"bundle {bundle.name}: the engine of storms measures no effects")


@dataclass(frozen=True)
class StormQuery:
    """One output."""

    key: str
    #: Decides what the output costs and cites.
    number: int
    is_poison: bool
    tokens: int = 20
    completion_tokens: int = 20


class StormAttributor:
    """Waits and cites."""

    def __init__(self, bundle_name: str) -> None:
        self.bundle_name = bundle_name

    def prepare(self, query: Query, *, max_tokens: int, over_long: OverLong) -> StormQuery:
        """Turn the text into a number."""
        del max_tokens, over_long
        return StormQuery(query.key, number_of(query.completion), POISON in query.completion)

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """Take the time of all outputs, then die or answer."""
        del top_k, opponents
        queries = [one for one in prepared if isinstance(one, StormQuery)]
        threading.Event().wait(sum(seconds_of(one.number) for one in queries))
        if any(one.is_poison for one in queries):
            os.kill(os.getpid(), signal.SIGKILL)
        return [_answer(one) for one in queries]


def _answer(query: StormQuery) -> Attribution:
    rows = [(query.number // 1000 + 37 * place) % EXAMPLES for place in range(CITATIONS)]
    drafts = [_draft(rank, row) for rank, row in enumerate(rows, start=1)]
    return Attribution(
        key=query.key,
        citations=tuple(drafts),
        tokens=query.tokens,
        truncated=False,
        loss_nats=1.0,
        candidates=EXAMPLES,
    )


def _draft(rank: int, row: int) -> CitationDraft:
    return CitationDraft(
        rank=rank,
        example=example(row),
        tier=Tier.INFLUENCE,
        score=1 / (rank + row),
        retrieval_score=0.5,
        influence_score=1 / rank,
        influence_magnitude=1.0,
        bm25_score=0.0,
        similarity_score=0.5,
    )
