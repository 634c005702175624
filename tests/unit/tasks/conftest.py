"""A batch at hand: settings, metrics, audits in memory, and an engine that can be told to fail."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from tasks.ahead import Ahead
from tasks.attribute import BatchReport, attribute_batch
from tests.memory_store import MemoryAudits, MemoryAuditStore
from tests.overlap_engine import OverlapAttributor, PreparedWords
from wherefrom.attribution.interface import OverLong, PreparedQuery
from wherefrom.metrics import Metrics
from wherefrom.records import Attribution, Query, TrainingExample
from wherefrom.settings import Settings

EXAMPLES = tuple(
    TrainingExample(
        example_id=f"e{row}", row=row, source="s", prompt="p", completion=text, text_sha256=f"{row:064x}"
    )
    for row, text in enumerate(("the battery is safe", "refunds take ten days", "call the hotline"))
)


class FailingAttributor:
    """The overlap engine, and `before` is called with the keys of each pass; what it raises, the pass raises."""

    bundle_name = "bundle-1"

    def __init__(self, before: Callable[[Sequence[str]], None]) -> None:
        self._inner = OverlapAttributor("bundle-1", EXAMPLES)
        self._before = before
        self.passes: list[list[str]] = []

    def prepare(self, query: Query, *, max_tokens: int, over_long: OverLong) -> PreparedQuery:
        """As the overlap engine."""
        return self._inner.prepare(query, max_tokens=max_tokens, over_long=over_long)

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """As the overlap engine, after `before`."""
        keys = [one.key for one in prepared if isinstance(one, PreparedWords)]
        self.passes.append(keys)
        self._before(keys)
        return self._inner.attribute(prepared, top_k=top_k, opponents=opponents)


@dataclass
class Bench:
    """Everything that `attribute_batch` takes."""

    settings: Settings = field(default_factory=lambda: Settings(batch_tokens=64, max_attempts=3))
    metrics: Metrics = field(default_factory=Metrics)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.audits = MemoryAudits(clock=lambda: self.now)
        self.store = MemoryAuditStore(self.audits, owner="me")

    def engine(self, before: Callable[[Sequence[str]], None] = lambda keys: None) -> FailingAttributor:
        """An engine that raises what `before` raises."""
        return FailingAttributor(before)

    def work(self, attributor, limit: int = 100, ahead: Ahead | None = None) -> BatchReport:
        """Claim what is due and attribute it, and what is claimed ahead."""
        claim = self.store.claim(1, limit=limit, lease_s=60, max_attempts=self.settings.max_attempts)
        assert claim is not None
        return attribute_batch(
            claim,
            attributor=attributor,
            store=self.store,
            settings=self.settings,
            metrics=self.metrics,
            clock=lambda: self.now,
            ahead=ahead,
        )

    def states(self) -> dict[int, str]:
        """State by audit id."""
        return {audit_id: one.state.value for audit_id, one in self.audits.by_id.items()}

    def metric(self, name: str, **labels: str) -> float:
        """Value of a metric."""
        return self.metrics.registry.get_sample_value(f"wherefrom_{name}", labels) or 0.0


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, as event dictionaries."""
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def bench() -> Bench:
    """A bench."""
    return Bench()


@pytest.fixture(scope="session")
def make_bench() -> type[Bench]:
    """Makes a new bench for each example of a property."""
    return Bench
