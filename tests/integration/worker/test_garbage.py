"""Whatever somebody adds to the stream ends in SQL or in the rejected stream with a code: never in a loop, never taking others along."""

import json
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from db.reading import reader

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

STREAM, REJECTED, QUARANTINE = "t:wherefrom:flagged", "t:wherefrom:rejected", "t:wherefrom:quarantine"
#: Steps in which a few entries must have left, whatever they are.
STEPS = 4

_numbers = count()


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch):
    """A read of an empty stream does not keep the test waiting."""
    monkeypatch.setattr("worker.flagged_stream.intake.BLOCK_MS", 1)


def as_json(**fields):
    """A record as JSON, good unless the fields make it bad."""
    return json.dumps(
        {"prompt": "p", "completion": f"c {next(_numbers)}", "model": "tiny@1", **fields}
    ).encode()


#: Texts that SQL, JSON or UTF-8 choke on.
ODD_TEXTS = strategies.one_of(
    strategies.text(),
    strategies.sampled_from(
        [
            "",
            " ",
            "\x00",
            "a\x00b",
            "\ud800",
            "\udfff\ud800",
            "\u202e",
            "\ufeff",
            "x" * 3000,
            "\\u0000",
            "%s",
            "{}",
        ]
    ),
)
ODD_NUMBERS = strategies.one_of(
    strategies.integers(),
    strategies.floats(),
    strategies.sampled_from(
        [2**31, 2**63, 2**64, -(2**63) - 1, 10**400, True, float("nan"), float("inf"), 1e308]
    ),
)
ODD_VALUES = strategies.recursive(
    strategies.one_of(strategies.none(), strategies.booleans(), ODD_NUMBERS, ODD_TEXTS),
    lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(ODD_TEXTS, inner, max_size=4),
    max_leaves=8,
)
NAMES = [
    "schema", "idempotency_key", "prompt", "messages", "completion", "token_ids", "model", "reason", "severity", "occurred_at", "labels",
    "spans", "preferred", "unknown",
]  # fmt: skip
ALMOST_RECORDS = strategies.dictionaries(strategies.sampled_from(NAMES), ODD_VALUES, max_size=4).map(
    lambda fields: as_json(**fields)
)
PLAUSIBLE = strategies.fixed_dictionaries(
    {},
    optional={
        "labels": strategies.dictionaries(ODD_TEXTS, ODD_TEXTS, max_size=3),
        "token_ids": strategies.lists(ODD_NUMBERS, max_size=3),
        "occurred_at": strategies.sampled_from(
            ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "now", 1e300, "2026-01-01"]
        ),
        "spans": strategies.lists(
            strategies.fixed_dictionaries({"start": ODD_NUMBERS, "end": ODD_NUMBERS}), max_size=2
        ),
        "completion": ODD_TEXTS,
        "idempotency_key": ODD_TEXTS,
        "reason": ODD_TEXTS,
        "model": ODD_TEXTS,
    },
).map(lambda fields: as_json(**fields))
RECORDS = strategies.one_of(
    strategies.binary(max_size=200),
    ALMOST_RECORDS,
    PLAUSIBLE,
    ODD_VALUES.map(lambda value: json.dumps(value).encode()),
    strategies.sampled_from(
        [
            b"[" * 50_000,
            b'{"a":' * 50_000,
            b"1" * 5000,
            b"NaN",
            b"",
            b"\xff\xfe{",
            b'{"schema": 1e999}',
            b'{"schema": "\xc3"}',
        ]
    ),
)
ENTRIES = strategies.one_of(
    RECORDS.map(lambda record: [(b"record", record)]),
    strategies.lists(
        strategies.tuples(strategies.binary(max_size=30), strategies.binary(max_size=30)),
        min_size=1,
        max_size=40,
    ),
    strategies.tuples(RECORDS, RECORDS).map(lambda both: [(b"record", both[0]), (b"record", both[1])]),
    strategies.tuples(RECORDS, strategies.binary(max_size=20)).map(
        lambda both: [(b"record", both[0]), (b"replayed_entry", both[1]), (b"rejected_code", b"\xff")]
    ),
)


def add(client, pairs):
    """XADD with these pairs, in their order, also where names repeat."""
    return client.execute_command("XADD", STREAM, "*", *(part for pair in pairs for part in pair))


def audits(database):
    """How many there are."""
    return sum(reader.queue_health(database).states.values())


@given(garbage=strategies.lists(ENTRIES, min_size=1, max_size=6))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_entry_ends_somewhere(parts, client, database, garbage):
    """In a few steps the stream is empty; the good entry among them is stored; the rest is stored, known, or rejected with a code."""
    client.delete(REJECTED)
    intake = parts.intake()
    stored = audits(database)
    added = [add(client, pairs) for pairs in garbage]
    added.insert(0, add(client, [(b"record", as_json())]))
    for _ in range(STEPS):
        intake.step()
    assert (client.xlen(STREAM), client.xlen(QUARANTINE)) == (0, 0)
    rejected = {fields[b"rejected_entry"]: fields for _, fields in client.xrange(REJECTED)}
    assert added[0] not in rejected
    assert audits(database) >= stored + 1
    assert len(rejected) <= len(garbage)
    for fields in rejected.values():
        assert fields[b"rejected_code"].decode().isidentifier()
        assert fields[b"rejected_reason"].decode()


FIXED = {
    "binary names": [(b"\xff\x00", b"\x00"), (b"", b"")],
    "no record": [(b"recor", b"{}")],
    "two records": [(b"record", b"{}"), (b"record", b"[]")],
    "ten thousand fields": [(b"f%d" % number, b"x") for number in range(10_000)],
    "a huge name": [(b"n" * 1_000_000, b"x")],
    "not a number": [(b"record", b'{"prompt":"p","completion":"c","model":"m","token_ids":[NaN]}')],
    "a huge token id": [(b"record", b'{"prompt":"p","completion":"c","model":"m","token_ids":[' + b"9" * 4000 + b"]}")],
    "a lone surrogate": [(b"record", b'{"prompt":"p","completion":"\\ud800","model":"m"}')],
    "a NUL": [(b"record", b'{"prompt":"p","completion":"a\\u0000b","model":"m"}')],
    "a NUL in a key": [(b"record", b'{"prompt":"p","completion":"c","model":"m","idempotency_key":"\\u0000"}')],
    "a NUL in a label": [(b"record", b'{"prompt":"p","completion":"c","model":"m","labels":{"a":"\\u0000"}}')],
    "a NUL in a label's name": [(b"record", b'{"prompt":"p","completion":"c","model":"m","labels":{"\\u0000":"a"}}')],
    "nested": [(b"record", b"[" * 900 + b"]" * 900)],
    "nested in a label": [(b"record", b'{"labels":' + b'{"a":' * 900 + b"1" + b"}" * 901)],
    "nested without end": [(b"record", b"[" * 100_000 + b"]" * 100_000)],
    "nested in the severity": [(b"record", b'{"prompt":"p","completion":"c","model":"m","severity":' + b"[" * 985 + b"]" * 985 + b"}")],
    "a list as schema": [(b"record", b'{"schema":' + b"[" * 900 + b"]" * 900 + b"}")],
    "a huge schema": [(b"record", b'{"schema":' + b"9" * 4000 + b"}")],
    "zeros": [(b"record", b'{"messages":[' + b"0," * 1_000_000 + b"0]}")],
    "many unknown fields": [(b"record", json.dumps({f"x{number}": 0 for number in range(100_000)}).encode())],
}  # fmt: skip


def test_garbage_of_every_kind_is_rejected_with_a_code(parts, client, database):
    """Each alone, beside one good entry on either side; what is kept of it is short."""
    intake = parts.intake()
    for kind, pairs in FIXED.items():
        client.delete(REJECTED)
        stored = audits(database)
        add(client, [(b"record", as_json())])
        bad = add(client, pairs)
        add(client, [(b"record", as_json())])
        for _ in range(STEPS):
            intake.step()
        assert (client.xlen(STREAM), audits(database) - stored) == (0, 2), kind
        [(_, kept)] = client.xrange(REJECTED)
        assert kept[b"rejected_entry"] == bad, kind
        assert kept[b"rejected_code"] in {b"invalid_record", b"unknown_schema"}, kind
        assert 0 < len(kept[b"rejected_reason"]) < 2000, kind
        assert sum(len(name) + len(value) for name, value in kept.items()) < 150_000, kind
