"""Reading entries of the stream."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.errors import BodyTooLarge, InvalidRecord, PermanentError, UnknownSchema
from worker.flagged_stream.entries import read_entry

GOOD = {"prompt": "p", "completion": "c", "model": "m"}


def read(value, limit_bytes=1000):
    """Read an entry with one field."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_entry({b"record": raw}, entry_id="7-0", limit_bytes=limit_bytes)


def test_the_key_is_the_record_s_own_or_the_entry_s_id():
    """A producer's key stands; without one the entry's id is unique and stays the same when it is read again."""
    assert read(GOOD).idempotency_key == "7-0"
    assert read(GOOD | {"idempotency_key": "mine"}).idempotency_key == "mine"


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (b"\xff", InvalidRecord, "not UTF-8"),
        (b"{", InvalidRecord, "not JSON"),
        ([], InvalidRecord, "not an object"),
        ({**GOOD, "schema": 2}, UnknownSchema, "schema 1"),
        ({**GOOD, "x": 1}, InvalidRecord, "`x`: is not a field of record v1"),
        ({**GOOD, "completion": " "}, InvalidRecord, "white space"),
        ({**GOOD, "prompt": "p" * 2000}, BodyTooLarge, "2"),
    ],
)
def test_what_is_wrong_is_said_without_quoting_the_text(value, error, said):
    """The reason names the field and the rule."""
    with pytest.raises(error, match=said):
        read(value)


def test_a_secret_is_not_in_the_reason():
    """Values never stand in reasons."""
    with pytest.raises(InvalidRecord) as caught:
        read({**GOOD, "severity": "SECRET", "prompt": ["SECRET"]})
    assert "SECRET" not in str(caught.value)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_do_more_than_be_refused(raw):
    """Whatever a producer adds, intake gets a record or a permanent error."""
    with pytest.raises(PermanentError):
        read(raw)
