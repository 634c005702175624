"""Clocks of a storm: how long until an output that is sent after a fault is answered, and until a dead worker's audits are claimed again."""

import json
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import redis
from sqlalchemy import select

from benchmarks.chaos.outputs import FLAGGED
from benchmarks.chaos.servers import RedisHouse
from db.models import Audit, FlaggedOutput
from db.session import Database
from wherefrom.errors import DatabaseUnavailable
from wherefrom.messages import RECORD_FIELD
from wherefrom.records import AuditState

_POLL_S = 0.1
#: A canary that nobody answers is given up after this; it counts as so late.
GIVE_UP_S = 120.0


@dataclass
class Canaries:
    """Outputs that are sent after faults; the most urgent ones, so that they overtake what waits."""

    database: Database
    url: str
    house: RedisHouse
    model: str
    #: By fault, seconds.
    seconds: dict[str, list[float]] = field(default_factory=dict)
    #: Keys that HTTP acknowledged, and those that Redis did with the moment.
    acknowledged: set[str] = field(default_factory=set)
    streamed: dict[str, float] = field(default_factory=dict)

    def send(self, fault: str, *, over_stream: bool = False) -> float:
        """Send one and wait for its answer; seconds from now to the answer."""
        key, began = f"canary-{uuid.uuid4().hex[:12]}", time.monotonic()
        record = {
            "idempotency_key": key,
            "prompt": "well?",
            "completion": f"canary {key}",
            "model": self.model,
            "severity": "critical",
        }
        while time.monotonic() < began + GIVE_UP_S:
            if self._sent(record, over_stream=over_stream):
                break
            time.sleep(_POLL_S)
        while time.monotonic() < began + GIVE_UP_S and not self._is_answered(key):
            time.sleep(_POLL_S)
        took = time.monotonic() - began
        self.seconds.setdefault(fault, []).append(took)
        return took

    def _sent(self, record: dict[str, str], *, over_stream: bool) -> bool:
        key, began = record["idempotency_key"], time.time()
        try:
            if over_stream:
                with self.house.client() as client:
                    client.xadd(FLAGGED, {RECORD_FIELD: json.dumps(record)})
                self.streamed[key] = began
            else:
                httpx.post(
                    f"{self.url}/v1/flagged", json={"records": [record]}, timeout=5.0
                ).raise_for_status()
                self.acknowledged.add(key)
        except (redis.RedisError, httpx.HTTPError, OSError):
            return False
        return True

    def _is_answered(self, key: str) -> bool:
        mine = select(Audit.state).join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        try:
            with self.database.reading() as session:
                state = session.scalar(mine.where(FlaggedOutput.idempotency_key == key))
        except DatabaseUnavailable:
            return False
        return state is not None and not state.is_open


@dataclass(frozen=True)
class _Held:
    """An audit that a dead or paused worker held."""

    audit_id: int
    attempt: int
    since: float


class Reclaims:
    """Watches the audits of workers that died; a thread notes when each is claimed again, or ended."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: list[_Held] = []
        self._away: list[tuple[float, float]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.seconds: list[float] = []
        self._thread = threading.Thread(target=self._watch, name="storm-reclaims", daemon=True)
        self._thread.start()

    def held_by(self, pids: Collection[int]) -> list[tuple[int, int]]:
        """Audit and attempt of what these processes hold at the moment; empty while the database is away."""
        query = select(Audit.id, Audit.attempt, Audit.lease_owner).where(Audit.state == AuditState.RUNNING)
        try:
            with self._database.reading() as session:
                rows = session.execute(query).all()
        except DatabaseUnavailable:
            return []
        return [
            (number, attempt) for number, attempt, owner in rows if owner and int(owner.split(":")[1]) in pids
        ]

    def expect(self, held: Collection[tuple[int, int]]) -> None:
        """From now on these are waited for."""
        with self._lock:
            self._held += [_Held(number, attempt, time.monotonic()) for number, attempt in held]

    @contextmanager
    def server_away(self) -> Iterator[None]:
        """Around a fault of Redis or the database: nobody can claim meanwhile, so the seconds do not count."""
        began = time.monotonic()
        yield
        with self._lock:
            self._away.append((began, time.monotonic()))

    def stop(self) -> list[float]:
        """Seconds of all that were waited for; what nobody claimed counts until now."""
        self._stop.set()
        self._thread.join()
        return self.seconds + [self._waited(one) for one in self._held]

    def _waited(self, one: _Held) -> float:
        away = sum(max(0.0, ended - max(began, one.since)) for began, ended in self._away)
        return time.monotonic() - one.since - away

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_S):
            with self._lock:
                held = list(self._held)
            if held:
                self._look(held)

    def _look(self, held: list[_Held]) -> None:
        query = select(Audit.id, Audit.attempt, Audit.state).where(
            Audit.id.in_([one.audit_id for one in held])
        )
        try:
            with self._database.reading() as session:
                now = {number: (attempt, state) for number, attempt, state in session.execute(query)}
        except DatabaseUnavailable:
            return
        over = [
            one
            for one in held
            if now[one.audit_id][0] > one.attempt
            or now[one.audit_id][1] not in {AuditState.RUNNING, AuditState.PENDING}
        ]
        with self._lock:
            self.seconds += [self._waited(one) for one in over]
            self._held = [one for one in self._held if one not in over]
