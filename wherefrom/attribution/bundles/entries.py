"""What the manifest of a new bundle says of its model, its libraries and the machine."""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from wherefrom.attribution.bundles.manifest import LIBRARIES, ComputeEntry, ModelEntry
from wherefrom.attribution.gradient_sketch import has_scales
from wherefrom.attribution.models.files import ModelFingerprint
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.placement import Placement, device_name
from wherefrom.attribution.retrieval.index_drivers import DriverName, index_packages


def model_entry(points: Sequence[LanguageModel], name: str, start_sha256: str | None) -> ModelEntry:
    """The model of a bundle.

    Args:
        points: the points of the fine-tune that are read, the audited model first.
        name: its revision name.
        start_sha256: hash of the first weights, where the half-way model needs another folder than the audited model's own.
    """
    language, marks = points[0], points[0].fingerprint
    return ModelEntry(
        name=name,
        base_folder=language.base_folder,
        adapter_folder=language.adapter_folder,
        weights_sha256=marks.weights_sha256,
        adapter_sha256=marks.adapter_sha256,
        tokenizer_sha256=marks.tokenizer_sha256,
        start_folder=points[1].base_folder if start_sha256 else None,
        start_sha256=start_sha256,
        weight_bytes=marks.weight_bytes,
        parameters=language.parameters,
        layers=language.layers,
        hidden_size=language.hidden_size,
    )


def differences(wanted: ModelEntry, found: ModelFingerprint) -> Iterator[tuple[str, str | None, str | None]]:
    """What of a model is not what was stated: its name for people, the stated hash, the found one."""
    for what, expected, given in (
        ("model weights", wanted.weights_sha256, found.weights_sha256),
        ("adapter", wanted.adapter_sha256, found.adapter_sha256),
        ("tokenizer or chat template", wanted.tokenizer_sha256, found.tokenizer_sha256),
    ):
        if expected != given:
            yield what, expected, given


def format_of(bundle: Path) -> int | None:
    """The least format of files that a release must read to open a bundle, by what is in its folder; None for the first."""
    return 2 if has_scales(bundle / "features") else None


def library_versions(driver: DriverName) -> dict[str, str]:
    """Versions of the libraries that decide the numbers of a bundle, those of its index driver included."""
    return {name: _installed(name) for name in (*LIBRARIES, *index_packages(driver))}


@cache
def _installed(library: str) -> str:
    """Read once: it looks through the installed packages, and workers ask for each batch."""
    return version(library)


def compute_entry(placement: Placement) -> ComputeEntry:
    """Where the model was read."""
    return ComputeEntry(
        device=placement.device.type, name=device_name(placement.device), dtype=placement.dtype_name
    )
