"""What is taken for a traceparent comes from strangers, and what is kept of it has one form."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.traceparent import (
    MOST_LISTED,
    TRACEPARENT_CHARS,
    list_traceparents,
    read_listed,
    read_traceparent,
    trace_id_of,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (VALID, VALID),
        (VALID.encode(), VALID),
        (f" {VALID}\t", VALID),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-ff", f"00-{TRACE}-{SPAN}-03"),  # flags without a meaning are not passed on
        (f"cc-{TRACE}-{SPAN}-01", VALID),  # a later version is read as far as it is known
        (f"cc-{TRACE}-{SPAN}-01-what-comes", VALID),
    ],
)
def test_a_valid_one_is_written_anew(given: str | bytes, kept: str) -> None:
    """Version 00, known flags, 55 characters, however it was written."""
    assert read_traceparent(given) == kept
    assert len(kept) == TRACEPARENT_CHARS
    assert trace_id_of(kept) == TRACE


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "00",
        VALID.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{VALID}-more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}g-{SPAN}-01",
        f"{VALID}\n{VALID}",
        f"{VALID}, {VALID}",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 500,
        "\x1b[31m" + VALID,
        b"\xff" * 55,
        "\u0660\u0660-" + VALID[3:],
    ],
)
def test_what_is_none_is_dropped(given: str | bytes | None) -> None:
    """Nothing of it is kept."""
    assert read_traceparent(given) is None


@given(st.text(max_size=80) | st.binary(max_size=80))
def test_what_is_kept_has_one_form(given: str | bytes) -> None:
    """Whatever comes, 55 characters of hexadecimal digits are kept, or nothing."""
    kept = read_traceparent(given)
    assert kept is None or re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", kept)


def test_traces_of_many_records() -> None:
    """Each record gets its own; a record without one, and one that is not valid, gets none."""
    listed = list_traceparents([VALID, None, VALID])
    assert read_listed(listed, 3) == (VALID, None, VALID)
    assert read_listed(f"{VALID},junk", 2) == (VALID, None)


@pytest.mark.parametrize(
    "header", [None, "", VALID, ",".join([VALID] * 3), ",".join([VALID] * (MOST_LISTED + 1))]
)
def test_a_list_of_another_length_says_nothing(header: str | None) -> None:
    """Traces are never given to the wrong records, and a long header is not looked at."""
    assert read_listed(header, 2) == (None, None)
    assert read_listed(",".join([VALID] * (MOST_LISTED + 1)), MOST_LISTED + 1) == (None,) * (MOST_LISTED + 1)
