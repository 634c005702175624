"""The W3C header `traceparent`: which trace a flagged output belongs to, as text that is checked before anything keeps it.

It comes from strangers, in headers and stream entries, so what is kept is written anew: 55 characters of a fixed form, or nothing. `tracestate` is not kept.

References:
    https://www.w3.org/TR/trace-context/
"""

import re
from collections.abc import Sequence

#: Header of a request, and field of a stream entry.
TRACEPARENT = "traceparent"
#: Header of a request with several records: one traceparent for each, in their order, with commas between; `-` where a record has none.
TRACEPARENTS = "Wherefrom-Traceparents"
#: Characters of what is kept.
TRACEPARENT_CHARS = 55
#: Most records that one request tells the traces of: proxies refuse headers over 8 KB.
MOST_LISTED = 140
#: Longer headers are not looked at.
_MOST_CHARS = 512
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
#: Of the flags, those that have a meaning today: sampled, and random trace id.
_KNOWN_FLAGS = 0b11
_NONE = "-"


def read_traceparent(given: str | bytes | None) -> str | None:
    """The traceparent as version 00 writes it; None where there is none, or none that is valid."""
    if not given or len(given) > _MOST_CHARS:
        return None
    text = given.decode("latin-1") if isinstance(given, bytes) else given
    found = _FORM.fullmatch(text.strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not (trace_id.strip("0") and span_id.strip("0")):
        return None
    return traceparent_of(int(trace_id, 16), int(span_id, 16), int(flags, 16))


def traceparent_of(trace_id: int, span_id: int, flags: int) -> str:
    """The traceparent of a span."""
    return f"00-{trace_id:032x}-{span_id:016x}-{flags & _KNOWN_FLAGS:02x}"


def trace_id_of(traceparent: str) -> str:
    """Id of the trace, in hexadecimal digits, of a traceparent that was read."""
    return traceparent[3:35]


def list_traceparents(traceparents: Sequence[str | None]) -> str:
    """The header `TRACEPARENTS` of so many records, at most `MOST_LISTED`."""
    return ",".join(one or _NONE for one in traceparents)


def read_listed(given: str | None, count: int) -> tuple[str | None, ...]:
    """One traceparent for each of `count` records; none at all where the header is of another number of records."""
    nothing = (None,) * count
    if not given or len(given) > MOST_LISTED * (TRACEPARENT_CHARS + 1):
        return nothing
    listed = given.split(",")
    return tuple(map(read_traceparent, listed)) if len(listed) == count else nothing
