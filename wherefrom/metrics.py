"""Metrics, declared in `metrics.yaml` and made by name; an undeclared name raises.

prometheus-client belongs to the `[service]` extra, so it is imported when a registry is made.
"""

from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from wherefrom.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PREFIX = "wherefrom_"


def declared_metrics() -> dict[str, dict[str, Any]]:
    """The declarations of `metrics.yaml` by name: type, labels, text."""
    text = resources.files("wherefrom").joinpath("metrics.yaml").read_text(encoding="utf-8")
    declared: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return declared


class Metrics:
    """All declared metrics in one Prometheus registry."""

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: PLC0415 - optional extra

        kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        self.registry = registry or CollectorRegistry()
        self._made: dict[str, Any] = {
            name: kinds[one["type"]](PREFIX + name, one["text"], one["labels"], registry=self.registry)
            for name, one in declared_metrics().items()
        }

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
