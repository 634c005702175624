"""The spans of a claimed batch: its own, and one of each of its audits in the trace that the audit came with.

Audits of many traces are worked in one pass. So the batch has a trace of its own with links to theirs, and each audit has a span in its own trace with a link
back. A batch of one audit, or of one trace, simply goes on with it, where no audits of other traces can follow in it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import structlog

from wherefrom.records import Claim, ClaimedAudit
from wherefrom.spans import Kind, OpenSpan, current_traceparent, open_span, span
from wherefrom.traceparent import trace_id_of


@contextmanager
def batch_span(claim: Claim, *, started_ns: int, others_follow: bool) -> Iterator[None]:
    """The span of a batch, from the moment at which it was claimed.

    Args:
        claim: What was claimed.
        started_ns: When the claim began, nanoseconds since 1970.
        others_follow: Whether audits of other traces may be worked within it.
    """
    traces = traces_of(claim.audits)
    of_one_trace = len({trace_id_of(one) for one in traces}) == 1 and all(
        one.traceparent is not None for one in claim.audits
    )
    together = of_one_trace and not others_follow
    counts: dict[str, Any] = {"bundle_id": claim.bundle_id, "audits": len(claim.audits)}
    with span(
        "batch",
        parent=traces[0] if together else None,
        links=traces[1:] if together else traces,
        kind=Kind.CONSUMER,
        started_ns=started_ns,
        **counts,
    ):
        open_span("claim", started_ns=started_ns, **counts).end()
        yield


def traces_of(audits: Sequence[ClaimedAudit]) -> list[str]:
    """The traceparents of audits, each once."""
    return list(dict.fromkeys(one.traceparent for one in audits if one.traceparent is not None))


def audit_logs(audit: ClaimedAudit) -> AbstractContextManager[object]:
    """Binds an audit and its trace to the log lines of a block."""
    bound: dict[str, int | str] = {"audit_id": audit.audit_id}
    if audit.traceparent is not None:
        bound["trace_id"] = trace_id_of(audit.traceparent)
    return structlog.contextvars.bound_contextvars(**bound)


class AuditSpans:
    """A span of each audit of a batch and of those that follow it, in its own trace, until it is said what became of it."""

    def __init__(self, audits: Sequence[ClaimedAudit]) -> None:
        self._audits = audits
        #: By audit and attempt: a process may claim an audit anew whose lease has run out.
        self._open: dict[tuple[int, int], OpenSpan] = {}

    def __enter__(self) -> Self:
        """Begin them."""
        self.begin(self._audits)
        return self

    def begin(self, audits: Sequence[ClaimedAudit]) -> None:
        """Begin those of these audits."""
        started_ns, batch = time.time_ns(), current_traceparent()
        for one in audits:
            opened = open_span(
                "audit",
                parent=one.traceparent,
                links=() if batch is None or one.traceparent is None else (batch,),
                kind=Kind.CONSUMER,
                started_ns=started_ns,
                audit_id=one.audit_id,
                output_id=one.output_id,
                bundle_id=one.bundle_id,
                attempt=one.attempt,
            )
            self._open[one.audit_id, one.attempt] = opened

    def __exit__(self, *_: object) -> None:
        """End those whose outcome nobody could record."""
        for opened in self._open.values():
            _end(opened, "unknown", failed=True)
        self._open.clear()

    def end(self, audit: ClaimedAudit, outcome: str, *, failed: bool = False) -> None:
        """End the span of an audit."""
        if (opened := self._open.pop((audit.audit_id, audit.attempt), None)) is not None:
            _end(opened, outcome, failed=failed)


def _end(opened: OpenSpan, outcome: str, *, failed: bool) -> None:
    opened.set(outcome=outcome)
    if failed:
        opened.fail(outcome)
    opened.end()
