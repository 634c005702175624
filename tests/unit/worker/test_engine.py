"""Which engine a process uses: wherefrom's own, or another one that was named and allowed."""

import pytest
from structlog.testing import capture_logs

from tests.overlap_engine import ENGINE, OverlapEngine
from wherefrom.attribution.interface import Engine
from wherefrom.errors import ConfigurationError
from wherefrom.settings import Settings, load_settings
from worker.pool.engine import BundleEngine, engine_of_process, load_engine

#: Named below as something that is no factory.
NO_FACTORY = "text"


def make_nothing(_settings):
    """Makes no engine."""
    return object()


@pytest.mark.parametrize("engine", [None, ""])
def test_unless_another_one_is_named_it_is_our_own(engine):
    """Silently, and it keeps the contract."""
    with capture_logs() as logs:
        own = engine_of_process(Settings(engine=engine))
    assert isinstance(own, BundleEngine)
    assert isinstance(own, Engine)
    assert logs == []


def test_a_named_factory_gets_the_settings_and_is_told_in_the_log(tmp_path):
    """A warning in each process, with the name."""
    settings = Settings(bundles_dir=tmp_path, engine=ENGINE, allow_other_engine=True)
    with capture_logs() as logs:
        engine = engine_of_process(settings)
    assert isinstance(engine, OverlapEngine)
    assert engine._settings is settings
    assert [(one["event"], one["log_level"], one["engine"]) for one in logs] == [
        ("other_engine", "warning", ENGINE)
    ]


def test_another_engine_needs_to_be_allowed(monkeypatch):
    """One setting alone, left over from a test, is refused at the start of every process."""
    monkeypatch.setenv("WHEREFROM_ENGINE", ENGINE)
    with pytest.raises(ConfigurationError, match="WHEREFROM_ALLOW_OTHER_ENGINE"):
        load_settings()
    monkeypatch.setenv("WHEREFROM_ALLOW_OTHER_ENGINE", "true")
    assert load_settings().engine == ENGINE


@pytest.mark.parametrize(
    "name", ["tests", "tests.overlap_engine", "a:b:c", "a b:c", ":x", "x:", "os.system('x'):y"]
)
def test_the_setting_is_a_module_and_a_name(monkeypatch, name):
    """Anything else is refused, and the text names the setting."""
    monkeypatch.setenv("WHEREFROM_ENGINE", name)
    monkeypatch.setenv("WHEREFROM_ALLOW_OTHER_ENGINE", "true")
    with pytest.raises(ConfigurationError, match="WHEREFROM_ENGINE"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:make", "cannot be imported"),
        ("tests.overlap_engine:no_such_name", "cannot be imported"),
        (f"{__name__}:NO_FACTORY", "does not create an engine"),
        (f"{__name__}:make_nothing", "does not create an engine"),
    ],
)
def test_what_makes_no_engine_is_one_line(name, said):
    """A configuration error that names the setting, no traceback."""
    with pytest.raises(ConfigurationError, match=f"WHEREFROM_ENGINE: {name} {said}"):
        load_engine(Settings(engine=name, allow_other_engine=True))
