"""The sender: what it connects to, and what it makes of an answer."""

import shutil
import socket
import ssl
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.absence import absent
from tests.services.receiver import Receiver
from wherefrom.errors import WebhookAddressRefused, WebhookFailed, WebhookGone
from wherefrom.webhook import WebhookTarget, new_secret
from worker.sweeper.webhook import WebhookSender, may_connect

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "::1", "fe80::1", "fe80::1%lo",
    "fd00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "2002:a00:1::",
    "::127.0.0.1", "192.0.0.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "2001:db8::1", "fec0::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]  # fmt: skip
NEVER = ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:0.0.0.0"]


class Names:
    """Stands for the resolver: one list of addresses after the other, and what was asked."""

    def __init__(self, *answers: list[str]) -> None:
        self._left = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        found = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]


def sender(url: str, *, private: bool = True, timeout_s: float = 5.0, **options: Any) -> WebhookSender:
    """A sender to the URL's own host."""
    host = url.split("//")[1].split("/", maxsplit=1)[0].rsplit(":", 1)[0]
    target = WebhookTarget.of(url, secret=new_secret(), hosts=(host,), private=private)
    return WebhookSender(target, timeout_s=timeout_s, **options)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Open under TLS, closed without it."""
    assert may_connect(ip_address(address), private=False, encrypted=True)
    assert not may_connect(ip_address(address), private=True, encrypted=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_in_every_spelling(address: str) -> None:
    """Closed, also where IPv6 stands for IPv4; open where the operator says so."""
    assert not may_connect(ip_address(address), private=False, encrypted=True)
    assert may_connect(ip_address(address), private=True, encrypted=False)


@pytest.mark.parametrize("address", NEVER)
def test_addresses_that_are_nobodys(address: str) -> None:
    """Closed whatever is set."""
    assert not may_connect(ip_address(address), private=True, encrypted=True)


def test_a_private_receiver_must_be_allowed(receiver: Receiver) -> None:
    """It gets nothing, not even a connection."""
    with pytest.raises(WebhookAddressRefused, match="NOTIFY_PRIVATE"):
        sender(f"https://127.0.0.1:{receiver.port}/", private=False).send("evt_1", b"{}")
    assert receiver.got == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "localhost"])
def test_other_spellings_of_loopback(host: str) -> None:
    """The resolver reads them as loopback, so they are judged as loopback."""
    with pytest.raises(WebhookAddressRefused):
        sender(f"https://{host}/", private=False).check()


def test_the_checked_address_is_connected_to(receiver: Receiver) -> None:
    """A name is resolved once per connection: a second answer (rebinding) is never asked for."""
    names = Names(["127.0.0.1"], ["10.255.255.1"])
    sender(f"http://hooks.example:{receiver.port}/in", resolve=names).send("evt_1", b"{}")
    assert names.asked == ["hooks.example"]
    assert [one.headers["host"] for one in receiver.got] == [f"hooks.example:{receiver.port}"]


def test_rebinding_meets_the_check(receiver: Receiver) -> None:
    """A name that was public when it was looked at and is private at the connection is refused there."""
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    careful = sender(f"https://hooks.example:{receiver.port}/in", private=False, resolve=names)
    assert careful.check() == "8.8.8.8"
    with pytest.raises(WebhookAddressRefused):
        careful.send("evt_1", b"{}")
    assert receiver.got == []


def test_only_allowed_addresses_of_a_name_are_tried(receiver: Receiver) -> None:
    """Of several addresses those that are not allowed are left out."""
    names = Names(["0.0.0.0", "127.0.0.1"])
    sender(f"http://hooks.example:{receiver.port}/in", resolve=names).send("evt_1", b"{}")
    assert len(receiver.got) == 1


def test_what_is_sent(receiver: Receiver) -> None:
    """The bytes as they are, their type, and the signed time."""
    sender(f"http://127.0.0.1:{receiver.port}/in?a=b", now=lambda: 1614265330.7).send("evt_1", b'{"a":1}')
    (got,) = receiver.got
    assert (got.path, got.body) == ("/in?a=b", b'{"a":1}')
    assert got.headers["content-type"] == "application/json"
    assert (got.headers["webhook-id"], got.headers["webhook-timestamp"]) == ("evt_1", "1614265330")
    assert got.headers["webhook-signature"].startswith("v1,")


@pytest.mark.parametrize("status", [301, 307, 400, 404, 429, 500, 503])
def test_answers_that_are_no_success(receiver: Receiver, status: int) -> None:
    """They fail; a redirect leads nowhere."""
    receiver.answers = [status]
    with pytest.raises(WebhookFailed, match=str(status)):
        sender(f"http://127.0.0.1:{receiver.port}/in").send("evt_1", b"{}")
    assert [one.path for one in receiver.got] == ["/in"]


def test_a_receiver_that_wants_no_more(receiver: Receiver) -> None:
    """410 ends it for good."""
    receiver.answers = [410]
    with pytest.raises(WebhookGone):
        sender(f"http://127.0.0.1:{receiver.port}/").send("evt_1", b"{}")


def test_an_answer_that_drips_ends_at_the_deadline(receiver: Receiver) -> None:
    """Each byte is in time, and the whole try still ends."""
    receiver.answers = [None]
    with pytest.raises(WebhookFailed, match="no answer"):
        sender(f"http://127.0.0.1:{receiver.port}/", timeout_s=0.3).send("evt_1", b"{}")


def test_nobody_listens() -> None:
    """Refused connections and names without an address fail alike."""
    with pytest.raises(WebhookFailed):
        sender("http://127.0.0.1:1/").send("evt_1", b"{}")
    with pytest.raises(WebhookFailed, match="cannot be resolved"):
        sender("http://" + "a" * 70 + ".example/").send("evt_1", b"{}")
    with pytest.raises(WebhookAddressRefused):
        sender("http://hooks.example/", resolve=Names([])).send("evt_1", b"{}")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of hooks.example with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        absent("no openssl on PATH")
    made = tmp_path / "both.pem"
    words = (
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    )
    names = ("-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example")
    where = ("-keyout", str(tmp_path / "key.pem"), "-out", str(made))
    subprocess.run([openssl, *words, *names, *where], check=True, capture_output=True)
    made.write_text(made.read_text() + (tmp_path / "key.pem").read_text())
    return made


def test_tls_is_checked_against_the_name(certificate: Path) -> None:
    """The connection goes to an address, the certificate must be that of the name, from somebody who is trusted."""
    trust = ssl.create_default_context(cafile=str(certificate))
    known: dict[str, Any] = {"resolve": Names(["127.0.0.1"]), "trust": trust}
    with Receiver(certificate) as receiver:
        sender(f"https://hooks.example:{receiver.port}/", **known).send("evt_1", b"{}")
        with pytest.raises(WebhookFailed, match="CERTIFICATE_VERIFY_FAILED"):
            sender(f"https://other.example:{receiver.port}/", **known).send("evt_2", b"{}")
        with pytest.raises(WebhookFailed, match="CERTIFICATE_VERIFY_FAILED"):
            sender(f"https://hooks.example:{receiver.port}/", resolve=known["resolve"]).send("evt_3", b"{}")
        assert [one.headers["webhook-id"] for one in receiver.got] == ["evt_1"]
