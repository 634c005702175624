"""What the database says is judged by an allow-list: only two classes of SQLSTATE blame a record, and one a limit."""

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import InvalidRequestError

from db import migrate
from db.models import Corpus, FlaggedOutput, TrainingExample
from db.session import Database
from db.statements import insert_rows
from db.storing.intake import accept, check_writable
from tests.integration.db.builders import count, example, sha256
from tests.integration.db.sabotage import on_postgres, read_only, refuse_rows, run
from wherefrom.errors import (
    DatabaseReadOnly,
    DatabaseUnavailable,
    UnstorableRecord,
    ValueTooLong,
)
from wherefrom.records import FlaggedRecord

#: A sample of everything that PostgreSQL may say and that is no fault of a record.
TRANSIENT = [
    "08006", "0A000", "25006", "25P02", "28000", "40001", "40P01", "42501", "42601", "42703", "42P01", "44000", "53100", "53200",
    "53300", "55P03", "57014", "57P01", "58030", "72000", "P0001", "XX000", "XX001", "ZZ999",
]  # fmt: skip
BLAMES_RECORD = ["22001", "22003", "22021", "22P02", "22P05", "23000", "23502", "23503", "23505", "23514"]


pytestmark = pytest.mark.usefixtures("own")
only_postgres = pytest.mark.parametrize("migrated_url", ["postgres"], indirect=True)


def _accept(database: Database, key: str = "poison") -> None:
    record = FlaggedRecord(prompt="p", completion="c", model="m", idempotency_key=key)
    accept(database, [record], producer="p", channel="stream")


def _refuse_with(database: Database, sqlstate: str) -> None:
    """The row `poison` is refused with this SQLSTATE from now on."""
    run(database, "DROP TRIGGER IF EXISTS refuse" + (" ON flagged_output" if on_postgres(database) else ""))
    refuse_rows(database, like="poison", sqlstate=sqlstate)


def test_only_two_classes_blame_the_record(own: Database) -> None:
    """And every other code, known or invented, blames nobody: the database is unavailable."""
    for sqlstate in BLAMES_RECORD:
        _refuse_with(own, sqlstate)
        with pytest.raises(UnstorableRecord):
            _accept(own)
    for sqlstate in TRANSIENT if on_postgres(own) else ["XX000"]:
        _refuse_with(own, sqlstate)
        with pytest.raises(DatabaseUnavailable):
            _accept(own)
    check_writable(own)
    _accept(own, "innocent")


@only_postgres
def test_class_54_is_permanent(own: Database) -> None:
    """A limit of the database is the same tomorrow."""
    for sqlstate in ("54000", "54001", "54023"):
        _refuse_with(own, sqlstate)
        with pytest.raises(ValueTooLong):
            _accept(own)


@only_postgres
@pytest.mark.parametrize(
    ("chunks", "named"),
    [(80, "`training_example.source`"), (300, "`training_example.example_id` or `training_example.source`")],
)
def test_an_index_row_that_is_too_long_names_the_field(own: Database, chunks: int, named: str) -> None:
    """The reason says which column; for the longest values PostgreSQL does not say which index, so it names the candidates."""
    noise = "".join(sha256(str(number)) for number in range(chunks))
    corpus = {"sha256": "s", "name": "n", "examples": 1}
    with own.writing() as session:
        corpus_id = session.scalar(insert(Corpus).returning(Corpus.id), corpus)
    row = {"corpus_id": corpus_id, **example(0, source=noise).model_dump()}
    with (
        pytest.raises(ValueTooLong, match=f"^{named} is too long"),
        own.writing() as session,
    ):
        session.execute(insert_rows(TrainingExample), [row])


def test_a_read_only_database_is_told_in_words(own: Database, own_url: str) -> None:
    """Reads go on, writes say that it is a standby or read-only, and afterwards all is as before."""
    with read_only(own, own_url):
        own.ping()
        for write in (check_writable, _accept):
            with pytest.raises(DatabaseReadOnly, match="read-only"):
                write(own)
    check_writable(own)
    assert count(own, FlaggedOutput) == 0


@only_postgres
def test_a_failover_is_survived_by_an_open_pool(own: Database) -> None:
    """Connections to what is a standby by now are closed, so that the next try finds the primary."""
    with own.writing() as session:
        session.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))  # as a demoted server
        pid = session.scalar(text("SELECT pg_backend_pid()"))
    with pytest.raises(DatabaseReadOnly):
        check_writable(own)
    check_writable(own)
    with own.reading() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) != pid


@only_postgres
@pytest.mark.parametrize("table", ["flagged_output", "flagged_text", "audit", "trail_event"])
def test_a_missing_privilege_blames_nobody(own: Database, own_url: str, table: str) -> None:
    """On any table that intake writes; the text says what to grant."""
    role = f"without_{table}"
    run(
        own,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
        f"REVOKE INSERT ON {table} FROM {role}",
    )
    limited = Database(own_url.replace("postgres@", f"{role}@"))
    for write in (check_writable, _accept):
        with pytest.raises(DatabaseUnavailable, match=rf"permission denied for table {table}.*GRANT"):
            write(limited)
    run(own, f"GRANT INSERT ON {table} TO {role}")
    check_writable(limited)
    limited.dispose()
    run(own, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("revision", ["0001", "0003"])
def test_an_older_schema_blames_nobody(own: Database, own_url: str, revision: str) -> None:
    """A statement that meets a missing column or table waits for the migration."""
    migrate.downgrade(own_url, revision)
    with pytest.raises(DatabaseUnavailable, match="migrate"), own.writing() as session:
        session.execute(text("INSERT INTO citation (encoder_score) VALUES (1)"))
    with pytest.raises(DatabaseUnavailable, match="migrate"), own.writing() as session:
        session.execute(text("INSERT INTO no_table_of_ours VALUES (1)"))


def test_an_unknown_error_of_sqlalchemy_is_transient(own: Database) -> None:
    """It is logged with its traceback, and nobody is condemned for it."""
    with pytest.raises(DatabaseUnavailable, match="NoResultFound"), own.writing() as session:
        session.scalars(select(Corpus.id)).one()
    with pytest.raises(DatabaseUnavailable), own.reading():
        raise InvalidRequestError


def test_a_refusal_of_everything_is_the_databases_fault(own: Database) -> None:
    """A rule that refuses the probe too, whatever its code, condemns no record: the probe says so."""
    refuse_rows(own, like="%", sqlstate="23514")
    with pytest.raises(DatabaseUnavailable, match="refuses a plain output"):
        check_writable(own)


def test_the_probe_leaves_nothing(own: Database) -> None:
    """No row of any table, and no lock either."""
    for _ in range(3):
        check_writable(own)
    with own.reading() as session:
        tables = ("flagged_output", "flagged_text", "audit", "trail_event")
        assert [session.scalar(text(f"SELECT count(*) FROM {table}")) for table in tables] == [0] * 4


@pytest.mark.parametrize("key", ["nul \x00", "surrogate \ud800"])
def test_what_no_text_column_holds_is_no_crash(own: Database, key: str) -> None:
    """Records refuse it; where one slips past them, the driver's refusal is a permanent error too."""
    record = FlaggedRecord(prompt="p", completion="c", model="m").model_copy(update={"idempotency_key": key})
    if key.endswith("\x00") and not on_postgres(own):
        return  # SQLite takes it
    with pytest.raises(UnstorableRecord):
        accept(own, [record], producer="p", channel="stream")
