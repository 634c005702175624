"""Keeps what audits were computed with: one row for each set of versions and settings, found by its hash."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Audit, EngineSetup, FlaggedText
from db.statements import insert_new
from wherefrom.records import sha256_of_json

Setup = Mapping[str, Any]

#: What it takes to ask for an answer again, beside what is shown of the output; under the names of `AuditDetail`.
ASKED_AGAIN = (
    FlaggedText.token_ids.label("token_ids"),
    FlaggedText.plain_prompt.label("plain_prompt"),
    select(EngineSetup.content)
    .where(EngineSetup.id == Audit.setup_id)
    .scalar_subquery()
    .label("computed_with"),
)


class KnownSetups:
    """Ids of the setups that this process has stored, so that only its first answer asks for them."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._new: dict[str, int] = {}

    def id_of(self, session: Session, setup: Setup | None) -> int | None:
        """The id of a setup, which is stored if it is new."""
        if setup is None:
            return None
        key = sha256_of_json(dict(setup))
        if key not in self._ids and key not in self._new:
            self._new[key] = _stored(session, key, setup)
        return self._ids.get(key) or self._new[key]

    def committed(self) -> None:
        """What was stored last stands."""
        self._ids |= self._new
        self._new.clear()

    def rolled_back(self) -> None:
        """What was stored last does not stand."""
        self._new.clear()


def _stored(session: Session, key: str, setup: Setup) -> int:
    session.execute(
        insert_new(session, EngineSetup, (EngineSetup.sha256,)), {"sha256": key, "content": dict(setup)}
    )
    return session.scalars(select(EngineSetup.id).where(EngineSetup.sha256 == key)).one()
