"""From bytes to records: every wrong body is told apart and told clearly."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from web import body
from web.errors import InvalidRecords
from wherefrom.errors import (
    InvalidRequest,
    MalformedBody,
    UnknownSchema,
    UnsupportedMediaType,
    WherefromError,
)

GOOD = {"model": "m", "prompt": "p", "completion": "c"}


def parse(value, *, header_key=None, max_records=10):
    """Records of a parsed body."""
    return body.parse_records(value, max_records=max_records, header_key=header_key)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_is_taken(kind):
    """With or without the charset."""
    body.check_content_type(kind)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "nonsense",
    ],
)
def test_other_content_types_are_refused(kind):
    """A browser's form cannot write, and no other encoding is guessed."""
    with pytest.raises(UnsupportedMediaType, match="application/json"):
        body.check_content_type(kind)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b"", "empty"),
        (b"  \n", "empty"),
        (b'{"completion": "caf\xe9"}', "byte 0xe9 at position 19"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1e999}', "too large"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too long"),
    ],
)
def test_malformed_bodies_say_where(raw, words):
    """Line and column, the byte, or what cannot be JSON."""
    with pytest.raises(MalformedBody, match=words):
        body.parse_json(raw)


def test_three_shapes_mean_the_same():
    """One record, a list, an object with `records`."""
    assert parse(GOOD)[0] == parse([GOOD])[0] == parse({"records": [GOOD]})[0]
    assert parse(GOOD)[1] is True
    assert parse([GOOD])[1] is False


@pytest.mark.parametrize(
    "value",
    [[], {"records": []}, {"records": GOOD}, {"records": [GOOD], "more": 1}, 5, "text", None, [GOOD] * 11],
)
def test_other_shapes_are_refused(value):
    """No shape is guessed; too many records are refused before they are read."""
    with pytest.raises(InvalidRequest):
        parse(value)


def problems_of(value):
    """All problems of a body that is refused."""
    with pytest.raises(InvalidRecords) as caught:
        parse(value)
    return caught.value


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"completion": None}, "completion", "JSON string"),
        ({"completion": ""}, "completion", "must not be empty"),
        ({"completion": "  "}, None, "white space"),
        ({"prompt": None}, None, "exactly one of"),
        ({"promt": "x"}, "promt", "`labels`"),
        ({"x\ud800": 1}, None, "surrogate"),
        ({"severity": "huge"}, "severity", "'critical'"),
        ({"occurred_at": "yesterday"}, "occurred_at", "ISO 8601"),
        ({"occurred_at": "2026-01-31T12:00:00"}, "occurred_at", "time zone"),
        ({"labels": {"a": 1}}, "labels.a", "JSON string"),
        ({"spans": [{"start": 0, "end": 9}]}, None, "after the completion"),
        ({"spans": [{"start": 3, "end": 1}]}, "spans[0]", "greater than"),
        ({"completion": "a\x00b"}, "completion", "NUL"),
        ({"completion": "a\ud800b"}, "completion", "surrogate"),
        ({"prompt": None, "messages": [{"role": "bot", "content": "x"}]}, "messages[0].role", "'assistant'"),
        ({"prompt": None, "messages": []}, None, "empty"),
    ],
)
def test_problems_name_field_and_remedy(change, field, words):
    """Each problem says which field and what to do."""
    problem = problems_of(GOOD | change).problems[0]
    assert problem.field == field
    assert words in problem.message


def test_missing_field_is_named():
    """A record without a model says so."""
    error = problems_of({"prompt": "p", "completion": "c"})
    assert str(error) == "`model`: is missing; add it"


def test_a_bad_record_refuses_the_list_and_names_its_position():
    """Nothing is half taken; the position is from 0."""
    error = problems_of([GOOD, GOOD | {"completion": 5}, GOOD | {"model": ""}])
    assert [problem.record for problem in error.problems] == [1, 2]
    assert "2 of 3 records" in str(error)
    assert "record 1, `completion`" in str(error)


def test_many_problems_are_cut():
    """A thousand bad records do not make a thousand lines."""
    with pytest.raises(InvalidRecords) as caught:
        parse([{}] * 500, max_records=1000)
    assert len(caught.value.problems) == 20
    assert "and 997 more" in str(caught.value)


def test_unknown_schema_has_its_own_code():
    """Another version of the record is no misspelt field."""
    with pytest.raises(UnknownSchema, match="record 1: `schema` must be 1"):
        parse([GOOD, GOOD | {"schema": 2}])


def test_header_carries_the_key_of_one_record():
    """Only for one record, and never against the body."""
    assert parse(GOOD, header_key="k")[0][0].idempotency_key == "k"
    assert parse(GOOD | {"idempotency_key": "k"}, header_key="k")[0][0].idempotency_key == "k"
    for value, key in ((GOOD | {"idempotency_key": "other"}, "k"), ([GOOD], "k"), (GOOD, "ä")):
        with pytest.raises(InvalidRequest, match="Idempotency-Key"):
            parse(value, header_key=key)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["records", "model", "prompt", "completion", "messages", "spans", "labels", "x"]
                ),
                inner,
                max_size=5,
            )
        ),
    )
)
def test_any_json_is_taken_or_refused_in_our_words(value):
    """No JSON value makes the parser raise anything but one of our errors."""
    try:
        parse(body.parse_json(json.dumps(value).encode()))
    except WherefromError as error:
        str(error).encode("utf-8")
