"""The service's pages as methods that return records; synchronous, without a spool.

Sends and reads over `wherefrom.client.connection`. The command line stands on this class; producers use `Client`,
which adds the spool.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from pydantic import ValidationError

from wherefrom.client.answers import read_answer
from wherefrom.client.connection import Connection, Problem
from wherefrom.client.exporting import ExportService
from wherefrom.client.filters import AuditFilters
from wherefrom.client.findings import FindingService
from wherefrom.client.fixing import FixService
from wherefrom.client.lists import ListService
from wherefrom.client.queues import QueueService
from wherefrom.client.records_in import read_record, record_json
from wherefrom.client.supposing import SupposingService
from wherefrom.client.trail import TrailService
from wherefrom.errors import (
    IdempotencyConflict,
    InvalidRecord,
    InvalidRequest,
    ServiceUnavailable,
    UnknownSchema,
)
from wherefrom.frames import Records, Stream
from wherefrom.records import (
    AuditDetail,
    AuditListing,
    AuditOrder,
    AuditSummary,
    BundleInfo,
    CitedBy,
    ExampleDetail,
    FlaggedRecord,
    Frozen,
    GroupMeasurementRecord,
    GroupRequest,
    IntakeResult,
    MeasurementRecord,
    Method,
    OutputGroupRequest,
    Page,
    QueueHealth,
    SourceSummary,
    Support,
    Today,
)
from wherefrom.records.explain import describe_problems, first_problem
from wherefrom.settings import load_settings
from wherefrom.spans import current_traceparent
from wherefrom.statistics import DEFAULT_FDR
from wherefrom.traceparent import MOST_LISTED, TRACEPARENT, TRACEPARENTS, list_traceparents

FLAGGED_PATH = "/v1/flagged"
GROUPS_PATH = "/v1/groups"
DEFAULT_TIMEOUT_S = 10.0
DEFAULT_PAGE_SIZE = 100
#: Statuses that blame the records; any other 4xx blames the address or the release of the service.
REFUSALS = frozenset({400, 409, 413, 422})


class _Results(Frozen):
    """The answer to `POST /v1/flagged`."""

    results: tuple[IntakeResult, ...]


class Service(
    SupposingService, FixService, ListService, QueueService, ExportService, FindingService, TrailService
):
    """A wherefrom service over HTTP. Safe to share between threads; make a new one after a fork.

    Args:
        url: Address of the service; the setting `service_url` where it is None.
        api_key: Key with the scopes `ingest` and `read`; the setting `api_key` where it is None.
        timeout_s: Longest wait for a connection, and for each part of an answer, seconds.

    Raises:
        ConfigurationError: the URL or the API key cannot be used.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        settings = load_settings()
        set_key = settings.api_key.get_secret_value() if settings.api_key else None
        self._url = url or settings.service_url
        self._api_key = api_key or set_key
        self._timeout_s = timeout_s
        self._connection = self._connect()

    def _connect(self) -> Connection:
        return Connection(self._url, self._api_key, timeout_s=self._timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def submit(self, records: Sequence[FlaggedRecord]) -> list[IntakeResult]:
        """Send records and wait for the commit: each `accepted` one is in SQL when this returns.

        A record that the service refuses does not stop the others; its result says `conflict` or `invalid`. A record
        without an idempotency key gets one from its content, so that sending it again stores nothing twice.

        Returns:
            One result per record, in the order given.

        Raises:
            ServiceUnavailable: no usable answer; some of the records may be stored, so send all of them again.
            Unauthorized, Forbidden: the API key is not taken, or lacks the scope `ingest`.
        """
        return self.submit_json([keyed_json(one) for one in records])

    def submit_json(self, records: Sequence[str]) -> list[IntakeResult]:
        """The same as `submit` for records that are JSON already, keys included, as `keyed_json` makes them."""
        return post_records(self._connection, records, [current_traceparent()] * len(records))

    def flag_now(self, record: FlaggedRecord | Mapping[str, Any]) -> IntakeResult:
        """Send one record and wait for the commit.

        Raises:
            InvalidRecord: the record does not have the documented shape.
            IdempotencyConflict: its key was used before with other content.
            ServiceUnavailable: no usable answer; sending it again is harmless.
            Unauthorized, Forbidden: the API key is not taken, or lacks the scope `ingest`.
        """
        result = self.submit([read_record(record)])[0]
        if result.status == "conflict":
            raise IdempotencyConflict(
                result.reason or "the idempotency key was used before with other content"
            )
        if result.status == "invalid":
            raise Problem(
                422, result.code or "invalid_record", result.reason or "the record was refused"
            ).as_error()
        return result

    def group(self, group: OutputGroupRequest | Mapping[str, Any]) -> IntakeResult:
        """Ask one question about several flagged outputs; answers after the commit with the id of the group's own audit.

        Args:
            group: `audits` or `records`, `against`, `name`; see `OutputGroupRequest`.

        Raises:
            InvalidRecord: the question does not have the documented shape.
            NotFound: there is no audit with one of the ids.
            InvalidRequest: the outputs cannot be one question.
            IdempotencyConflict: a key was used before with other content.
        """
        try:
            asked = OutputGroupRequest.model_validate(group)
        except ValidationError as error:
            raise InvalidRecord(describe_problems(error)) from error
        body = asked.model_dump_json(by_alias=True, exclude_none=True)
        answer = self._connection.post(GROUPS_PATH, body.encode())
        if answer.problem is not None:
            raise answer.problem.as_error()
        return read_answer(answer.body, IntakeResult)

    def audits(
        self,
        *,
        page_size: int = DEFAULT_PAGE_SIZE,
        fdr: float | None = None,
        sort: AuditOrder | str | None = None,
        unseen: bool | None = None,
        **filters: Unpack[AuditFilters],
    ) -> Stream[AuditSummary]:
        """Audits that match every filter given, newest first; pages are fetched while the caller reads.

        Args:
            page_size: Audits per request; the service has a limit (setting `max_page_size`).
            fdr: Judge the whole listing at this false discovery rate and set `supported` of each audit; see `support`.
            sort: Another order; those by a number list only audits that have it.
            unseen: Only audits received since the last visit to the page of the person behind the key.
            **filters: See `AuditFilters`.
        """
        return self._pages(
            "/v1/audits",
            Page[AuditSummary],
            {**filters, "fdr": fdr, "sort": sort, "unseen": unseen},
            page_size,
        )

    def support(self, *, fdr: float = DEFAULT_FDR, **filters: Unpack[AuditFilters]) -> Support:
        """How many audits of a listing are supported at a false discovery rate, by their conformal p.

        Args:
            fdr: The rate, in (0, 1).
            **filters: The listing; see `AuditFilters`.

        Raises:
            UnknownSchema: the service is older than this question.
        """
        body = self._connection.get("/v1/audits", {**filters, "fdr": fdr, "limit": 1})
        found = read_answer(body, AuditListing).support
        if found is None:
            raise UnknownSchema(
                "the service's answer has no `support`; the service is older than this release"
            )
        return found

    def audit(self, audit_id: int) -> AuditDetail:
        """One audit with its flagged output and citations; `NotFound` where there is none."""
        return read_answer(self._connection.get(f"/v1/audits/{audit_id:d}"), AuditDetail)

    def measure(self, audit_id: int, rank: int, *, method: Method | str = Method.REFIT) -> MeasurementRecord:
        """Ask for the measured effect of one citation; answers at once, the work takes minutes to hours.

        Asking again answers with the same measurement, where it stands by then; a dead one is queued again.

        Args:
            audit_id: The audit.
            rank: Rank of its citation, below 0 for an opponent.
            method: ``refit`` trains again; ``one-step`` and ``unlearn`` are weak.

        Raises:
            NotFound: there is no such citation.
            MeasuringUnavailable: the service has no recipe; the text says what to set.
            InvalidRequest: the output's text was erased.
        """
        path = f"/v1/audits/{audit_id:d}/citations/{rank:d}/measure?method={Method(method).value}"
        answer = self._connection.post(path, b"")
        if answer.problem is not None:
            raise answer.problem.as_error()
        return read_answer(answer.body, MeasurementRecord)

    def measure_group(
        self, audit_id: int, *, example_ids: Iterable[str] = (), source: str | None = None
    ) -> GroupMeasurementRecord:
        """Ask for the measured effect of training examples that are left out together; answers at once, as `measure` does.

        Args:
            audit_id: The audit on whose output it is measured.
            example_ids: The training examples by their ids in the corpus.
            source: In their place, a source of which all are left out.

        Raises:
            NotFound: there is no such audit.
            MeasuringUnavailable: the service has no recipe; the text says what to set.
            InvalidRequest: neither or both are given, or the output's text was erased.
        """
        try:
            request = GroupRequest(example_ids=tuple(example_ids), source=source)
        except ValidationError as error:
            raise InvalidRequest(first_problem(error)[1]) from error
        answer = self._connection.post(
            f"/v1/audits/{audit_id:d}/measure", request.model_dump_json().encode("utf-8")
        )
        if answer.problem is not None:
            raise answer.problem.as_error()
        return read_answer(answer.body, GroupMeasurementRecord)

    def group_measurement(self, measurement_id: int) -> GroupMeasurementRecord:
        """One measurement of a group, where it stands; `NotFound` where there is none."""
        return read_answer(
            self._connection.get(f"/v1/group-measurements/{measurement_id:d}"), GroupMeasurementRecord
        )

    def measurement(self, measurement_id: int) -> MeasurementRecord:
        """One measurement, where it stands; `NotFound` where there is none."""
        return read_answer(self._connection.get(f"/v1/measurements/{measurement_id:d}"), MeasurementRecord)

    def example(self, training_example_id: int) -> ExampleDetail:
        """One training example by the database's id; `NotFound` where there is none."""
        return read_answer(self._connection.get(f"/v1/examples/{training_example_id:d}"), ExampleDetail)

    def find_examples(self, example_id: str) -> Records[ExampleDetail]:
        """The training examples that have this id in any corpus; empty where there are none."""
        return self._list("/v1/examples", Page[ExampleDetail], {"example_id": example_id})

    def cited_by(self, training_example_id: int, *, page_size: int = DEFAULT_PAGE_SIZE) -> Stream[CitedBy]:
        """Flagged outputs that cite this training example, strongest first; pages are fetched while the caller reads."""
        return self._pages(f"/v1/examples/{training_example_id:d}/cited-by", Page[CitedBy], {}, page_size)

    def sources(self) -> Records[SourceSummary]:
        """How often the examples of each source are cited."""
        return self._list("/v1/sources", Page[SourceSummary])

    def queue(self) -> QueueHealth:
        """Audits by state, and how long the oldest one waits."""
        return read_answer(self._connection.get("/v1/queue"), QueueHealth)

    def today(self) -> Today:
        """How the work goes: states, throughput of the last hour, processes, what is stuck and why, and what is new since the caller's last visit."""
        return read_answer(self._connection.get("/v1/today"), Today)

    def bundles(self) -> Records[BundleInfo]:
        """The bundles that the service knows."""
        return self._list("/v1/bundles", Page[BundleInfo])


def keyed_json(record: FlaggedRecord) -> str:
    """The record as JSON; where it brings no idempotency key, the same content gets the same key."""
    key = record.idempotency_key or f"sha256:{record.content_sha256()}"
    return record_json(record, idempotency_key=key)


def post_records(
    connection: Connection, bodies: Sequence[str], traces: Sequence[str | None] = ()
) -> list[IntakeResult]:
    """Send records that are JSON already, each with its trace where it has one; a request that is refused is split until the culprits stand alone.

    Returns:
        One result per record, in the order given.

    Raises:
        ServiceUnavailable: no usable answer.
        Unauthorized, Forbidden: the API key is not taken, or does not suffice.
        UnknownSchema: the answer does not have the shape that this release reads.
    """
    if not bodies:
        return []
    body = f'{{"records":[{",".join(bodies)}]}}'.encode()
    answer = connection.post(FLAGGED_PATH, body, headers=_trace_headers(traces))
    if answer.problem is None:
        results = list(read_answer(answer.body, _Results).results)
        if len(results) != len(bodies):
            raise UnknownSchema(f"the service answered {len(results)} results for {len(bodies)} records")
        return results
    if answer.problem.status not in REFUSALS:
        raise ServiceUnavailable(
            f"{connection.url}{FLAGGED_PATH} answered HTTP {answer.problem.status}: {answer.problem.message}",
            status=answer.problem.status,
        )
    if len(bodies) == 1:
        return [_refusal(answer.problem)]
    middle = len(bodies) // 2
    halves = ((bodies[:middle], traces[:middle]), (bodies[middle:], traces[middle:]))
    return [result for half, of_half in halves for result in post_records(connection, half, of_half)]


def _trace_headers(traces: Sequence[str | None]) -> dict[str, str]:
    """Headers that tell the traces of the records of a request."""
    known = {one for one in traces if one is not None}
    if len(known) == 1 and None not in traces:
        return {TRACEPARENT: known.pop()}
    if not known or len(traces) > MOST_LISTED:
        return {}
    return {TRACEPARENTS: list_traceparents(traces)}


def _refusal(problem: Problem) -> IntakeResult:
    status = "conflict" if problem.status == 409 else "invalid"
    return IntakeResult(status=status, code=problem.code, reason=problem.message)
