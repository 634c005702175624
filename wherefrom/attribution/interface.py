"""What the rest of wherefrom may expect of an engine, and the contract for bringing another one.

The service asks its engine for four things (`Engine`). Which engine it uses, the setting `engine` says: ``module:factory`` names
an `EngineFactory`. Each process that needs the engine imports the module and calls the factory once with its settings; the
worker's pool processes are spawned, so each of them makes an engine of its own. The module must be importable there
(`PYTHONPATH`, or the folder that the service is started from). Everything else (claims, leases, retries, storage) stays as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from wherefrom.records import (
    Attribution,
    BundleInfo,
    GroupRequest,
    ListScore,
    MeasuredEffect,
    Method,
    Query,
    QueryGroup,
)
from wherefrom.settings import Settings

OverLong = Literal["truncate", "reject"]
#: Called between two runs of a measurement; raises when the work is no longer wanted.
KeepGoing = Callable[[], None]


class PreparedQuery(Protocol):
    """A query that passed all checks and was turned into tokens."""

    @property
    def tokens(self) -> int:
        """Tokens of one pass through the model, prompt included; what a token budget counts."""

    @property
    def completion_tokens(self) -> int:
        """Those of them that the completion has; batches of like completions need less padding."""


class Attributor(Protocol):
    """An engine over one bundle."""

    @property
    def bundle_name(self) -> str:
        """Content name of the bundle that the citations come from."""

    def prepare(self, query: Query, *, max_tokens: int, over_long: OverLong) -> PreparedQuery:
        """Check one query and turn it into tokens.

        Raises:
            EmptyCompletion: no completion token is left to explain.
            OutputTooLong: more than `max_tokens` tokens and `over_long` is ``reject``.
            TemplateNotPrefix: the chat template does not keep the prompt as a prefix.
        """

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """Attribute one batch in one pass; answers stand in the order of `prepared`, each with the `key` of its query.

        An answer does not depend on the other members of the batch.

        Raises:
            OutOfMemory: the batch did not fit; smaller batches may.
        """


@runtime_checkable
class DescribedAttributor(Attributor, Protocol):
    """An engine that says what it computes with; of one that does not, audits say the release and the settings alone."""

    def computes_with(self) -> Mapping[str, str | int]:
        """Versions of the libraries, device, numbers (`dtype`) and threads: what may change a score in its last digits."""


@runtime_checkable
class GroupAttributor(Attributor, Protocol):
    """An engine that also answers for several outputs at once; one that does not is asked for none."""

    def prepare_group(self, group: QueryGroup, *, max_tokens: int, over_long: OverLong) -> PreparedQuery:
        """Check a group and turn its outputs and acceptable answers into tokens; `attribute` takes it as it takes a query.

        Raises:
            InvalidRecord: an acceptable answer is one of the outputs.
            OutputTooLong: together they are longer than the engine can hold, or as of `prepare`.
            EmptyCompletion, TemplateNotPrefix: as of `prepare`; the text names the output.
        """


@runtime_checkable
class ListAttributor(Attributor, Protocol):
    """An engine that also says what leaving a list of training examples out would do; one that does not is asked for none."""

    def score_list(self, prepared: Sequence[PreparedQuery], rows: Sequence[int]) -> list[ListScore]:
        """Score a whole list against each output by the exact tier; answers stand in the order of `prepared`, each with the `key` of its query.

        Args:
            prepared: The outputs.
            rows: Places of the training examples in the bundle's corpus, from 0.

        Raises:
            NotFound: the corpus has no such row.
            OutOfMemory: as of `attribute`.
        """


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


@runtime_checkable
class GroupMeter(Protocol):
    """Measures effects of groups of training examples too. An effect meter may also do this; one that does not refuses groups."""

    def measure_group(self, query: Query, request: GroupRequest, *, keep_going: KeepGoing) -> MeasuredEffect:
        """What leaving a group out of the training does to one output, beside groups that are like it.

        Args:
            query: The flagged output.
            request: The training examples.
            keep_going: Called between two runs; what it raises ends the measurement.

        Raises:
            NotFound: the bundle's corpus has no such example or source.
            ConfigurationError: the recipe does not suit, or the group is too large to have controls.
            OutOfMemory: the model did not fit into memory.
        """


@dataclass(frozen=True)
class PartFiles:
    """What was made of a part of a corpus."""

    #: In the order of the rows.
    shards: tuple[Path, ...]
    moments: Path
    #: What it was read on, for the manifest (`bundles.manifest.ComputeEntry`); None where nobody says.
    read_on: Mapping[str, Any] | None = None


class PartReader(Protocol):
    """Reads parts of a corpus for a build, with one model."""

    def read_part(self, rows: Path, *, first: int, folder: Path, keep_going: KeepGoing) -> PartFiles:
        """Run a part through the model. The same part gives the same bytes, on this machine.

        Args:
            rows: The part as tokens (`bundles.parts`).
            first: Place of its first row in the corpus, from 0.
            folder: Gets the files.
            keep_going: Called now and then; what it raises ends the work.

        Raises:
            UnusableModel: a row gives no finite numbers; the text names it.
            OutOfMemory: a row did not fit.
        """


@runtime_checkable
class BuildingEngine(Protocol):
    """An engine that also reads corpora for builds over many machines; one that does not is asked for none."""

    def open_part_reader(self, plan: Mapping[str, Any]) -> PartReader:
        """What reads the parts of a planned build; may take minutes. Called in the process that uses it.

        Args:
            plan: As the build stored it (`bundles.plan.BuildPlan`).

        Raises:
            BuildMismatch: this machine has another model or another release.
            UnusableModel, UnsafeWeights: the model is not here, or cannot be loaded.
            OutOfMemory: it does not fit.
        """


@runtime_checkable
class Engine(Protocol):
    """Opens registered bundles. A bundle's folder is `settings.bundles_dir / bundle.name`.

    A `PermanentError` refuses the bundle: its audits wait and say why. A `TransientError` is tried again. Anything else is a bug.
    """

    def check(self, bundle: BundleInfo) -> None:
        """Return when the folder holds the bundle that is registered, every byte of it; needs no model and no GPU.

        Raises:
            UnknownBundle: the folder is not there.
            BundleCorrupt: a file has changed.
            BundleMismatch: the folder holds another bundle than the database knows under this name.
        """

    def check_model(self, bundle: BundleInfo) -> None:
        """Return when the model that the bundle explains is on this machine, or none is needed.

        Raises:
            UnusableModel: it is nowhere; the text says what to do.
        """

    def open_attributor(self, bundle: BundleInfo) -> Attributor:
        """The attributor over a bundle, ready to work; may take minutes. Called in the process that uses it.

        Raises:
            UnknownBundle, BundleCorrupt, BundleMismatch, UnusableModel: the bundle or its model cannot be used.
            OutOfMemory: the model does not fit.
        """

    def open_meter(self, bundle: BundleInfo) -> EffectMeter:
        """The effect meter over a bundle. Called in the measuring process.

        Raises:
            MeasuringUnavailable: the engine measures nothing, or a setting is missing; the text says what to set.
            UnknownBundle, BundleCorrupt, BundleMismatch, UnusableModel: the bundle or its model cannot be used.
        """


#: What the setting `engine` names: gets the settings of the process, returns the engine. Makes no connection, loads no model.
EngineFactory = Callable[[Settings], Engine]
