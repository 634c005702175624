"""What stands in the database of `benchmarks/desk.py` beyond audits, reviews and queues: a second bundle, findings, a fix list.

A tenth of the outputs was audited under a third bundle too. Under the first bundle four fifths of the outputs stand in `FINDINGS` findings, however many
audits there are, so a finding of a larger database has more outputs; one more holds `SMALL_FINDING` outputs at any size. Vectors are stored where the sweeper reads
them: for what it compares with, for the newest outputs without a finding, and for what it has not looked at.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np

from benchmarks.desk_data import (
    CHUNK,
    OPEN,
    START,
    Drawn,
    TableRows,
    audit_row,
    chunks,
    citation_rows,
    num_examples,
    time_of,
)
from db.grouping.finding_work import BATCH, EXEMPLARS, LOOSE
from wherefrom.records.bounds import MAX_VECTOR_BYTES

#: Of so many outputs one was audited under a third bundle too.
ONE_IN = 10
THIRD_BUNDLE, THIRD_NAME = 3, "bundle-3"
FINDINGS, SMALL_FINDING = 40, 200
#: Training examples on the fix list.
ON_LIST = 2_000


def further(audits: int) -> Iterator[TableRows]:
    """Tables with their rows, for a database with so many audits."""
    yield from _second_audits(Drawn(), audits)
    yield from _findings(audits)
    yield from _fix_list(audits)


def num_both(audits: int) -> int:
    """Outputs that were audited under a second bundle."""
    return (audits - OPEN) // ONE_IN


def _second_audits(drawn: Drawn, audits: int) -> Iterator[TableRows]:
    made = {"created_at": START}
    revision = {"weights_sha256": "w" * 64, "tokenizer_sha256": "t" * 64, **made}
    yield "model_revision", [{"id": THIRD_BUNDLE, "name": "support-3", **revision}]
    bundle = {
        "model_revision_id": THIRD_BUNDLE,
        "corpus_id": 1,
        "form": "adapter",
        "active": True,
        "card": {},
    }
    yield "bundle", [{"id": THIRD_BUNDLE, "name": THIRD_NAME, **bundle, **made}]
    numbers = range(audits, audits + num_both(audits))
    uniform = drawn.random.random((len(numbers), 3)) * (1, 1, 0.5) + (0, 0, 0.5)  # none is dead
    rows = (
        _second_audit(number, (number - audits) * ONE_IN + 3, uniform[number - audits]) for number in numbers
    )
    yield from (("audit", some) for some in chunks(rows))
    for start in range(numbers.start, numbers.stop, CHUNK):
        some = range(start, min(start + CHUNK, numbers.stop))
        yield from citation_rows(drawn, some, audits=audits, examples=num_examples(audits))


def _second_audit(number: int, output: int, uniform: Any) -> dict[str, Any]:
    at = time_of(output) + timedelta(seconds=30)
    row = audit_row(number, at, output % 4, uniform, is_open=False)
    return row | {"flagged_output_id": output + 1, "bundle_id": THIRD_BUNDLE}


def _findings(audits: int) -> Iterator[TableRows]:
    """Findings of the first bundle, whose audits have odd ids; the newest outputs were not looked at yet."""
    random = np.random.default_rng(11)
    ids = np.arange(1, audits - OPEN + 1, 2)
    seen, new = ids[: -2 * BATCH], ids[-2 * BATCH :]
    placed = 1 + np.minimum((FINDINGS * random.power(0.5, len(seen))).astype(int), FINDINGS - 1)
    placed[random.random(len(seen)) < 0.2] = 0
    small = slice(len(seen) // 3, len(seen) // 3 + SMALL_FINDING)
    placed[small] = FINDINGS + 1
    yield "finding", [_finding(number, int((placed == number).sum())) for number in range(1, FINDINGS + 2)]
    exemplars = {int(one) for number in range(1, FINDINGS + 2) for one in seen[placed == number][:EXEMPLARS]}
    outputs = (
        {
            "audit_id": int(audit_id),
            "bundle_id": 1,
            "finding_id": int(finding) or None,
            "exemplar": int(audit_id) in exemplars,
            "placed_at": time_of(int(audit_id)),
        }
        for audit_id, finding in zip(seen, placed, strict=True)
    )
    yield from (("finding_output", some) for some in chunks(outputs))
    yield "finding_mark", [{"bundle_id": 1, "looked_to": time_of(int(new[0]) - 1), "version": 1}]
    compared = [*sorted(exemplars), *map(int, seen[placed == 0][-LOOSE:]), *map(int, new)]
    vectors = random.integers(-127, 128, (len(compared), MAX_VECTOR_BYTES), dtype=np.int8)
    yield (
        "output_vector",
        [
            {"flagged_output_id": audit_id, "bundle_id": 1, "vector": vector.tobytes()}
            for audit_id, vector in zip(compared, vectors, strict=True)
        ],
    )


def _finding(number: int, outputs: int) -> dict[str, Any]:
    return {
        "id": number,
        "bundle_id": 1,
        "title": f"Finding number {number}",
        "outputs": outputs,
        "newest_at": START,
        "sources": [{"source": "vendor_batch_00", "outputs": outputs}],
        "num_words": 0,
        "due": False,
        "created_at": START,
        "counted_at": START,
    }


def _fix_list(audits: int) -> Iterator[TableRows]:
    yield "fix_list", [{"id": 1, "name": "June", "note": "", "owner_id": 1, "created_at": START}]
    entry = {
        "list_id": 1,
        "event": "set",
        "action": "remove",
        "reason": "wrong",
        "person_id": 1,
        "via": "local",
    }
    rows = min(ON_LIST, num_examples(audits))
    yield "fix_list_entry", [{"id": 1, "num_rows": rows, "created_at": START, **entry}]
    on_list = {"list_id": 1, "action": "remove", "entry_id": 1}
    yield "fix_list_row", [{"training_example_id": number + 1, **on_list} for number in range(rows)]
