"""JSON nested however deep is refused with a code, at once, at every way in: never a RecursionError."""

import json
import time

import httpx
import pytest

from web.body import parse_json, parse_records
from wherefrom.cli.jsonl import parse_line
from wherefrom.client.connection import _error_body
from wherefrom.client.records_in import read_record
from wherefrom.errors import PermanentError
from wherefrom.json_text import read_json
from worker.flagged_stream.entries import read_entry

#: Just below the deepest that Python's own reader takes, where what comes after it fails first, and far beyond.
DEPTHS = (*range(900, 1000), 100_000)
SHAPES = {"lists": ("[", "]"), "objects": ('{"a":', "}")}
FIELDS = ("severity", "labels", "schema", "prompt", "messages", "token_ids", "spans", "occurred_at", "x")


def over_http(raw: bytes) -> None:
    """As the body of a request."""
    parse_records(parse_json(raw), max_records=5, header_key=None)


def on_the_stream(raw: bytes) -> None:
    """As an entry of the stream."""
    read_entry({b"record": raw}, entry_id="1-1", limit_bytes=10_000_000)


def in_a_file(raw: bytes) -> None:
    """As a line of the command line's file."""
    parse_line(raw, offset=0)


def _nested(depth: int, shape: str) -> str:
    begin, end = SHAPES[shape]
    return begin * depth + "1" + end * depth


def _texts(depth: int, shape: str):
    yield _nested(depth, shape)
    for field in FIELDS:
        yield f'{{"prompt":"p","completion":"c","model":"m","{field}":{_nested(depth, shape)}}}'
    yield f'{{"completion":"c","model":"m","messages":[{{"content":"c","role":{_nested(depth, shape)}}}]}}'
    yield f'[{{"prompt":"p","completion":{_nested(depth, shape)}}}]'


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way_in", [over_http, on_the_stream, in_a_file])
def test_a_deep_record_is_refused_at_once(way_in, shape):
    """At any depth, in any field."""
    for depth in DEPTHS:
        for text in _texts(depth, shape):
            started = time.process_time()
            with pytest.raises(PermanentError) as refused:
                way_in(text.encode())
            assert time.process_time() - started < 3.0
            assert refused.value.code in {
                "malformed_body",
                "invalid_record",
                "unknown_schema",
                "invalid_request",
            }
            assert len(str(refused.value)) < 500


@pytest.mark.parametrize("field", [*FIELDS, "completion", "reason"])
def test_a_deep_value_is_refused_by_the_client(field):
    """A producer's own objects, which nobody has read from JSON."""
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    started = time.process_time()
    for value in (deep, {"a": deep}):
        given = {"prompt": "p", "completion": "c", "model": "m", field: value}
        with pytest.raises(PermanentError, match="`") as refused:
            read_record(given)
        assert refused.value.code == "invalid_record"
    assert time.process_time() - started < 1


def test_a_deep_answer_is_no_answer_of_the_service():
    """A proxy may answer with anything."""
    assert _error_body(httpx.Response(500, content=_nested(100_000, "lists"))) is None
    with pytest.raises(json.JSONDecodeError, match="Nested too deeply"):
        read_json(_nested(100_000, "objects"))
