"""What answers are computed with, as each audit keeps it: the release, the engine, and the settings that decide scores."""

from collections.abc import Mapping
from typing import Any

from wherefrom.attribution.interface import Attributor, DescribedAttributor
from wherefrom.settings import Settings
from wherefrom.version import __version__

#: Name of wherefrom's own engine.
OWN_ENGINE = "wherefrom"
#: Settings that decide scores, under their own names.
_SETTINGS = ("max_tokens", "over_long")


def setup_of(attributor: Attributor, settings: Settings) -> dict[str, Any]:
    """What answers of an attributor are computed with."""
    described = attributor.computes_with() if isinstance(attributor, DescribedAttributor) else {}
    return {
        "wherefrom": __version__,
        "engine": settings.engine or OWN_ENGINE,
        **{name: getattr(settings, name) for name in _SETTINGS},
        **described,
    }


def settings_of_then(settings: Settings, then: Mapping[str, Any] | None) -> Settings:
    """The settings with what decided scores when an audit was answered, as far as it says."""
    known = then or {}
    return settings.model_copy(update={name: known[name] for name in _SETTINGS if name in known})
