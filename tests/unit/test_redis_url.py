"""Redis URLs: which can be used, and what is said of the others."""

from urllib.parse import unquote, urlsplit

import pytest

from wherefrom.errors import ConfigurationError
from wherefrom.redis_url import check_redis_url, connection_options
from wherefrom.settings import Settings, load_settings
from worker.broker.redis_link import broker_of


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0", "redis://host", "redis://host/3", "redis://:p%23w@host:1/0", "rediss://u:p@[::1]:6380/0",
        "redis://[::1]/0", "unix:///run/redis.sock", "unix://u:p@/run/redis.sock?db=2",
    ],
)  # fmt: skip
def test_these_can_be_used(url):
    """With and without port, user, password, database."""
    check_redis_url(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://host:/0", "port of the URL is empty"),
        ("redis://host:", "port of the URL is empty"),
        ("redis://u:s3cret@host:/0", "port of the URL is empty"),
        ("rediss://[::1]:/0", "port of the URL is empty"),
        ("redis://host:x/0", "must be a number from 1 to 65535"),
        ("redis://host:0/0", "must be a number from 1 to 65535"),
        ("redis://host:70000/0", "must be a number from 1 to 65535"),
        ("redis://host:6379/0#s3cr", "%23"),
        ("unix://", "no socket"),
        ("unix:///?db=1", "no socket"),
        ("http://host:1/0", "unknown form"),
        ("", "unknown form"),
    ],
)
def test_the_others_are_one_line_without_their_secrets(monkeypatch, url, said):
    """In each process, when it reads its settings."""
    monkeypatch.setenv("WHEREFROM_REDIS_URL", url)
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_settings()
    assert "WHEREFROM_REDIS_URL" in str(caught.value)
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize("sign", ["/", "#", "?", "@"])
def test_a_password_with_any_sign_is_read(monkeypatch, sign):
    """Written as it is: it reaches libraries percent-encoded."""
    monkeypatch.setenv("WHEREFROM_REDIS_URL", f"redis://:s3cr{sign}et@host:6379/0")
    url = load_settings().redis_url.get_secret_value()
    assert urlsplit(url).port == 6379
    assert unquote(urlsplit(url).password or "") == f"s3cr{sign}et"


def test_celery_gets_the_path_as_an_option():
    """Database, user and password go along; a TCP URL stays as it is."""
    broker, options = broker_of(Settings(redis_url="unix://me:a%2Fb@/run/redis.sock?db=2", key_prefix="k:"))
    assert broker == "redis://me:a%2Fb@localhost/2"
    assert options["unix_socket"] == "/run/redis.sock"
    assert "socket_keepalive" not in options
    assert broker_of(Settings(redis_url="unix:///run/redis.sock"))[0] == "redis://localhost/0"
    assert broker_of(Settings(redis_url="redis://h:1/0", key_prefix="k:"))[0] == "redis://h:1/0"


def test_a_socket_takes_no_options_of_tcp():
    """redis-py refuses them."""
    options = {"socket_timeout": 1, "socket_connect_timeout": 2, "socket_keepalive": True}
    assert connection_options("unix:///x", options) == {"socket_timeout": 1}
    assert connection_options("redis://x", options) == options
