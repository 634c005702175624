"""A database that the desk's benchmark fills is one that the service would have made."""

from pathlib import Path

import pytest
from sqlalchemy import text

from benchmarks import desk_data
from benchmarks.desk_filling import fill
from benchmarks.desk_further import further
from db.reading import reader
from db.session import Database
from wherefrom.errors import ConfigurationError
from wherefrom.records import AuditFilter

AUDITS = 2_400
_INDEXES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type IN ('index', 'trigger')",
    "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'",
}


def _indexes(url: str) -> set[str]:
    with Database(url) as db, db.reading() as session:
        return set(session.scalars(text(_INDEXES[db.dialect])))


def test_a_filled_database_has_all_indexes_and_finds_its_words(own_url: str, tmp_path: Path) -> None:
    """Indexes and triggers that were taken away for the time are back, and words are found."""
    before = _indexes(own_url)
    fill(own_url, audits=AUDITS, where=tmp_path, further=further(AUDITS))
    assert _indexes(own_url) == before
    with Database(own_url) as db:
        with db.reading() as session:
            assert (session.scalar(text("SELECT count(*) FROM citation")) or 0) >= 9 * AUDITS
        for filters in (
            AuditFilter(text=desk_data.RARE_WORD),
            AuditFilter(flag_reason=desk_data.RARE_REASON),
        ):
            assert len(reader.list_audits(db, filters, limit=100).items) == desk_data.RARE
    with pytest.raises(ConfigurationError, match="give an empty one"):
        fill(own_url, audits=AUDITS, where=tmp_path)
