"""Where notices may go, and how they are signed."""

import base64
import hashlib
import hmac

import pytest
from pydantic import SecretStr, ValidationError

from wherefrom.settings import Settings
from wherefrom.webhook import LEAST_SECRET_BYTES, WebhookTarget, new_secret

#: The example of the Standard Webhooks specification's reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT, AT_S, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
URL = "https://hooks.example/in?token=abc"


def target(url: str = URL, *, secret: str = SECRET, private: bool = False) -> WebhookTarget:
    """A target whose host is on the list."""
    return WebhookTarget.of(
        url, secret=secret, hosts=("hooks.example", "[::1]", "127.0.0.1"), private=private
    )


def test_the_signature_is_that_of_the_specification() -> None:
    """Receivers check it with any library of Standard Webhooks."""
    assert target().headers(EVENT, BODY, at_s=AT_S) == {
        "webhook-id": EVENT,
        "webhook-timestamp": str(AT_S),
        "webhook-signature": SIGNATURE,
    }


def test_the_signature_covers_id_time_and_body() -> None:
    """Whatever of them changes, the signature does."""
    made = {
        target().headers(event, body, at_s=at_s)["webhook-signature"]
        for event, body, at_s in (
            (EVENT, BODY, AT_S),
            ("x", BODY, AT_S),
            (EVENT, b"{}", AT_S),
            (EVENT, BODY, 1),
        )
    }
    assert len(made) == 4


def test_two_secrets_both_sign() -> None:
    """While the secret is being changed, a receiver with either one takes the notice."""
    other = new_secret()
    found = target(secret=f"{other} {SECRET}").headers(EVENT, BODY, at_s=AT_S)["webhook-signature"].split(" ")
    key = base64.b64decode(other.removeprefix("whsec_"))
    signed = hmac.digest(key, f"{EVENT}.{AT_S}.".encode() + BODY, hashlib.sha256)
    assert found == [f"v1,{base64.b64encode(signed).decode()}", SIGNATURE]


@pytest.mark.parametrize(
    ("url", "private", "said"),
    [
        ("http://hooks.example/in", False, "https"),
        ("ftp://hooks.example/in", True, "https"),
        ("hooks.example/in", False, "https"),
        ("https://ann:pw@hooks.example/in", False, "user"),
        ("https://@hooks.example/in", False, "user"),
        ("https://hooks.example/in#x", False, "fragment"),
        ("https://other.example/in", False, "notify_hosts"),
        ("https://hooks.example.evil.example/in", False, "notify_hosts"),
        ("https://evil-hooks.example/in", False, "notify_hosts"),
        ("https:///in", False, "notify_hosts"),
        ("https://hooks.example:99999/in", False, "port"),
        ("https://hooks.example:0/in", False, "port"),
        ("https://hooks.example:x/in", False, "port"),
    ],
)
def test_urls_that_are_refused(url: str, private: bool, said: str) -> None:
    """The text says what is wrong, and quotes nothing of the URL."""
    with pytest.raises(ValueError, match=said) as refused:
        target(url, private=private)
    assert "/in" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://HOOKS.example./in", "https://hooks.example:8443", "https://[::1]/in"]
)
def test_hosts_are_compared_without_case_dot_brackets_and_port(url: str) -> None:
    """A name that means the same host is on the list."""
    assert target(url).host in {"hooks.example", "::1"}


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_!!!", SECRET.removeprefix("whsec_"), f"{SECRET} x",
     "whsec_" + base64.b64encode(b"x" * (LEAST_SECRET_BYTES - 1)).decode()],
)  # fmt: skip
def test_secrets_that_are_refused(secret: str) -> None:
    """Nothing is sent unsigned or under a secret that can be guessed; no secret is quoted."""
    with pytest.raises(ValueError, match="notify_secret") as refused:
        target(secret=secret)
    assert len(secret) < 8 or secret not in str(refused.value)


def test_off_by_default_and_whole_or_not_at_all() -> None:
    """Without a URL nothing is told; with one, host and secret must be right when the process starts."""
    assert Settings().webhook() is None
    with pytest.raises(ValidationError, match="notify_hosts"):
        Settings(notify_url=SecretStr(URL), notify_secret=SecretStr(SECRET))
    with pytest.raises(ValidationError, match="notify_secret"):
        Settings(notify_url=SecretStr(URL), notify_hosts=("hooks.example",))
    ready = Settings(
        notify_url=SecretStr(URL), notify_secret=SecretStr(SECRET), notify_hosts=("hooks.example",)
    )
    assert ready.webhook() is not None
    assert {URL, SECRET} <= ready.secrets()
    assert "token=abc" not in repr(ready) + repr(ready.webhook())
