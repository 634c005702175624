"""The engine of this process: wherefrom's own, or the one that the setting `engine` names. The only place that loads models.

Nothing is loaded at import: torch and the model come when the first bundle is opened.
"""

import importlib
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.bundles.model_location import find_model
from wherefrom.attribution.bundles.signing import check_signature
from wherefrom.attribution.interface import Attributor, EffectMeter, Engine, PartReader
from wherefrom.attribution.models.files import hash_beside
from wherefrom.errors import ConfigurationError
from wherefrom.logs import get_logger
from wherefrom.records import BundleInfo
from wherefrom.settings import Settings
from worker.bundle_homes import hold_bundle, intact_manifest, stated_manifest
from worker.pool.placing import BUILDER, WORKER, place_process
from worker.pool.verify import check_registered

if TYPE_CHECKING:
    from wherefrom.attribution.attributor import LanguageAttributor

log = get_logger(__name__)


class BundleEngine:
    """wherefrom's own engine, over the bundles that `wherefrom build` makes; satisfies `Engine`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def check(self, bundle: BundleInfo) -> None:
        """Check folder and manifest against what is registered."""
        check_registered(bundle, intact_manifest(self._settings, bundle.name))

    def check_model(self, bundle: BundleInfo) -> None:
        """Look for the model's folder."""
        settings = self._settings
        folder = settings.bundles_dir / bundle.name  # a note about the model is beside it
        find_model(folder, stated_manifest(settings, bundle.name), settings.models_dir)

    def open_attributor(self, bundle: BundleInfo) -> Attributor:
        """Load bundle and model, after checking every hash. The bundle stays on this machine as long as the attributor is used."""
        with ExitStack() as held:
            folder = held.enter_context(hold_bundle(self._settings, bundle.name))
            opened = self._open(bundle, folder)
            weakref.finalize(opened, held.pop_all().close)
        if opened.note is not None:
            log.warning("bundle_opened_with_note", bundle=bundle.name, note=opened.note)
        return opened

    def _open(self, bundle: BundleInfo, folder: Path) -> "LanguageAttributor":
        settings = self._settings
        check_signature(folder, settings.bundle_keys)
        manifest = read_manifest(folder, verify=False)  # `open_bundle` checks the hashes
        check_registered(bundle, manifest)
        found = find_model(folder, manifest, settings.models_dir)
        marks = hash_beside(found.model, found.adapter)  # while torch is imported
        # Optional extra [engine]: the other processes of the service run without torch.
        import torch

        from wherefrom.attribution.attributor import LanguageAttributor
        from wherefrom.attribution.bundles.bundle import open_bundle
        from wherefrom.attribution.memory import memory_errors

        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        placement, hashes = place_process(settings, WORKER), HashMemory.of_machine(settings)
        milvus = settings.milvus_server()
        with memory_errors(f"bundle {bundle.name} with its model"):
            return LanguageAttributor(
                open_bundle(folder, found, marks=marks, placement=placement, milvus=milvus, hashes=hashes)
            )

    def open_meter(self, bundle: BundleInfo) -> EffectMeter:
        """Read recipe and corpus, after checking that the recipe suits; models are loaded when first needed."""
        from worker.pool.effect_meter import check_suited, open_meter

        stated_manifest(self._settings, bundle.name)  # the signature, before anything else is parsed
        check_suited(bundle, self._settings)
        return open_meter(bundle, self._settings)

    def open_part_reader(self, plan: Mapping[str, Any]) -> PartReader:
        """Load the planned model, after comparing its hashes."""
        from worker.pool.part_reader import open_planned

        return open_planned(
            plan, self._settings, lambda dtype: place_process(self._settings, BUILDER, dtype=dtype)
        )


def load_engine(settings: Settings) -> Engine:
    """The engine that the settings ask for.

    Raises:
        ConfigurationError: the module cannot be imported, or what it names makes no engine.
    """
    if settings.engine is None:
        return BundleEngine(settings)
    module, _, name = settings.engine.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, SyntaxError, AttributeError) as error:
        raise ConfigurationError(
            f"WHEREFROM_ENGINE: {settings.engine} cannot be imported: {error}"
        ) from error
    engine = factory(settings) if callable(factory) else None
    if not isinstance(engine, Engine):
        raise ConfigurationError(
            f"WHEREFROM_ENGINE: {settings.engine} does not create an engine; see wherefrom.attribution.interface.Engine"
        )
    return engine


def engine_of_process(settings: Settings) -> Engine:
    """The engine for a process that works with it; another one than wherefrom's own is told in the log.

    Raises:
        ConfigurationError: see `load_engine`.
    """
    if settings.engine is not None:
        log.warning("other_engine", engine=settings.engine, note=OTHER_ENGINE)
    return load_engine(settings)


#: What a person is told where another engine is set.
OTHER_ENGINE = "citations come from this engine, not from wherefrom's own"
