"""What another machine must know to read parts of a corpus for a build: the model by its hashes, and how it is read.

The model lies on that machine already, in the folder of all models or where the planning machine has it; it is hashed before it is loaded, and another one is refused.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field

from wherefrom.attribution.bundles.entries import differences, model_entry
from wherefrom.attribution.bundles.manifest import ModelEntry, Parameters
from wherefrom.attribution.bundles.model_location import named_folders
from wherefrom.attribution.bundles.readers import reader_of
from wherefrom.attribution.models.files import ModelFolders, hash_beside
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.placement import Placement
from wherefrom.attribution.models.trajectory import ReadsSignals, load_halfway
from wherefrom.errors import BuildMismatch, UnusableModel
from wherefrom.records import Frozen, sha256_of_json
from wherefrom.version import __version__


class BuildPlan(Frozen):
    """How a corpus is read."""

    #: The release that planned it: another one may read otherwise.
    release: str
    model: ModelEntry
    parameters: Parameters
    #: Hash of the corpus' rows.
    corpus_sha256: str
    #: Numbers of the pass through the model.
    dtype: str
    #: Folders of model, adapter and first weights on the machine that planned; they may be on others as well.
    folders: tuple[str | None, ...] = Field(max_length=3)

    def identity(self) -> str:
        """Hash of what decides the signals: equal for the same inputs, wherever the folders lie."""
        names = {"name", "base_folder", "adapter_folder", "start_folder"}
        return sha256_of_json(self.model_dump(mode="json", exclude={"folders": True, "model": names}))


def plan_of(
    points: Sequence[LanguageModel],
    folders: ModelFolders,
    *,
    parameters: Parameters,
    corpus_sha256: str,
    start_sha256: str | None,
    dtype: torch.dtype,
) -> BuildPlan:
    """The plan of a build whose models are loaded.

    Args:
        points: the points of the fine-tune that are read, the audited model first.
        folders: where they lie.
        parameters: those of the bundle.
        corpus_sha256: hash of the corpus.
        start_sha256: see `model_entry`.
        dtype: numbers of the pass.
    """
    placed = (folders.model, folders.adapter, folders.start)
    return BuildPlan(
        release=__version__,
        model=model_entry(points, "", start_sha256),
        parameters=parameters,
        corpus_sha256=corpus_sha256,
        dtype=str(dtype).removeprefix("torch."),
        folders=tuple(None if one is None else str(one.resolve()) for one in placed),
    )


def open_reader(plan: BuildPlan, models_dir: Path, placement: Placement) -> ReadsSignals:
    """Load the planned model and what reads it.

    Args:
        plan: what is read.
        models_dir: folder of all models of this machine.
        placement: where the model computes here, in the plan's numbers.

    Raises:
        BuildMismatch: this machine has another release, or another model under the planned name.
        UnusableModel, UnsafeWeights: the model is nowhere, or cannot be loaded.
        OutOfMemory: it does not fit.
    """
    if plan.release != __version__:
        raise BuildMismatch(
            f"the build was planned by wherefrom {plan.release}, and this machine runs {__version__}; run the same release on all machines"
        )
    folders = find_planned(plan, models_dir)
    marks = hash_beside(folders.model, folders.adapter)
    for what, _, _ in differences(plan.model, marks.result()):
        raise _mismatch(what, folders.model)
    language = load_model(folders.model, folders.adapter, marks=marks, placement=placement)
    points = [language]
    if plan.parameters.midpoint:
        points.append(load_halfway(language, folders))
        if plan.model.start_sha256 not in (None, points[1].fingerprint.weights_sha256):
            raise _mismatch("first weights", folders.start or folders.model)
    return reader_of(plan.parameters, points, adapter_dir=folders.adapter)


def find_planned(plan: BuildPlan, models_dir: Path) -> ModelFolders:
    """The folders of the planned model on this machine: by their names in the folder of all models, else where the planning machine has them.

    Raises:
        UnusableModel: neither place has them.
    """
    model, adapter, start = (None if one is None else Path(one) for one in plan.folders)
    named = named_folders(plan.model, models_dir)
    for found in (named, None if model is None else ModelFolders(model, adapter, start)):
        if found is not None and found.present():
            return found
    wanted = " and ".join(
        f"the folder `{one.name}`" for one in (named.model, named.adapter, named.start) if one
    )
    raise UnusableModel(
        f"the model of the build was not found on this machine: put {wanted} into {models_dir} (setting WHEREFROM_MODELS_DIR)"
    )


def _mismatch(what: str, folder: Path) -> BuildMismatch:
    return BuildMismatch(
        f"{folder}: the build was planned with another {what}; copy the folder from the machine that planned it"
    )
