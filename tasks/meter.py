"""What a task needs to measure an effect, and a working meter without a model for tests of the rooms around it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from wherefrom.errors import NotFound
from wherefrom.records import ControlEffect, MeasuredEffect, Method, Query, TrainingExample

#: Called between two runs; raises when the work is no longer wanted.
KeepGoing = Callable[[], None]


class EffectMeter(Protocol):
    """Measures effects of the training examples of one bundle."""

    def measure(
        self, query: Query, example_id: str, *, method: Method, keep_going: KeepGoing
    ) -> MeasuredEffect:
        """The effect of one training example, and of what says the same, on one output.

        Positive = the example made the output more likely.

        Args:
            query: The flagged output.
            example_id: The training example, by its id in the corpus.
            method: How to measure.
            keep_going: Called between two runs; what it raises ends the measurement.

        Raises:
            NotFound: the bundle's corpus has no such example.
            ConfigurationError: the recipe does not suit the model or the corpus.
            OutOfMemory: the model did not fit into memory.
        """


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

    def _loss_of_words(self, query: Query, left_out: Sequence[str]) -> float:
        words = frozenset(query.completion.lower().split())
        kept = [one for name, one in self._words.items() if name not in left_out]
        lost = words.intersection(*[frozenset().union(*(self._words[name] for name in left_out))])
        lost -= frozenset().union(*kept)
        return len(lost) / max(1, len(words))
