"""With `bundle_keys`, a service takes signed bundles only, wherever it opens one."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.session import Database
from wherefrom.attribution.bundles.signing import make_keys
from wherefrom.errors import BundleCorrupt, BundleUnsigned
from wherefrom.records import BundleInfo
from wherefrom.settings import Settings
from worker.bundles import add_bundle
from worker.pool.engine import BundleEngine

BUNDLE = BundleInfo(
    id=1, name="b", model="m", corpus_sha256="0" * 64, corpus_examples=1, form="forward", active=True, card={},
    created_at=datetime(2026, 1, 31, tzinfo=UTC),
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A service that asks for a signature, with a bundle that has none and that no parser would read."""
    make_keys(tmp_path / "team.key", tmp_path / "team.pub")
    (tmp_path / "bundles" / "b").mkdir(parents=True)
    (tmp_path / "bundles" / "b" / "manifest.json").write_text("{hostile")
    given = {"bundles_dir": tmp_path / "bundles", "bundle_keys": (tmp_path / "team.pub",)}
    return Settings.model_validate(given)


WAYS: dict[str, Callable[[BundleEngine], object]] = {
    "check": lambda engine: engine.check(BUNDLE),
    "model": lambda engine: engine.check_model(BUNDLE),
    "attributor": lambda engine: engine.open_attributor(BUNDLE),
    "meter": lambda engine: engine.open_meter(BUNDLE),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_an_unsigned_bundle_is_refused_before_it_is_parsed(settings: Settings, way: str) -> None:
    """Its manifest is no JSON; that nobody says so shows that nobody read it. Without the setting, it is said."""
    with pytest.raises(BundleUnsigned):
        WAYS[way](BundleEngine(settings))
    if way == "check":
        with pytest.raises(BundleCorrupt):
            WAYS[way](BundleEngine(settings.model_copy(update={"bundle_keys": ()})))


def test_an_unsigned_bundle_is_not_added(settings: Settings, migrated_sqlite_url: str) -> None:
    """Nothing is copied or registered."""
    database = Database(migrated_sqlite_url)
    with pytest.raises(BundleUnsigned):
        add_bundle(database, settings, settings.bundles_dir / "b", activate=True)
    database.dispose()
