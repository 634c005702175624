"""Builds over many machines as their planner sees them: planned once, looked at, mended, ended. `db.queues.build_queue` has what workers do."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_now
from db.counts import count_states
from db.models import BuildPart, SharedBuild
from db.queues.leases import fresh
from db.session import Database
from db.statements import carry_out, insert_many, insert_new
from db.storing.examples import storable_text
from wherefrom.errors import NotFound
from wherefrom.records import (
    BuildProgress,
    DeadPart,
    MeasurementState,
    PartOutput,
    PlannedPart,
    RefusedWorker,
    SharedBuildRecord,
)

#: Parts that are dead and told one by one.
_TOLD = 20


def plan_build(
    db: Database, *, identity: str, store: str, plan: Mapping[str, Any], parts: Sequence[PlannedPart]
) -> int:
    """The build of this identity: planned now, or found again, with its dead parts waiting once more.

    Args:
        db: The database.
        identity: Hash of the inputs, of the shared folder and of the size of parts.
        store: Path or URL of the shared folder.
        plan: What a worker must know.
        parts: All parts, in order.

    Returns:
        The build's id.
    """
    row = {
        "identity": identity,
        "store": store,
        "plan": dict(plan),
        "parts": len(parts),
        "tokens": sum(one.tokens for one in parts),
    }
    with db.writing() as session:
        made = insert_new(session, SharedBuild, (SharedBuild.identity,)).values(row)
        build_id: int | None = session.scalar(made.returning(SharedBuild.id))
        if build_id is not None:
            insert_many(session, BuildPart, [_part(build_id, one) for one in parts])
            _tell(session, TrailKind.BUILD_PLANNED, build_id, {"parts": len(parts)})
            return build_id
        build_id = session.scalars(select(SharedBuild.id).where(SharedBuild.identity == identity)).one()
        again = BuildPart.build_id == build_id, BuildPart.state == MeasurementState.DEAD
        carry_out(session, update(BuildPart).where(*again).values(fresh(BuildPart)))
        carry_out(session, update(SharedBuild).where(SharedBuild.id == build_id).values(_NOT_REFUSED))
    return build_id


def find_build(db: Database, identity: str) -> int | None:
    """The id of the build of this identity; None where there is none."""
    with db.reading() as session:
        return session.scalar(select(SharedBuild.id).where(SharedBuild.identity == identity))


def read_build(db: Database, build_id: int) -> SharedBuildRecord:
    """One build.

    Raises:
        NotFound: there is none: it is finished, or was cancelled.
    """
    with db.reading() as session:
        found = session.get(SharedBuild, build_id)
    if found is None:
        raise NotFound(f"build {build_id} does not exist: it is finished or was cancelled")
    return _record(found)


def list_builds(db: Database) -> list[tuple[SharedBuildRecord, BuildProgress]]:
    """The builds that are not finished, oldest first, and where each stands."""
    with db.reading() as session:
        found = session.scalars(select(SharedBuild).order_by(SharedBuild.id)).all()
        return [(_record(one), _progress(session, one)) for one in found]


def progress_of(db: Database, build_id: int) -> BuildProgress:
    """Where a build stands.

    Raises:
        NotFound: it was cancelled.
    """
    with db.reading() as session:
        found = session.get(SharedBuild, build_id)
        if found is None:
            raise NotFound(f"build {build_id} was cancelled")
        return _progress(session, found)


def part_counts(db: Database) -> dict[MeasurementState, int]:
    """How many parts of all builds stand in each state; `count_states` has the bound."""
    with db.reading() as session:
        return count_states(session, BuildPart, MeasurementState)


def outputs_of(db: Database, build_id: int, *, first: int, limit: int) -> dict[int, PartOutput]:
    """The files of the first parts that are done, from a number on, in order."""
    query = (
        select(BuildPart.number, BuildPart.output)
        .where(
            BuildPart.build_id == build_id,
            BuildPart.number.between(first, first + limit - 1),
            BuildPart.state == MeasurementState.DONE,
        )
        .order_by(BuildPart.number)
    )
    with db.reading() as session:
        return {one.number: PartOutput.model_validate(one.output) for one in session.execute(query)}


def read_again(db: Database, build_id: int, numbers: Iterable[int]) -> None:
    """Put parts back that are done, because a file of theirs is gone or has changed."""
    lost = (
        BuildPart.build_id == build_id,
        BuildPart.number.in_(sorted(numbers)),
        BuildPart.state == MeasurementState.DONE,
    )
    with db.writing() as session:
        carry_out(session, update(BuildPart).where(*lost).values(fresh(BuildPart) | {"output": None}))


def refuse(db: Database, build_id: int, *, worker: str, code: str, reason: str) -> None:
    """Tell that a worker can take no part of a build, for whoever waits for it."""
    values = {
        "refused_by": worker,
        "refused_code": code,
        "refused_reason": storable_text(reason),
        "refused_at": db_now(),
    }
    with db.writing() as session:
        carry_out(session, update(SharedBuild).where(SharedBuild.id == build_id).values(values))


def end_build(db: Database, build_id: int, kind: TrailKind) -> bool:
    """Forget a build: its parts are merged, or nobody wants it any more. What a worker still reads of it is fenced.

    Args:
        db: The database.
        build_id: The build.
        kind: `BUILD_FINISHED` or `BUILD_CANCELLED`.

    Returns:
        False when there is no such build.
    """
    with db.writing() as session:
        carry_out(session, delete(BuildPart).where(BuildPart.build_id == build_id))
        gone = delete(SharedBuild).where(SharedBuild.id == build_id).returning(SharedBuild.id)
        if session.scalar(gone) is None:
            return False
        _tell(session, kind, build_id, {})
    return True


_NOT_REFUSED: dict[str, Any] = dict.fromkeys(
    ("refused_by", "refused_code", "refused_reason", "refused_at"), None
)


def _part(build_id: int, part: PlannedPart) -> dict[str, Any]:
    return {
        "build_id": build_id,
        "number": part.number,
        "state": MeasurementState.PENDING,
        "first_row": part.first_row,
        "num_rows": part.rows,
        "tokens": part.tokens,
        "rows_sha256": part.rows_sha256,
    }


def _record(row: SharedBuild) -> SharedBuildRecord:
    return SharedBuildRecord(
        build_id=row.id,
        store=row.store,
        plan=row.plan,
        parts=row.parts,
        tokens=row.tokens,
        created_at=row.created_at,
    )


def _progress(session: Session, build: SharedBuild) -> BuildProgress:
    counted = (
        select(BuildPart.state, func.count().label("parts"), func.sum(BuildPart.tokens).label("tokens"))
        .where(BuildPart.build_id == build.id)
        .group_by(BuildPart.state)
    )
    found = {one.state: one for one in session.execute(counted)}

    def parts(state: MeasurementState) -> int:
        return found[state].parts if state in found else 0

    done = found.get(MeasurementState.DONE)
    return BuildProgress(
        waiting=parts(MeasurementState.PENDING),
        running=parts(MeasurementState.RUNNING),
        done=parts(MeasurementState.DONE),
        dead=parts(MeasurementState.DEAD),
        tokens_done=0 if done is None else int(done.tokens),
        dead_parts=_dead(session, build.id) if MeasurementState.DEAD in found else (),
        refused=_refused(build),
    )


def _dead(session: Session, build_id: int) -> tuple[DeadPart, ...]:
    query = (
        select(
            BuildPart.number,
            BuildPart.first_row,
            BuildPart.num_rows.label("rows"),
            BuildPart.code,
            BuildPart.reason,
        )
        .where(BuildPart.build_id == build_id, BuildPart.state == MeasurementState.DEAD)
        .order_by(BuildPart.number)
        .limit(_TOLD)
    )
    return tuple(DeadPart.model_validate(dict(one)) for one in session.execute(query).mappings())


def _refused(build: SharedBuild) -> RefusedWorker | None:
    if build.refused_by is None or build.refused_at is None:
        return None
    return RefusedWorker(
        worker=build.refused_by,
        code=build.refused_code or "",
        reason=build.refused_reason or "",
        at=build.refused_at,
    )


def _tell(session: Session, kind: TrailKind, build_id: int, payload: dict[str, Any]) -> None:
    record_events(session, [Event(kind, f"shared_build:{build_id}", payload)])
