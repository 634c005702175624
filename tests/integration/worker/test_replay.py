"""`python -m worker replay`: what intake put away is listed, taken back once, or dropped."""

import json

import pytest

from db.reading import reader
from tests.integration.db.sabotage import allow_rows, refuse_rows
from tests.waiting import wait_until
from wherefrom.records import AuditFilter, AuditState
from worker.__main__ import make_app
from worker.commands.command_line import run_command_line
from worker.flagged_stream.stream import REJECTED_RECORD_BYTES

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

STREAM, REJECTED, QUARANTINE = "t:wherefrom:flagged", "t:wherefrom:rejected", "t:wherefrom:quarantine"


@pytest.fixture
def database_url(sqlite_url):
    """What is kept in Redis does not depend on the database."""
    return sqlite_url


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Short reads and short waits."""
    monkeypatch.setattr("worker.flagged_stream.intake.BLOCK_MS", 5)
    monkeypatch.setattr("worker.flagged_stream.poison_suspects.RETRY_BASE_S", 0.001)
    monkeypatch.setattr("worker.flagged_stream.poison_suspects.RETRY_CAP_S", 0.002)


@pytest.fixture
def operator_command(settings, monkeypatch, capsys):
    """Calls the command; its exit code, and what it printed."""
    for name in ("database_url", "redis_url"):
        monkeypatch.setenv(f"WHEREFROM_{name.upper()}", getattr(settings, name).get_secret_value())
    for name in ("key_prefix", "state_dir"):
        monkeypatch.setenv(f"WHEREFROM_{name.upper()}", str(getattr(settings, name)))

    def call(*words):
        monkeypatch.setattr("sys.argv", ["worker", "replay", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command_line(make_app())
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call


def add(client, key, **fields):
    """XADD one record."""
    record = {"prompt": "p", "completion": f"answer {key}", "model": "tiny@1", **fields}
    return client.xadd(STREAM, {"record": json.dumps(record)}).decode()


def drain(parts):
    """Let intake take everything."""
    intake = parts.intake()
    wait_until(lambda: intake.step() or parts.client.xlen(STREAM) == 0)


def test_a_quarantined_entry_is_stored_once_under_its_first_id(parts, client, database, operator_command):
    """However often it is taken back; its idempotency key is the id that the producer was given."""
    refuse_rows(database, like="%-%", sqlstate="P0001")
    key = add(client, "poison")
    intake = parts.intake()
    for number in range(200):
        add(client, str(number), idempotency_key=f"good{number}")
        intake.step()
        if client.xlen(QUARANTINE):
            break
    assert client.xlen(QUARANTINE) == 1
    code, out, _ = operator_command("--list", "--json")
    [listed] = json.loads(out)
    assert (code, listed["kept"], listed["first_id"], listed["whole"]) == (0, "quarantine", key, True)
    allow_rows(database)
    kept = client.xrange(QUARANTINE)[0][1]
    assert operator_command()[:2] == (0, "1 entry is back in the stream\n")
    client.xadd(QUARANTINE, kept)
    assert json.loads(operator_command("--from", "quarantine", "--json")[1])["replayed"] == 1
    drain(parts)
    assert client.xlen(QUARANTINE) == 0
    page = reader.list_audits(database, AuditFilter(), cursor=None, limit=500)
    keys = [reader.get_audit(database, one.audit_id).idempotency_key for one in page.items]
    assert keys.count(key) == 1


def test_rejected_entries_go_back_or_come_back(parts, client, database, operator_command):
    """One whose cause was mended is stored; one that is still wrong is rejected again, and the command ends."""
    add(client, "bad", severity="none of ours")
    good = json.dumps({"prompt": "p", "completion": "c", "model": "tiny@1"})
    client.xadd(REJECTED, {"record": good, "rejected_code": "internal_error", "rejected_entry": "7-1"})
    drain(parts)
    assert client.xlen(REJECTED) == 2
    assert operator_command()[1] == "2 entries are back in the stream\n"
    assert client.xlen(REJECTED) == 0
    drain(parts)
    assert reader.queue_health(database).states[AuditState.PENDING] == 1
    [(entry_id, again)] = client.xrange(REJECTED)
    assert again[b"rejected_code"] == b"invalid_record"
    assert operator_command("--drop", entry_id.decode())[1] == "1 entry dropped\n"
    assert client.xlen(REJECTED) == 0


def test_a_cut_record_stays_and_is_told(parts, client, operator_command):
    """There is no whole one to take back."""
    add(client, "x" * (REJECTED_RECORD_BYTES + 1), severity="none of ours")
    drain(parts)
    code, out, err = operator_command()
    assert (code, out) == (0, "0 entries are back in the stream\n")
    assert "1 entry was cut when rejected and cannot go back" in err
    assert client.xlen(REJECTED) == 1
    [listed] = json.loads(operator_command("--list", "--json")[1])
    assert not listed["whole"]
    assert listed["record_bytes"] > REJECTED_RECORD_BYTES
    assert operator_command(listed["id"])[0] == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--list",), 0, "0 quarantine, 0 rejected"),
        ((), 0, "0 entries are back in the stream"),
        (("--from", "nowhere"), 2, "quarantine, rejected"),
        (("--drop",), 2, "give ids, or --all"),
        (("--drop", "--all"), 0, "0 entries dropped"),
        (("1-1",), 2, "--list"),
        (("nonsense",), 2, "is not the id"),
        (("1-1", "--all"), 2, "either"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(operator_command, words, code, said):
    """Nothing is dropped by leaving something out."""
    ended, out, err = operator_command(*words)
    assert ended == code
    assert said in out + err


def test_a_page_is_no_limit(client, operator_command):
    """More entries than are read at once, and hostile contents of all fields."""
    for number in range(20):
        client.xadd(
            REJECTED, {b"rejected_code": b"\xff", b"rejected_entry": b"\x00\x1b[31m", b"n": b"%d" % number}
        )
    assert len(json.loads(operator_command("--list", "--json", "--limit", "15")[1])) == 15
    assert operator_command("--list")[0] == 0
    assert operator_command()[1] == "20 entries are back in the stream\n"
    assert client.xlen(STREAM) == 20
