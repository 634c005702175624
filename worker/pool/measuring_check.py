"""Looks, when a measurer starts, whether effects can be measured over each active bundle, and tells the web process by SQL.

The web process has neither the recipe nor the models. It refuses a measurement that this check found impossible, and says what one will cost. What a check cannot
know in time shows when the measurement is claimed.
"""

import os

from db.bundles import catalogue
from db.measuring import measuring_checks
from db.session import Database
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.bundles.reading import read_as
from wherefrom.errors import PermanentError
from wherefrom.logs import get_logger
from wherefrom.records import BundleInfo, MeasuringCheck
from wherefrom.retraining.preflight import expected_cost
from wherefrom.settings import Settings
from worker.bundle_homes import hold_bundle
from worker.pool.effect_meter import check_suited, whole_corpus

log = get_logger(__name__)


def check_active_bundles(database: Database, settings: Settings) -> None:
    """Check every active bundle and store what was found; another engine than wherefrom's own checks for itself.

    Raises:
        DatabaseUnavailable: nothing more can be stored.
    """
    if settings.engine is not None:
        return
    for bundle in catalogue.active_bundles(database):
        found = check_bundle(bundle, settings)
        measuring_checks.save(database, bundle.id, found)
        if found.code is None:
            log.info(
                "measuring_possible",
                bundle=bundle.name,
                expected_seconds=found.cost and round(found.cost.seconds),
            )
        else:
            log.warning("measuring_impossible", bundle=bundle.name, code=found.code, reason=found.reason)


def check_bundle(bundle: BundleInfo, settings: Settings) -> MeasuringCheck:
    """Whether recipe, models and corpus suit a bundle, and what a measurement over it will cost."""
    try:
        recipe, manifest = check_suited(bundle, settings)
        with hold_bundle(settings, bundle.name) as folder:
            examples = list(iter_examples(folder))
        whole_corpus(examples, settings.recipe_corpus, how=read_as(manifest.corpus.reading))
    except PermanentError as error:
        return MeasuringCheck(code=error.code, reason=str(error))
    threads = settings.torch_threads or os.cpu_count() or 1
    return MeasuringCheck(
        cost=expected_cost(recipe, manifest, runs=settings.measure_dir / bundle.name, threads=threads)
    )
