"""Metrics, declared in `metrics.yaml` and made by name; an undeclared name raises.

Each process counts for itself. What the whole service counts is added up in the database: a process hands over what it has counted
since the last time (`increments`, `stored`), and the web process shows the totals (`families`). See docs/adr/0014.

prometheus-client belongs to the `[service]` extra, so it is imported when a registry is made.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from itertools import product
from typing import TYPE_CHECKING, Any

import yaml

from wherefrom.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

PREFIX = "wherefrom_"
#: One line of the exposition without its value: name of the sample, labels as JSON with sorted names.
Series = tuple[str, str]
#: What a declared histogram is made of.
_PARTS = ("_bucket", "_count", "_sum")


@cache
def declared_metrics() -> Mapping[str, Mapping[str, Any]]:
    """The declarations of `metrics.yaml` by name: type, labels, text."""
    text = resources.files("wherefrom").joinpath("metrics.yaml").read_text(encoding="utf-8")
    # The parser in C, where PyYAML was built with it, is ten times as fast; every process of the service reads this as it starts.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    declared: dict[str, dict[str, Any]] = yaml.load(text, loader)  # noqa: S506 - both are the safe one
    return declared


class Metrics:
    """All declared metrics in one Prometheus registry."""

    def __init__(self, registry: "CollectorRegistry | None" = None, *, process: str | None = None) -> None:
        """Make all that are declared.

        Args:
            registry: Where they are; a new one where None.
            process: Which of several processes this is that answer at one address: a label of the metrics that are of one process (`scope: process`), or
                Prometheus would take the figures of one for those of another.
        """
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: PLC0415 - optional extra

        declared = declared_metrics()
        kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        self.registry = registry or CollectorRegistry()
        self._made: dict[str, Any] = {
            name: kinds[one["type"]](PREFIX + name, one["text"], one["labels"], registry=self.registry)
            for name, one in declared.items()
        }
        self._shared = frozenset(
            PREFIX + name.removesuffix("_total")
            for name, one in declared.items()
            if one["type"] != "gauge" and one.get("scope") != "process"
        )
        self._process = process
        self._own = frozenset(
            PREFIX + name.removesuffix("_total")
            for name, one in declared.items()
            if one.get("scope") == "process"
        )
        self._zeros = dict.fromkeys(_known_series(declared), 0.0)
        self._stored: dict[Series, float] = {}
        self._seen: dict[Series, float] = {}
        #: Held while increments move to the database, and while both are read: nothing is then seen twice or not at all.
        self.moving = threading.Lock()

    def _metric(self, name: str, labels: dict[str, str]) -> Any:
        if name not in self._made:
            raise ConfigurationError(f"metric {name!r} is not declared in wherefrom/metrics.yaml")
        return self._made[name].labels(**labels) if labels else self._made[name]

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._metric(name, labels).inc(amount)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._metric(name, labels).set(value)

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        self._metric(name, labels).observe(seconds)

    def increments(self) -> dict[Series, float]:
        """What this process counted for the whole service and has not stored yet."""
        found = {}
        self._seen = dict(self._stored)
        for family in self.registry.collect():
            if family.name not in self._shared:
                continue
            for sample in family.samples:
                series = (sample.name, json.dumps(sample.labels, sort_keys=True))
                new = sample.value - self._stored.get(series, 0.0)
                if new and not sample.name.endswith("_created"):
                    found[series] = new
                    self._seen[series] = sample.value
        return found

    def stored(self) -> None:
        """Note that the increments that were read last are in the database now."""
        self._stored = self._seen

    def families(self, totals: Mapping[Series, float] | None) -> "Iterator[Metric]":
        """What `/metrics` shows: the service's totals, and what is this process's own.

        Args:
            totals: Of the whole service, by series; None where they cannot be read. A total that went back to what one process
                counted would look like a restart, so nothing is shown of them then.
        """
        from prometheus_client.metrics_core import Metric  # noqa: PLC0415 - optional extra

        for family in self.registry.collect():
            if family.name in self._own and self._process is not None:
                yield _labelled(family, process=self._process)
            elif family.name not in self._shared:
                yield family
            elif totals is not None:
                shown = Metric(family.name, family.documentation, family.type)
                for name, labels, value in _samples(family.name, {**self._zeros, **totals}):
                    shown.add_sample(name, labels, value)
                yield shown


def _labelled(family: "Metric", **labels: str) -> "Metric":
    """The same family with further labels."""
    from prometheus_client.metrics_core import Metric  # noqa: PLC0415 - optional extra

    shown = Metric(family.name, family.documentation, family.type)
    for sample in family.samples:
        shown.add_sample(sample.name, {**sample.labels, **labels}, sample.value)
    return shown


def _known_series(declared: Mapping[str, Mapping[str, Any]]) -> Iterator[Series]:
    """Series of shared counters that are known before anything was counted: those without labels, and those whose values are declared.

    They are shown from 0 on. In a series that begins with 1, Prometheus sees no increase, and the first of all failures would alert nobody.
    """
    for name, one in declared.items():
        if one["type"] != "counter" or one.get("scope") == "process":
            continue
        known = one.get("values", {})
        if set(known) == set(one["labels"]):
            for values in product(*known.values()):
                labels = dict(zip(known, values, strict=True))
                yield PREFIX + name, json.dumps(labels, sort_keys=True)


def _samples(family: str, totals: Mapping[Series, float]) -> list[tuple[str, dict[str, str], float]]:
    """The samples of one family, buckets by their bounds."""
    names = {f"{family}_total", *(family + part for part in _PARTS)}
    found = [(name, json.loads(labels), value) for (name, labels), value in totals.items() if name in names]

    def place(sample: tuple[str, dict[str, str], float]) -> tuple[list[tuple[str, str]], str, float]:
        name, labels, _ = sample
        others = sorted((label, value) for label, value in labels.items() if label != "le")
        return others, name, float(labels.get("le", "0"))

    return sorted(found, key=place)
