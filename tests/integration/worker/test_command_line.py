"""The operator's command line: what each command says, and its exit code. Called in this process; test_service.py starts real ones."""

import json
import os

import pytest
from sqlalchemy import text

from db.access import keys
from db.queues.audit_queue import AuditQueue
from db.storing.intake import accept
from tests.integration.worker.conftest import MODEL, register_bundle
from tests.services.receiver import Receiver
from wherefrom.records import FlaggedRecord

pytestmark = pytest.mark.redis


@pytest.fixture
def database_url(sqlite_url):
    """The command line is the same on both databases; SQLite is enough here."""
    return sqlite_url


@pytest.mark.parametrize(
    ("words", "overrides", "code", "said"),
    [
        (("health", "redis"), {}, 0, "redis: well"),
        (("health", "redis"), {"redis_url": "redis://127.0.0.1:1/0"}, 1, "UNWELL"),
        (("health", "web"), {"port": "1"}, 1, "does not answer"),
        (("health", "intake"), {}, 1, "no sign of life"),
        (("health", "nonsense"), {}, 2, "unknown check 'nonsense'"),
        (("health", "database", "--json"), {}, 0, '"well": true'),
        (("web", "--host", "0.0.0.0"), {"unsafe_no_auth": "true"}, 2, "WHEREFROM_UNSAFE_NO_AUTH"),
        (("web",), {"unsafe_no_auth": "true", "production": "true"}, 2, "WHEREFROM_PRODUCTION"),
        (("up", "--host", "0.0.0.0"), {"unsafe_no_auth": "true"}, 2, "WHEREFROM_UNSAFE_NO_AUTH"),
        (("retry",), {}, 2, "either audit ids"),
        (("retry", "--state", "done"), {}, 2, "cannot be retried"),
        (("retry", "--state", "dead", "--json"), {}, 0, '{"requeued": 0}'),
        (("retry", "7"), {"redis_url": "redis://127.0.0.1:1/0"}, 2, "1 of the ids cannot be retried"),
        (("add-bundle", "/nowhere"), {}, 2, "folder not found"),
        (("retry", "7", "--bundle", "nobody"), {}, 2, "no registered bundle has the name or id 'nobody'"),
        (("bundles", "--json"), {}, 0, "[]"),
        (("bundles", "list", "--json"), {}, 0, "[]"),
        (("bundles",), {}, 0, "no bundle is registered"),
        (("bundles", "retire", "nobody"), {}, 2, "no registered bundle has the name or id 'nobody'"),
        (("bundles", "activate", "7"), {}, 2, "no bundle with id 7"),
        (("migrate", "--json"), {}, 0, '"head": '),
        (("migrate",), {"database_url": "postgresql+psycopg://x@127.0.0.1:1/x"}, 3, "unavailable"),
        (("migrate",), {"database_url": "mysql://x"}, 2, "not supported"),
        (("migrate",), {"lease_seconds": "nonsense"}, 2, "WHEREFROM_LEASE_SECONDS"),
        (("health", "redis"), {"redis_url": "nonsense"}, 2, "WHEREFROM_REDIS_URL"),
        (("health", "redis"), {"redis_url": "redis://127.0.0.1:/0"}, 2, "the port of the URL is empty"),
        (("doctor",), {"redis_url": "redis://127.0.0.1:6379/0#s3cr"}, 2, "write it as %23"),
        (("migrate",), {"database_url": "postgresql://u@h:/db"}, 2, "the port of the database URL is empty"),
        (("doctor",), {"database_url": "postgresql://u@h:99999/db"}, 1, "ports go from 1 to 65535"),
    ],
)
@pytest.mark.usefixtures("database")
def test_each_command_says_what_is_so_and_ends_with_its_code(operator_command, words, overrides, code, said):  # noqa: PLR0917 - a table
    """0 ok, 1 unhealthy, 2 wrong usage, 3 away; one line for what a person can mend."""
    ended = operator_command(*words, **overrides)
    assert ended.code == code, ended
    assert said in ended.out + ended.err


def test_bundles_are_retired_and_activated(operator_command, database, bundle_id):
    """By name and by id; both say what became of the audits that wait."""
    record = FlaggedRecord(prompt="p", completion="c", model=MODEL)
    accept(database, [record], producer="p", channel="http")
    retired = operator_command("bundles", "retire", "overlap-test")
    assert "is retired" in retired.out
    assert "1 pending audit rejected (unknown_model)" in retired.out
    assert "False" in operator_command("bundles").out
    activated = json.loads(
        operator_command("bundles", "activate", str(bundle_id), "--json").out.splitlines()[-1]
    )
    assert (activated["active"], activated["queued"], activated["without_bundle"]) == (True, 1, 0)


def test_answered_audits_are_asked_again_under_another_bundle(operator_command, database, bundle_id):
    """The new audit is pending beside the old one; what cannot be asked is named, with exit code 2."""
    record = FlaggedRecord(prompt="p", completion="c", model=MODEL)
    (taken,) = accept(database, [record], producer="p", channel="http")
    second = register_bundle(database, name="overlap-second", model=MODEL, activate=False)
    asked = json.loads(
        operator_command(
            "retry", str(taken.audit_id), "--bundle", "overlap-second", "--json"
        ).out.splitlines()[-1]
    )
    assert (asked["asked"], asked["present"], asked["left_out"]) == (1, 0, 0)
    assert AuditQueue(database).pending_counts() == {bundle_id: 1, second: 1}
    ended = operator_command("retry", str(taken.audit_id), "4711", "--bundle", str(second))
    assert ended.code == 2
    assert "1 already audited there, 1 left out" in ended.out


@pytest.mark.usefixtures("database")
def test_keys_are_made_listed_and_revoked(operator_command):
    """The key is shown once; the list shows only its prefix."""
    made = operator_command("keys", "create", "producer", "--scope", "ingest", "--days", "9", "--json")
    key = json.loads(made.out)["key"]
    listed = operator_command("keys", "list", "--json")
    assert [(one["name"], one["scopes"]) for one in json.loads(listed.out)] == [("producer", ["ingest"])]
    assert key not in listed.out
    assert operator_command("keys", "revoke", "producer").code == 0
    assert json.loads(operator_command("keys", "list", "--json").out)[0]["revoked_at"] is not None
    assert operator_command("keys", "create", "x", "--scope", "all").code == 2
    assert operator_command("keys", "create", "y", "--scope", "read").out.startswith("wf_")
    assert "producer" in operator_command("keys", "list").out


def test_doctor_names_a_database_file_that_others_reach(operator_command, database, settings):
    """A file of a release before; a new one is its owner's alone."""
    database.ping()
    path = settings.database_url.get_secret_value().removeprefix("sqlite:///")
    for mode, named in ((0o644, True), (0o600, False)):
        os.chmod(path, mode)  # noqa: PTH101 - the path is a string
        found = json.loads(operator_command("doctor", "--json").out.splitlines()[-1])
        assert ("database file" in {one["what"] for one in found}) is named


def test_doctor_names_keys_with_a_name_of_the_service(operator_command, database):
    """A release before could make one; its records and the stream's share idempotency keys."""
    keys.create_key(database, "old", ["ingest"])
    with database.writing() as session:
        session.execute(text("UPDATE producer SET name = 'stream'"))
    found = json.loads(operator_command("doctor", "--json").out.splitlines()[-1])
    assert ["the key old" in one["text"] for one in found if one["what"] == "keys"] == [True]


@pytest.mark.usefixtures("database")
def test_a_key_is_rotated(operator_command):
    """The new key belongs to the same producer; the old one is revoked at once where no grace is wanted."""
    assert operator_command("keys", "create", "eu", "--scope", "ingest", "--producer", "production").code == 0
    new = json.loads(
        operator_command("keys", "rotate", "eu", "--grace-hours", "0", "--days", "9", "--json").out
    )
    assert (new["name"], new["producer"], new["key"][:3]) == ("eu-2", "production", "wf_")
    rotated = operator_command("keys", "rotate", "eu-2")
    assert rotated.out.startswith("wf_")
    assert "eu-3" in rotated.err
    listed = json.loads(operator_command("keys", "list", "--json").out)
    assert [(one["name"], one["producer"]) for one in listed] == [
        (name, "production") for name in ("eu", "eu-2", "eu-3")
    ]
    for words in (("rotate", "eu"), ("rotate", "x"), ("create", "Stream", "--scope", "ingest")):
        assert operator_command("keys", *words).code == 2
    for days in ("36501", "99999999999", "0"):
        assert operator_command("keys", "create", "y", "--scope", "read", "--days", days).code == 2


@pytest.mark.usefixtures("bundle_id")
def test_doctor_says_what_is_wrong(operator_command, settings, monkeypatch):
    """A healthy installation without processes: exit 0 with warnings, a misspelt setting among them; a missing bundle or Redis: exit 1."""
    monkeypatch.setenv("WHEREFROM_BATCH_AUDIT", "3")
    ended = operator_command("doctor", "--json")
    verdicts = {one["what"]: one["verdict"] for one in json.loads(ended.out.splitlines()[-1])}
    assert ended.code == 0, ended
    assert "WHEREFROM_BATCH_AUDIT is not a setting" in ended.out
    assert verdicts["bundle"] == verdicts["database"] == verdicts["redis"] == "ok"
    assert verdicts["worker"] == verdicts["redis durability"] == verdicts["engine"] == "warning"
    (settings.bundles_dir / "overlap-test" / "examples.jsonl").unlink()
    assert "unknown_bundle" in operator_command("doctor", "--json").out
    assert operator_command("doctor", redis_url="redis://127.0.0.1:1/0").code == 1


@pytest.mark.usefixtures("bundle_id")
def test_bundles_are_listed(operator_command):
    """By name and model."""
    assert "overlap-test" in operator_command("bundles").out


@pytest.mark.parametrize(
    "words",
    [
        ("up",), ("migrate",), ("intake",), ("run",), ("sweep",), ("web",), ("health",), ("doctor",), ("retry",), ("replay",),
        ("add-bundle",), ("bundles",), ("keys", "create"), ("keys", "list"), ("keys", "revoke"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("settings")
def test_every_command_explains_itself_with_examples(operator_command, words):
    """`--help` has an example of each."""
    ended = operator_command(*words, "--help")
    assert ended.code == 0
    assert f"python -m worker {' '.join(words)}" in " ".join(ended.out.split())


def test_the_webhook_from_a_terminal(operator_command):
    """A secret, a test that is taken or not, the list of what was told, and sending again what was given up."""
    assert operator_command("notify", "list").err.strip() == "nothing was told"
    unset = operator_command("notify", "test")
    assert unset.code == 2
    assert "WHEREFROM_NOTIFY_URL" in unset.err
    secret = operator_command("notify", "secret").out.strip()
    with Receiver() as receiver:
        target = {
            "notify_url": f"http://127.0.0.1:{receiver.port}/in",
            "notify_secret": secret,
            "notify_hosts": '["127.0.0.1"]',
            "notify_private": "true",
            "notify_max_attempts": "1",
        }
        assert "\nthe receiver took evt_" in operator_command("notify", "test", **target).out
        receiver.answers = [500]
        failed = operator_command("notify", "test")
        assert failed.code == 3
        assert "the receiver answered 500 (attempts_exhausted)" in failed.err
    listed = json.loads(operator_command("notify", "list", "--json").out)
    assert [(one["state"], one["kind"]) for one in listed] == [("dead", "test"), ("delivered", "test")]
    assert operator_command("notify", "list", "--state", "dead").out.count("test") == 1
    assert operator_command("notify", "retry").out == "1 notice will be sent again\n"
    assert (
        json.loads(operator_command("notify", "list", "--state", "pending", "--json").out)[0]["attempt"] == 0
    )
    wrong = operator_command("notify", "test", notify_private="false")
    assert wrong.code == 2
    assert "https" in wrong.err
    assert secret not in wrong.err


def test_forget_hold_and_retain(operator_command, database, bundle_id):
    """Outputs by audit and by class; what is held is refused by the number of its hold; rules come and go. Everything has JSON."""
    records = [
        FlaggedRecord(
            prompt="p", completion=f"c {n}", model=MODEL, idempotency_key=f"k{n}", labels={"user": f"u{n}"}
        )
        for n in range(3)
    ]
    first, second, third = (one.audit_id for one in accept(database, records, producer="p", channel="http"))
    held = operator_command("holds", "place", str(first), "--reason", "court", "--json")
    hold_id = json.loads(held.out)["hold_id"]
    refused = operator_command("forget", "output", str(first), "--reason", "r")
    assert (refused.code, f"under legal hold {hold_id} (court)" in refused.err) == (2, True)
    assert "court" in operator_command("holds").out
    of_one = ("forget", "output", "--label", "user=u1", "--until", "2999-01-31", "--reason", "r", "--json")
    assert json.loads(operator_command(*of_one, "--preview").out) == {"outputs": 1}
    assert "1 output would be erased; nothing was" in operator_command(*of_one[:-1], "--preview").out
    assert "hold" in operator_command("forget", "output", str(first), "--reason", "r", "--preview").err
    done = operator_command(*of_one)
    assert (done.code, json.loads(done.out)["erased"], json.loads(done.out)["cleaned"]) == (0, 1, True)
    by_key = ("--producer", "p", "--external-id", "k2", "--reason", "r", "--without-redis")
    assert "1 text erased" in operator_command("forget", "output", *by_key).out
    for wrong, said in (
        ((), "give either"),
        ((str(third), "--producer", "p"), "give either"),
        (("--since", "yesterday"), "--since: not a day"),
        (("--label", "user"), "NAME=VALUE"),
    ):
        ended = operator_command("forget", "output", *wrong, "--reason", "r")
        assert (ended.code, said in ended.err) == (2, True), wrong
    assert operator_command("holds", "lift", str(hold_id), "--reason", "over").code == 0
    assert "no legal hold" in operator_command("holds").err
    made = operator_command("retention", "add", "low", "--severity", "low", "--days", "30", "--json")
    assert json.loads(made.out)["outputs"]["severity"] == "low"
    assert "severity low" in operator_command("retention").out
    assert operator_command("retention", "end", str(json.loads(made.out)["rule_id"])).code == 0
    assert "no retention rule" in operator_command("retention", "list").err
    assert operator_command("forget", "output", str(second), "--reason", "r").code == 2
    missing = operator_command("forget", "example", "nobody", "--reason", "r")
    assert (missing.code, "nothing was erased" in missing.err) == (2, True)
    assert "nothing to delete on this machine" in operator_command("bundles", "prune").out
    assert json.loads(operator_command("bundles", "prune", "--json").out) == {"deleted": []}
