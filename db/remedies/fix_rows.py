"""What is on a fix list: put there, changed, taken off, read, and the whole list as rows for whoever retrains.

A training example is on a list once. Rows hold no text: they point to the stored training example, so what is erased there is gone here.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, literal, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.bundles.catalogue import STORED_CORPUS_LIMIT
from db.counts import count_at_most
from db.models import Citation, Corpus, FixList, FixListEntry, FixListRow, Person, TrainingExample
from db.reading.culprits import culprit_ids
from db.reading.listings import Conditions, look_up
from db.remedies.fix_lists import add_entry, lock_open
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.statements import AnySelect, insert_new
from db.storing.examples import CHUNK, storable_name
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import FixAction, FixChange, FixChanged, FixEvent, FixRow, Via

#: Up to here a page counts the outputs that cite a row.
COUNTED_OUTPUTS = 10_000
#: Numbers of training examples that one entry of a history keeps.
KEPT_IDS = 200


def preview(db: Database, change: FixChange) -> int:
    """How many training examples a change names."""
    wanted = _looked_up(db, change)
    with db.reading() as session:
        return _count(session, change, wanted)


def change_rows(db: Database, list_id: int, change: FixChange, *, by: Reviewer) -> FixChanged:
    """Put rows on a list, change them there, or take them off, in one transaction.

    Raises:
        NotFound: there is no such list, or a number names no stored training example.
        InvalidRequest: the list is closed.
    """
    wanted = _looked_up(db, change)
    with db.writing() as session:
        lock_open(session, list_id)
        matched = _count(session, change, wanted)
        if missing := len(set(change.training_example_ids)) - matched if change.training_example_ids else 0:
            raise NotFound(f"{missing} of the training examples do not exist; nothing was changed")
        event = FixEvent.TAKEN_OFF if change.action is None else FixEvent.SET
        culprits = (
            None if change.culprits is None else change.culprits.model_dump(mode="json", exclude_none=True)
        )
        entry_id = add_entry(
            session,
            list_id,
            event,
            by=by,
            action=change.action,
            reason=change.reason.strip(),
            ids=sorted(set(change.training_example_ids))[:KEPT_IDS],
            source=change.source,
            culprits=culprits,
        )
        changed = _apply(session, list_id, change, entry_id=entry_id, audits=wanted)
        session.execute(update(FixListEntry).where(FixListEntry.id == entry_id).values(rows=changed))
        payload = {
            "by": by.person.person_id,
            "via": by.via.value,
            "entry": entry_id,
            "action": None if change.action is None else change.action.value,
            "rows": changed,
        }
        record_events(session, [Event(TrailKind.FIX_LIST_CHANGED, f"fix_list:{list_id}", payload)])
    return FixChanged(matched=matched, changed=changed)


def rows_of(
    db: Database,
    list_id: int,
    *,
    action: FixAction | None = None,
    after: int = 0,
    limit: int = 50,
    counted: int | None = None,
) -> list[FixRow]:
    """Rows of a list by the number of the training example.

    Args:
        db: The database.
        list_id: The list.
        action: Only rows with this action.
        after: Number of the last row of the page before.
        limit: Most rows.
        counted: Up to here the outputs that cite a row are counted; one more means that there are more. None counts all.
    """
    wanted = [FixListRow.list_id == list_id, FixListRow.training_example_id > after]
    if action is not None:
        wanted.append(FixListRow.action == action)
    outputs = count_at_most(None if counted is None else counted + 1, *_CITES_IT, correlate=FixListRow)
    query = _ROWS.add_columns(outputs.label("outputs")).where(*wanted)
    query = query.order_by(FixListRow.training_example_id).limit(limit)
    with db.reading() as session:
        return [_row(dict(one)) for one in session.execute(query).mappings()]


def all_rows(db: Database, list_id: int, *, action: FixAction | None = None) -> Iterator[FixRow]:
    """Every row of a list, read in chunks."""
    after = 0
    while chunk := rows_of(db, list_id, action=action, after=after, limit=CHUNK):
        yield from chunk
        after = chunk[-1].training_example_id


def actions_on(
    db: Database, training_example_ids: Sequence[int]
) -> dict[int, list[tuple[int, str, FixAction]]]:
    """On which lists training examples stand: number and name of the list, and what was decided."""
    if not training_example_ids:
        return {}
    query = (
        select(FixListRow.training_example_id, FixList.id, FixList.name, FixListRow.action)
        .join(FixList, FixList.id == FixListRow.list_id)
        .where(FixListRow.training_example_id.in_(training_example_ids))
        .order_by(FixList.id)
    )
    found: dict[int, list[tuple[int, str, FixAction]]] = {}
    with db.reading() as session:
        for row in session.execute(query):
            found.setdefault(row.training_example_id, []).append((row.id, row.name, row.action))
    return found


def _looked_up(db: Database, change: FixChange) -> Conditions:
    return () if change.culprits is None else look_up(db, change.culprits)


def _wanted(change: FixChange, audits: Conditions) -> AnySelect:
    """The numbers of the training examples that a change names."""
    if change.culprits is not None:
        return culprit_ids(audits, most=change.most, least_outputs=change.least_outputs)
    if change.source is not None:
        return select(TrainingExample.id).where(TrainingExample.source == storable_name(change.source))
    raise RuntimeError("named one by one")


def _count(session: Session, change: FixChange, audits: Conditions) -> int:
    if not change.training_example_ids:
        return session.scalar(select(func.count()).select_from(_wanted(change, audits).subquery())) or 0
    ids = sorted(set(change.training_example_ids))
    chunks = [ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK)]
    known = select(func.count()).select_from(TrainingExample)
    return sum(session.scalar(known.where(TrainingExample.id.in_(chunk))) or 0 for chunk in chunks)


def _apply(session: Session, list_id: int, change: FixChange, *, entry_id: int, audits: Conditions) -> int:
    """How many rows changed."""
    if change.training_example_ids:
        ids = sorted(set(change.training_example_ids))
        return sum(
            _set(session, list_id, ids[at : at + CHUNK], action=change.action, entry_id=entry_id)
            for at in range(0, len(ids), CHUNK)
        )
    wanted = _wanted(change, audits).subquery("wanted")
    (number,) = wanted.c
    if change.action is None:
        return _take_off(session, list_id, FixListRow.training_example_id.in_(select(number)))
    columns = ("list_id", "training_example_id", "action", "entry_id")
    action: ColumnElement[Any] = literal(change.action, FixListRow.__table__.c.action.type)
    new = select(literal(list_id), number, action, literal(entry_id)).where(~_on(list_id, number))
    statement = insert_new(session, FixListRow).from_select(columns, new)
    session.execute(statement.execution_options(synchronize_session=False))
    added = select(func.count()).where(FixListRow.list_id == list_id, FixListRow.entry_id == entry_id)
    return session.scalar(added) or 0


def _set(
    session: Session, list_id: int, ids: Sequence[int], *, action: FixAction | None, entry_id: int
) -> int:
    """Set rows that were named one by one, whatever was decided about them before; how many changed."""
    taken_off = _take_off(session, list_id, FixListRow.training_example_id.in_(ids))
    if action is None:
        return taken_off
    rows = [
        {"list_id": list_id, "training_example_id": one, "action": action, "entry_id": entry_id}
        for one in ids
    ]
    session.execute(insert_new(session, FixListRow), rows)
    return len(rows)


def _take_off(session: Session, list_id: int, wanted: ColumnElement[bool]) -> int:
    mine = (FixListRow.list_id == list_id, wanted)
    number = session.scalar(select(func.count()).where(*mine)) or 0
    if number:
        session.execute(delete(FixListRow).where(*mine).execution_options(synchronize_session=False))
    return number


def _on(
    list_id: int, number: ColumnElement[Any] | InstrumentedAttribute[int], *further: ColumnElement[bool]
) -> ColumnElement[bool]:
    return (
        select(FixListRow.list_id)
        .where(FixListRow.list_id == list_id, FixListRow.training_example_id == number, *further)
        .exists()
    )


def stored_corpus(db: Database, list_id: int, sha256: str | None) -> int:
    """The corpus that a list is about, which the database must hold whole.

    Args:
        db: The database.
        list_id: The list.
        sha256: Hash of the corpus; None where the rows of the list are of one corpus alone.

    Raises:
        InvalidRequest: the rows are of several corpora, of another one, or of one of which only what is cited is stored.
    """
    stored = select(func.count()).where(TrainingExample.corpus_id == Corpus.id).correlate(Corpus)
    mine = (
        select(TrainingExample.corpus_id)
        .join(FixListRow, FixListRow.training_example_id == TrainingExample.id)
        .where(FixListRow.list_id == list_id)
    )
    query = select(Corpus.id, Corpus.sha256, Corpus.examples, stored.scalar_subquery().label("stored"))
    with db.reading() as session:
        found = session.execute(query.where(Corpus.id.in_(mine)).order_by(Corpus.id)).all()
    wanted = [one for one in found if sha256 is None or one.sha256 == sha256]
    if len(wanted) != 1:
        known = ", ".join(one.sha256 for one in found) or "none"
        raise InvalidRequest(f"name one corpus of the list with `corpus`: {known}")
    if wanted[0].stored < wanted[0].examples:
        raise InvalidRequest(
            f"the database holds {wanted[0].stored} of the {wanted[0].examples} rows of this corpus: of one with more than {STORED_CORPUS_LIMIT} it keeps what was cited. "
            "Run `wherefrom fix-list-clean` over the corpus's own file, which may have any size and shape"
        )
    return int(wanted[0].id)


def staying(db: Database, list_id: int, corpus_id: int) -> Iterator[dict[str, Any]]:
    """The rows of a stored corpus that a list neither removes nor fixes and nobody erased, in the order of the corpus, page by page."""
    leaves = [one for one in FixAction if one.leaves]
    gone = _on(list_id, TrainingExample.id, FixListRow.action.in_(leaves))
    columns = (
        TrainingExample.row,
        TrainingExample.example_id.label("id"),
        TrainingExample.source,
        TrainingExample.prompt,
        TrainingExample.completion,
        TrainingExample.fields,
    )
    there = (TrainingExample.corpus_id == corpus_id, TrainingExample.erased_at.is_(None))
    query = select(*columns).where(*there, ~gone)
    after = -1
    while True:
        page = query.where(TrainingExample.row > after).order_by(TrainingExample.row).limit(CHUNK)
        with db.reading() as session:
            rows = session.execute(page).mappings().all()
        for row in rows:
            own = {name: row[name] for name in ("id", "source", "prompt", "completion")}
            yield {**row["fields"], **own}
        if len(rows) < CHUNK:
            return
        after = rows[-1]["row"]


_CITES_IT = (Citation.training_example_id == FixListRow.training_example_id, Citation.rank > 0)
_ROWS: AnySelect = (
    select(
        FixListRow.training_example_id,
        TrainingExample.example_id,
        TrainingExample.source,
        FixListRow.action,
        FixListEntry.reason,
        Person.name.label("by"),
        FixListEntry.via,
        FixListEntry.created_at.label("decided_at"),
        TrainingExample.prompt,
        TrainingExample.completion,
        TrainingExample.text_sha256,
        Corpus.sha256.label("corpus_sha256"),
        TrainingExample.row,
        TrainingExample.fields,
    )
    .join(TrainingExample, TrainingExample.id == FixListRow.training_example_id)
    .join(Corpus, Corpus.id == TrainingExample.corpus_id)
    .join(FixListEntry, FixListEntry.id == FixListRow.entry_id)
    .join(Person, Person.id == FixListEntry.person_id)
)


def _row(found: dict[str, Any]) -> FixRow:
    return FixRow(proven=found.pop("via") is not Via.LOCAL, **found)
