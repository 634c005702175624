"""Views of the list of audits that people keep under a name. Anybody who may read audits may open one; only its owner changes it."""

from sqlalchemy import delete, func, select, update

from db.models import Person, SavedView
from db.session import Database
from db.statements import AnySelect, insert_new
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import SavedViewRecord, ViewDraft

#: Most views of one person.
MOST = 100


def save_view(db: Database, person_id: int, draft: ViewDraft) -> SavedViewRecord:
    """Keep a list under a name; a view of that name of the same person is replaced.

    Raises:
        InvalidRequest: the person has too many.
    """
    name = draft.name.strip()
    with db.writing() as session:
        mine = (SavedView.person_id == person_id, SavedView.name == name)
        row = {"person_id": person_id, "name": name, "parameters": dict(draft.parameters)}
        session.execute(insert_new(session, SavedView, (SavedView.person_id, SavedView.name)), [row])
        session.execute(update(SavedView).where(*mine).values(parameters=row["parameters"]))
        number = session.scalar(select(func.count()).where(SavedView.person_id == person_id)) or 0
        if number > MOST:
            raise InvalidRequest(f"you keep {MOST} views; delete one first")
        found = session.execute(_VIEWS.where(*mine)).mappings().one()
        return SavedViewRecord(**found)


def views_of(db: Database, person_id: int) -> list[SavedViewRecord]:
    """The views of a person by name; one statement."""
    with db.reading() as session:
        rows = session.execute(_VIEWS.where(SavedView.person_id == person_id).order_by(SavedView.name))
        return [SavedViewRecord(**row) for row in rows.mappings()]


def get_view(db: Database, view_id: int) -> SavedViewRecord:
    """One view, whoever's it is.

    Raises:
        NotFound: there is none.
    """
    with db.reading() as session:
        row = session.execute(_VIEWS.where(SavedView.id == view_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"saved view {view_id} does not exist")
    return SavedViewRecord(**row)


def delete_view(db: Database, view_id: int, person_id: int) -> None:
    """Forget a view of one's own.

    Raises:
        NotFound: the person has no such view.
    """
    with db.writing() as session:
        mine = delete(SavedView).where(SavedView.id == view_id, SavedView.person_id == person_id)
        if not session.execute(mine).rowcount:  # type: ignore[attr-defined] # a CursorResult
            raise NotFound(f"you have no saved view {view_id}")


_VIEWS: AnySelect = select(
    SavedView.id.label("view_id"),
    SavedView.name,
    Person.name.label("owner"),
    SavedView.parameters,
    SavedView.created_at,
).join(Person, Person.id == SavedView.person_id)
