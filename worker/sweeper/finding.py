"""Groups new outputs into findings and names them: what the sweeper does every few rounds, in steps that end soon."""

import time

from db.grouping import finding_names, finding_work
from db.session import Database
from wherefrom.logs import get_logger

log = get_logger(__name__)

#: Longest time of one call, seconds; one step is always done.
CALL_S = 3.0
#: Findings whose words are worked out in one call.
NAMED = 20


def group_outputs(db: Database, *, call_s: float = CALL_S) -> int:
    """Place outputs that nobody has looked at, bundle by bundle, then name what grew; how many outputs were placed.

    Args:
        db: The database.
        call_s: After so long no further outputs are placed, and after as long again nothing further is named, seconds.
    """
    until = time.monotonic() + call_s
    placed = sum(
        _group_bundle(db, bundle_id, until=until) for bundle_id in finding_work.bundles_with_vectors(db)
    )
    until = time.monotonic() + call_s
    for finding_id in finding_work.due_findings(db, most=NAMED):
        finding_names.name_finding(db, finding_id)
        if time.monotonic() > until:
            break
    return placed


def _group_bundle(db: Database, bundle_id: int, *, until: float) -> int:
    placed = 0
    while (done := finding_work.read_round(db, bundle_id)) is not None:
        from worker.sweeper import alike  # noqa: PLC0415 - numpy and scipy; most rounds find nothing new

        grouped = alike.group(done)
        if not finding_work.store_round(db, done, grouped):
            break
        placed += len(done.new)
        log.info(
            "outputs_grouped",
            bundle_id=bundle_id,
            outputs=len(done.new),
            findings_founded=len(grouped.founded),
        )
        if time.monotonic() > until or len(done.new) < finding_work.BATCH:
            break
    return placed
