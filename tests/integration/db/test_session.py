"""Transactions, and how a database that is away is told."""

import traceback

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from db.clock import db_after, db_now
from db.models import Corpus
from db.session import Database
from tests.integration.db.builders import at_once, count
from tests.services.postgres import PostgresServer
from wherefrom.errors import DatabaseUnavailable


def _corpus(name: str) -> dict[str, object]:
    return {"sha256": name, "name": name, "examples": 1}


def test_writing_commits_at_the_end_and_rolls_back_on_an_error(db: Database) -> None:
    """All or nothing."""
    with db.writing() as session:
        session.execute(insert(Corpus), [_corpus("kept")])

    def write_both() -> None:
        with db.writing() as session:
            session.execute(insert(Corpus), [_corpus("lost")])
            session.execute(insert(Corpus), [_corpus("kept")])

    with pytest.raises(IntegrityError):
        write_both()
    assert count(db, Corpus) == 1


def test_reading_cannot_write(db: Database) -> None:
    """A reading transaction refuses an INSERT on both engines."""
    with pytest.raises(Exception, match=r"(?i)read-?only"), db.reading() as session:
        session.execute(insert(Corpus), [_corpus("x")])
    with db.writing() as session:
        session.execute(insert(Corpus), [_corpus("y")])


def test_reading_sees_one_state(db: Database) -> None:
    """What others commit meanwhile does not appear in the middle of a page."""
    with db.reading() as session:
        before = session.scalars(select(Corpus.name)).all()
        with db.writing() as other:
            other.execute(insert(Corpus), [_corpus("new")])
        assert session.scalars(select(Corpus.name)).all() == before
    assert count(db, Corpus) == 1


def test_concurrent_writers_wait_for_each_other(db: Database) -> None:
    """Read, then write, from many threads: no lost update and no refused transaction."""
    with db.writing() as session:
        session.execute(insert(Corpus), [_corpus("counter")])

    def add() -> None:
        with db.writing() as session:
            corpus = session.scalars(select(Corpus).with_for_update()).one()
            corpus.examples += 1

    at_once([add] * 10)
    with db.reading() as session:
        assert session.scalars(select(Corpus.examples)).one() == 11


def test_the_databases_clock(db: Database) -> None:
    """Aware, finer than a second, and moved by fractions of a second in both directions."""
    with db.reading() as session:
        now, later, before = session.execute(select(db_now(), db_after(1.5), db_after(-0.25))).one()
    assert now.tzinfo is not None
    assert (later - now).total_seconds() == pytest.approx(1.5, abs=0.01)
    assert (now - before).total_seconds() == pytest.approx(0.25, abs=0.01)


def test_ping_answers(db: Database) -> None:
    """A database that is there."""
    db.ping()


def test_an_error_tells_no_values(db: Database) -> None:
    """Texts of outputs must not reach the logs, neither as parameters nor in the row that PostgreSQL quotes."""
    row = _corpus("secret-text") | {"examples": None}
    with pytest.raises(IntegrityError, match=r"(?i)null") as caught, db.writing() as session:
        session.execute(insert(Corpus), [row])
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value.orig)
    assert "secret-text" not in text.replace('_corpus("secret-text")', "")


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    """Readable, with the masked URL."""
    database = Database("postgresql://me:s3cret@127.0.0.1:1/wherefrom")
    with pytest.raises(DatabaseUnavailable, match="Connection refused") as caught:
        database.ping()
    database.dispose()
    assert "postgresql+psycopg://me:***@127.0.0.1:1/wherefrom" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.postgres
def test_connections_that_the_server_dropped_are_replaced(postgres_url: str) -> None:
    """After a restart of the server the pool's old connections are noticed before they are used."""
    database, killer = Database(postgres_url), Database(postgres_url)
    database.ping()
    with killer.writing() as session:
        mine = "pid <> pg_backend_pid() AND datname = current_database()"
        session.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}"))
    database.ping()
    database.dispose()
    killer.dispose()


@pytest.mark.postgres
def test_a_connection_lost_in_a_transaction_is_unavailable(postgres_url: str) -> None:
    """The server goes while we write: `DatabaseUnavailable`, and the next transaction works."""
    database, killer = Database(postgres_url), Database(postgres_url)

    def write() -> None:
        with database.writing() as session:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            with killer.writing() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        write()
    database.ping()
    database.dispose()
    killer.dispose()


@pytest.mark.postgres
def test_a_server_that_stops_is_unavailable() -> None:
    """The whole cluster goes away after the first use, for readers and writers."""
    server = PostgresServer().start()
    database = Database(server.url("postgres"))
    database.ping()
    server.stop()
    with pytest.raises(DatabaseUnavailable):
        database.ping()
    with pytest.raises(DatabaseUnavailable), database.writing() as session:
        session.execute(text("SELECT 1"))
    database.dispose()
