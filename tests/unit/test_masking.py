"""No text that leaves the process holds a secret."""

import io
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from db.session import Database, mask_url, parse_url
from wherefrom.client.connection import Connection
from wherefrom.errors import ConfigurationError, DatabaseUnavailable, ServiceUnavailable
from wherefrom.logs import configure_logging, get_logger
from wherefrom.masking import mask, readable_url, secrets_of
from wherefrom.settings import Settings, masked
from worker.broker.redis_link import connect_redis

ROOT = Path(__file__).parents[2]
PASSWORD = "s3cr#et@1/x"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:s3cret@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
        ("redis://:s3cr#et@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
        ("redis://:s3@cr/e?t@h:1/0", "redis://:***@h:1/0"),
        ("redis://s3cret@h", "redis://***@h"),
        ("rediss://user:s3cret@h", "rediss://user:***@h"),
        ("sentinel://:s3cret@a:1;sentinel://:s3cret@b:2", "sentinel://:***@b:2"),
        ("unix://:s3cret@/run/redis.sock?db=0", "unix://:***@/run/redis.sock?db=0"),
        ("redis://h/0?username=u&password=s3cret&ssl=1", "redis://h/0?username=u&password=***&ssl=1"),
        ("postgresql+psycopg://u:s3%23cret@h/db", "postgresql+psycopg://u:***@h/db"),
        ("postgresql://h/db?user=u&password=s3cret", "postgresql://h/db?user=u&password=***"),
        ("postgresql://h/db?sslpassword=s3cret&sslmode=require", "postgresql://h/db?sslpassword=***&sslmode=require"),
        ("postgresql://h/db?SSLPASSWORD=s3cr#et", "postgresql://h/db?SSLPASSWORD=***"),
        ("host=h password=s3cret dbname=d", "host=h password=*** dbname=d"),
        ("host=h password = 's3 cr\\'et' dbname=d", "host=h password = '***' dbname=d"),
        ("host=h sslpassword=s3\\ cret dbname=d", "host=h sslpassword=*** dbname=d"),
        ("requirepass=s3cret", "requirepass=***"),
        ("{'user': 'u', 'password': 's3cret'}", "{'user': 'u', 'password': '***'}"),
        ('{"api_key": "s3cret", "x": 1}', '{"api_key": "***", "x": 1}'),
        ("WHEREFROM_API_KEY=s3cret", "WHEREFROM_API_KEY=***"),
        ("PGPASSWORD=s3cret psql", "PGPASSWORD=*** psql"),
        ("client --token=s3cret --db-pass=s3cret", "client --token=*** --db-pass=***"),
        ("Authorization: Bearer s3cret-s3cret", "Authorization: Bearer ***"),
        ("authorization: basic czNjcmV0", "authorization: basic ***"),
        ("the key wf_0a1b2c3d_s3cret-s3cret_s3cret", "the key wf_0a1b2c3d_***"),
        ("no answer from http://user:s3cret@127.0.0.1:1: refused", "no answer from http://user:***@127.0.0.1:1: refused"),
        ('cannot open "redis://:s3"cret@h/0"', 'cannot open "redis://:***@h/0"'),
        ("first\nredis://:s3cret@h\nlast", "first\nredis://:***@h\nlast"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_masked(text: str, shown: str) -> None:
    """What is no secret stays readable."""
    assert mask(text) == shown
    assert mask(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg://127.0.0.1:5432/wherefrom", "http://127.0.0.1:8077/v1/audits?cursor=abc&limit=5", "max_tokens=1024 tokens=3",
        "the API key is unknown, expired or revoked", "send an API key as `Authorization: Bearer wf_...`; ask the operator for one",
        "sqlite:////var/lib/wherefrom.db", "mail me@example.org", "postgresql+psycopg://wherefrom@db:5432/wherefrom", "passed=3 author=me", "key=order-1",
    ],
)  # fmt: skip
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    """Nothing is masked that tells no secret."""
    assert mask(text) == text


_SECRETS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Z", "C"]),
    min_size=6,
    max_size=24,
)
_FORMS = (
    ("redis://:{}@cache:6379/0", str),
    ("redis://:{}@cache:6379/0", lambda one: quote(one, safe="")),
    ("error: postgresql+psycopg://joe:{}@db/x (refused)", str),
    ("postgresql://db/x?password={}&sslmode=require", lambda one: quote(one, safe="")),
    ("postgresql://db/x?sslpassword={}", lambda one: quote(one, safe="")),
    ("host=db sslpassword='{}' dbname=x", lambda one: one.replace("\\", "\\\\").replace("'", "\\'")),
)  # fmt: skip


@given(_SECRETS, st.sampled_from(_FORMS))
def test_no_masked_text_holds_the_secret(secret, form) -> None:
    """By its form alone; whatever stands in it."""
    template, encode = form
    assume(secret not in mask(template.format("")) and encode(secret) not in mask(template.format("")))
    shown = mask(template.format(encode(secret)))
    assert secret not in shown
    assert encode(secret) not in shown


@given(
    st.text(min_size=6, max_size=24),
    st.sampled_from([str, repr, json.dumps, lambda one: quote(one, safe="")]),
)
def test_known_secrets_are_masked_in_any_text(secret, write) -> None:
    """Where no form tells them; Python, JSON and URLs write them in their own ways."""
    text = f"could not log in as joe with <{write(secret)}> today"
    assume(secret not in "could not log in as joe with <***> today" and not set(secret) & set("*"))
    assert secret not in mask(text, {secret})
    assert write(secret).strip("'\"") not in mask(text, {secret})


@pytest.mark.parametrize(
    "password", ["s3cr#et", "s3@cret", "s3/cret", "s3?cret", "s3cret%23", "s3%cret", "a:b#c@d/e?f"]
)
def test_passwords_with_any_sign_reach_the_server(password: str) -> None:
    """Written as they are, as people do; what is percent-encoded already stays so."""
    url = readable_url(f"redis://:{password}@127.0.0.1:6379/0")
    client = connect_redis(Settings.model_validate({"redis_url": f"redis://:{password}@127.0.0.1:6379/0"}))
    meant = "s3cret#" if password == "s3cret%23" else password
    assert client.connection_pool.connection_kwargs["password"] == meant
    assert client.connection_pool.connection_kwargs["host"] == "127.0.0.1"
    client.close()
    assert readable_url(url) == url
    parsed = parse_url(f"postgresql://joe:{password}@db:5432/x")
    assert (parsed.password, parsed.host, parsed.database) == (meant, "db", "x")
    assert (
        Database(f"postgresql://joe:{password}@db:5432/x").url_masked
        == "postgresql+psycopg://joe:***@db:5432/x"
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:6379/0",
        "redis://h/0?username=a@b",
        "unix:///run/r.sock?db=1",
        "sqlite:///a@b#c.db",
        "http://[::1]:8077",
    ],
)
def test_urls_without_user_info_stay(url: str) -> None:
    """An `@` further back is none of an authority."""
    assert readable_url(url) == url


@pytest.mark.parametrize("password", ["s3cret", "s3cr#et", "s3%23cret"])
def test_errors_and_urls_hold_no_password(password: str) -> None:
    """What libraries say of a URL, and what we say."""
    with pytest.raises(ServiceUnavailable) as away:
        Connection(f"http://joe:{password}@127.0.0.1:1", None, timeout_s=1).get("/v1/queue")
    with pytest.raises(ValidationError) as unreadable:
        Settings.model_validate({"redis_url": f"redis://:{password}@127.0.0.1:port/0"})
    with pytest.raises(ConfigurationError) as odd:
        Connection(f"ftp://joe:{password}@h", None, timeout_s=1)
    texts = [str(one.value) for one in (away, unreadable, odd)]
    texts += [
        mask_url(parse_url(f"postgresql://h/db?user=u&{query}={password}"))
        for query in ("password", "sslpassword", "SSLPassword")
    ]
    texts.append(str(DatabaseUnavailable(f"postgresql://u:{password}@h: gone")))
    assert not [text for text in texts if "s3c" in text or "cret" in text]


def raise_with(secret: str) -> None:
    """A bug that tells a secret."""
    raise RuntimeError(f"login with {secret} failed")


def _logged(form: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a log of this form holds after all kinds of events."""
    target = io.StringIO()
    monkeypatch.setattr("sys.stderr", target)
    configure_logging(settings.model_copy(update={"log_format": form}))
    secret = PASSWORD
    log = get_logger("test")
    log.info("started", url=f"redis://:{secret}@h", database={"password": secret, "more": [f"as {secret}"]})
    log.warning("odd", password=secret, error=ValueError(f"cannot use {secret}"), where=Path(secret))
    logging.getLogger("library").warning("connecting to %s", f"postgresql://u:{quote(secret)}@h/d")
    try:
        raise_with(secret)
    except RuntimeError:
        log.exception("broke")
        logging.getLogger("library").exception("broke too")
    return target.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_text_forges_a_line(form, monkeypatch):
    """A line break in a value, in the message of a library and in an error: no line of the log begins as an event does."""
    target = io.StringIO()
    monkeypatch.setattr("sys.stderr", target)
    configure_logging(Settings(log_format=form))
    forged = "2026-11-27T00:00:00Z [info     ] forged"
    hostile = f"x\n{forged}\r\n{forged}\u2028{forged}\x1b[2J"
    get_logger("test").info("real", value=hostile, values=[hostile], nested={"a": hostile})
    logging.getLogger("library").warning("bad record: %s", hostile)
    try:
        raise_with(hostile)
    except RuntimeError:
        get_logger("test").exception("broke")
    said = target.getvalue()
    assert "forged" in said
    assert not any(line.startswith(("2026-11-27T00", "forged")) for line in said.splitlines())
    assert "\x1b[2J" not in said


@pytest.mark.parametrize("form", ["json", "console"])
def test_logs_hold_no_secret(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and those of libraries, fields and tracebacks; known secrets also where nothing tells them."""
    settings = Settings.model_validate({"redis_url": f"redis://:{PASSWORD}@h:1/0", "api_key": "wf_key"})
    said = _logged(form, settings, monkeypatch)
    assert "s3cr" not in said
    assert said.count("Traceback") == 2
    if form == "json":
        assert [json.loads(line)["event"] for line in said.splitlines()][:2] == ["started", "odd"]


def test_tracebacks_of_bugs_hold_no_secret() -> None:
    """Of the main thread and of others: nobody catches a bug."""
    program = (
        "import threading\n"
        "from wherefrom.logs import configure_logging\n"
        "from wherefrom.settings import load_settings\n"
        "configure_logging(load_settings())\n"
        "def work(): raise RuntimeError('login with s3cr#et failed')\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "raise RuntimeError('cannot open redis://:s3cr#et@h')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"WHEREFROM_REDIS_URL": "redis://:s3cr#et@h:1/0", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("RuntimeError: ") == 2
    assert "s3cr" not in ended.stderr


def test_secrets_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a variable that cannot be used."""
    monkeypatch.setenv("WHEREFROM_DATABASE_URL", "postgresql://joe:s3cr#et@h/d")
    monkeypatch.setenv("WHEREFROM_API_KEY", "another")
    assert (
        masked("joe may not log in with s3cr#et or s3cr%23et or another")
        == "joe may not log in with *** or *** or ***"
    )
    assert not secrets_of("postgresql://wherefrom@h/wherefrom") | secrets_of("redis://default@h/0")
    assert secrets_of("https://token@h/x") == {"token"}
    assert secrets_of("host=h password='s3cret' sslpassword=x1") == {"s3cret", "'s3cret'", "x1"}
    assert (
        Settings(redis_url=SecretStr("redis://:s3cr#et@h")).redis_url.get_secret_value()
        == "redis://:s3cr%23et@h"
    )


def test_long_texts_take_no_time() -> None:
    """A megabyte without a secret, whatever it repeats."""
    start = time.monotonic()
    for part in ("a", "a-", "http://", "password", "?a=", "'", "a.b+"):
        mask(part * (200_000 // len(part)))
    assert time.monotonic() - start < 5.0
