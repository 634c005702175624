"""Off loopback nobody is anonymous, however the web service is started. Compose is tried in tests/integration/test_compose.py."""

from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from wherefrom.access import key_needed, refuse_keyless_production
from wherefrom.errors import ConfigurationError
from wherefrom.settings import Settings, child_environment, load_settings
from worker.__main__ import make_app
from worker.supervise import LocalService

#: Addresses that others may reach, in every spelling that a socket takes.
ELSEWHERE = (
    "0.0.0.0",
    "::",
    "",
    "192.168.1.5",
    "fe80::1",
    "wherefrom.example",
    "127.0.0.1.example.org",
    "0",
    "2130706433",
)
HERE = ("127.0.0.1", "127.9.9.9", "::1", "localhost")


@pytest.mark.parametrize("host", [*ELSEWHERE, *HERE])
@pytest.mark.parametrize("way", ["option", "setting", "up"])
def test_every_way_to_start_asks_for_keys(host: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server is given in the end decides, not what the settings said before the options."""
    begun: list[Settings] = []

    def run_web(settings: Settings, *, number: int | None) -> None:
        begun.append(settings)

    monkeypatch.setattr("worker.web_server.run_web", run_web)
    if way == "setting":
        monkeypatch.setenv("WHEREFROM_HOST", host)
    if way == "up":
        given = Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"))
        overrides = LocalService(given, overrides={"host": host})._overrides
        for name, value in child_environment(**overrides).items():
            monkeypatch.setenv(name, value)
        begun.append(load_settings())
    else:
        done = CliRunner().invoke(make_app(), ["web", *(["--host", host] if way == "option" else [])])
        assert done.exit_code == 0, done.output
    [settings] = begun
    assert settings.host == host
    assert key_needed(settings) is (host not in HERE)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_without_keys_it_does_not_start_there(host: str) -> None:
    """The setting for a proxy on this machine is no way around keys elsewhere."""
    unsafe: dict[str, Any] = {"host": host, "unsafe_no_auth": True}
    with pytest.raises(ConfigurationError):
        refuse_keyless_production(Settings(**unsafe))
