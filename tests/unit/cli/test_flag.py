"""`wherefrom flag`: bad files are told line by line, nothing is half-taken, a second run is harmless."""

import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.services.scripted import Failure, ScriptedService
from tests.unit.cli.conftest import Run

RunCommand = Callable[..., Run]
GOOD = {"prompt": "p", "completion": "c", "model": "m"}


def line(**fields: object) -> bytes:
    """A good line, with these fields instead."""
    return json.dumps({**GOOD, **fields}, ensure_ascii=False).encode() + b"\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the test puts its JSONL."""
    return tmp_path / "flagged.jsonl"


def test_all_good(run: RunCommand, service: ScriptedService, file: Path) -> None:
    """Every record of a good file is stored, in batches, blank lines and a byte order mark included."""
    file.write_bytes(b"\xef\xbb\xbf" + b"".join(line(completion=f"c{one}") + b"\r\n" for one in range(450)))
    done = run("flag", str(file))
    assert (done.code, done.out) == (0, "450 accepted, 0 duplicate, 0 conflict, 0 invalid, 0 skipped\n")
    assert len(service.stored) == 450
    assert max(service.batches) == 200


def test_again_is_harmless(run: RunCommand, service: ScriptedService, file: Path) -> None:
    """The same file again stores nothing: keys come from the content, and a record's own key is kept."""
    file.write_bytes(line(idempotency_key="mine") + line(completion="other"))
    assert json.loads(run("flag", str(file), "--json").out)["accepted"] == 2
    again = run("flag", str(file), "--json")
    assert again.code == 0
    assert (json.loads(again.out)["accepted"], json.loads(again.out)["duplicate"]) == (0, 2)
    assert "mine" in service.stored
    assert sum(key.startswith("sha256:") for key in service.stored) == 1


def test_the_trace_around_it(
    run: RunCommand, service: ScriptedService, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What began the command may say in its environment which trace the outputs belong to; what is no trace goes no further."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    file.write_bytes(line())
    for given in (trace, "nonsense", None):
        monkeypatch.delenv("TRACEPARENT", raising=False)
        if given is not None:
            monkeypatch.setenv("TRACEPARENT", given)
        assert run("flag", str(file)).code == 0
    assert service.traces == [(trace, None), (None, None), (None, None)]


BAD_LINES = [
    (b'{"prompt": "p", "completion" "c"}\n', "line 2: not JSON: Expecting ':' delimiter at column 30"),
    (b'{"prompt": "p", "model": "m"}\n', "line 2: `completion`: is missing; add it"),
    (
        line(completion=""),
        "line 2: `completion`: string should have at least 1 character; it must not be empty",
    ),
    (line(completion=" "), "line 2: `completion` holds only white space"),
    (line(prompt=7), "line 2: `prompt`: input should be a valid string; send a JSON string"),
    (line(surprise=1), "line 2: `surprise`: is not a field of record v1"),
    (line(schema=2), "line 2: `schema`: input should be 1"),
    (
        line(messages=[{"role": "user", "content": "x"}]),
        "line 2: give exactly one of `prompt` and `messages`",
    ),
    (
        b'{"prompt": "caf\xe9"}\n',
        "line 2: not UTF-8: byte 0xe9 at offset {offset} of the file (byte 16 of the line)",
    ),
    (b'{"prompt": "\\ud800", "completion": "c", "model": "m"}\n', "line 2: `prompt`: "),
    (b'{"prompt": "\\u0000", "completion": "c", "model": "m"}\n', "line 2: `prompt`: contains U+0000 (NUL)"),
    (b"[1, 2]\n", "line 2: not a record: each line must be one JSON object"),
    (b"[" * 100_000 + b"\n", "line 2: nested too deeply"),
    (b'{"token_ids": [' + b"1" * 5000 + b"]}\n", "line 2: holds a number that is too long"),
    (b'{"token_ids": [NaN]}\n', "line 2: not JSON: NaN"),
]


@pytest.mark.parametrize("case", BAD_LINES, ids=[message[8:40] for _, message in BAD_LINES])
def test_bad_line_stops_the_file(
    run: RunCommand, service: ScriptedService, file: Path, case: tuple[bytes, str]
) -> None:
    """One bad line is told with its number and what is wrong, and nothing of the file is sent."""
    bad, message = case
    first = line()
    file.write_bytes(first + bad + line(completion="third"))
    done = run("flag", str(file))
    assert done.code == 2
    assert message.format(offset=len(first) + 15) in done.err
    assert "error[invalid_record]: 1 of 3 lines" in done.err
    assert "nothing was sent" in done.err
    assert "Traceback" not in done.err
    assert service.stored == {}


def test_skip_bad(run: RunCommand, service: ScriptedService, file: Path) -> None:
    """With --skip-bad the good lines are taken, the bad ones told and counted, and the exit code says so."""
    file.write_bytes(b"{\n" + line() + b"\xff\xfe\n")
    done = run("flag", str(file), "--skip-bad", "--json")
    assert done.code == 1
    answer = json.loads(done.out)
    assert (answer["accepted"], answer["skipped"]) == (1, 2)
    assert [one["line"] for one in answer["bad_lines"]] == [1, 3]
    assert len(service.stored) == 1


def test_bad_file_with_json(run: RunCommand, file: Path) -> None:
    """A program reads the bad lines from the JSON document, whatever their number."""
    file.write_bytes(b"x\n" * 5000)
    done = run("flag", str(file), "--json")
    assert done.code == 2
    assert len(json.loads(done.out)["bad_lines"]) == 1000
    assert "... and 4980 more lines" in done.err


def test_utf16(run: RunCommand, file: Path) -> None:
    """A file in UTF-16 is recognised."""
    file.write_text(json.dumps(GOOD), encoding="utf-16")
    assert "looks like UTF-16" in run("flag", str(file)).err


def test_line_over_the_limit(run: RunCommand, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless line is refused by its length, and the lines after it keep their numbers."""
    monkeypatch.setattr("wherefrom.cli.jsonl.MAX_LINE_BYTES", 1000)
    file.write_bytes(line(completion="x" * 5000) + line() + b"bad\n")
    message = run("flag", str(file)).err
    assert "line 1: longer than 1000 bytes" in message
    assert "line 3: not JSON" in message


def test_standard_input(run: RunCommand, service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads standard input, which is checked whole as well."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(line() + line(completion="d"))))
    assert run("flag", "-").code == 0
    assert len(service.stored) == 2


def test_refused_by_the_service(run: RunCommand, service: ScriptedService, file: Path) -> None:
    """What the service refuses is told by line; the others are stored; the exit code is 1."""
    service.stored["taken"] = {"other": "content"}
    service.judge = lambda record: (413, "body_too_large") if record["completion"] == "big" else None
    file.write_bytes(line() + line(completion="big") + line(idempotency_key="taken"))
    done = run("flag", str(file), "--json")
    assert done.code == 1
    answer = json.loads(done.out)
    assert (answer["accepted"], answer["invalid"], answer["conflict"]) == (1, 1, 1)
    assert [(one["line"], one["code"]) for one in answer["refused"]] == [
        (2, "body_too_large"),
        (3, "idempotency_conflict"),
    ]
    assert "line 2: invalid (body_too_large): refused" in run("flag", str(file)).err


def test_service_goes_away_half_way(run: RunCommand, service: ScriptedService, file: Path) -> None:
    """When the service dies between two batches, it is told how far it came; the same command again completes."""
    file.write_bytes(b"".join(line(completion=f"c{one}") for one in range(450)))
    service.failures.append(Failure(202, code=None))  # an answer that is none: the first batch is not stored
    assert run("flag", str(file)).code == 2
    original = service.take

    def dying(records: list[dict[str, object]]) -> tuple[int, dict[str, object]]:
        return (
            (503, {"error": {"code": "database_unavailable", "message": "away"}})
            if service.stored
            else original(records)
        )

    service.take = dying  # type: ignore[method-assign]  # replaced for the test
    done = run("flag", str(file))
    assert done.code == 3
    assert "away (database_unavailable); 200 of 450 records were answered before" in done.err
    service.take = original  # type: ignore[method-assign]  # replaced for the test
    assert run("flag", str(file)).out.startswith("250 accepted, 200 duplicate")


def test_waiting_for_the_service(run: RunCommand, service: ScriptedService, file: Path) -> None:
    """With --wait-s a service that is away for a moment is no error."""
    file.write_bytes(line())
    service.failures.extend([Failure(503, headers={"retry-after": "0"}), Failure(503)])
    assert run("flag", str(file), "--wait-s", "20").code == 0


def test_nothing_listens(run: RunCommand, file: Path) -> None:
    """A service that is not there is exit code 3 and one line."""
    file.write_bytes(line())
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        done = run("flag", str(file), "--url", f"http://127.0.0.1:{one.getsockname()[1]}")
    assert done.code == 3
    assert "error[service_unavailable]: no answer from" in done.err


def test_file_that_cannot_be_read(run: RunCommand, tmp_path: Path) -> None:
    """A missing file and a folder are the user's mistake."""
    assert "cannot be read: No such file" in run("flag", str(tmp_path / "none")).err
    assert run("flag", str(tmp_path)).code == 2


def test_empty_file(run: RunCommand, file: Path) -> None:
    """An empty file holds no record, and that is no error."""
    file.write_bytes(b"\n\n")
    assert run("flag", str(file)).out.startswith("0 accepted")


def test_escape_sequences_in_answers(run: RunCommand, service: ScriptedService, file: Path) -> None:
    """Control characters of the service's answer do not reach the terminal."""
    file.write_bytes(line())
    service.failures.append(Failure(422, message="\x1b]0;owned\x07"))
    done = run("flag", str(file))
    assert "\x1b" not in done.out + done.err
    assert "\\x1b]0;owned" in done.err
