"""A whole copy of the database in one file, taken while the service runs, and the way back into an empty one.

SQLite is copied by its own backup interface, PostgreSQL by `pg_dump` and `pg_restore`, which must be as new as the server. Both copies are of one moment.
"""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, inspect

from db.migrate import schema_of
from db.session import database_errors, make_engine, mask_url, parse_url
from wherefrom.atomic import PRIVATE, atomic_file
from wherefrom.errors import BackupFailed, ConfigurationError
from wherefrom.private import private_folder

#: Name of the copy, by engine.
DUMPS = {"sqlite": "database.sqlite", "postgresql": "database.pgdump"}


def dump_database(url: str, folder: Path) -> Path:
    """Copy the database into a folder; the file.

    Raises:
        BackupFailed: the copy failed; the text says why.
        DatabaseUnavailable: the database is away.
    """
    schema_of(url)
    parsed = parse_url(url)
    file = folder / DUMPS[parsed.get_backend_name()]
    if parsed.get_backend_name() == "sqlite":
        _copy_sqlite(Path(parsed.database or ""), file)
    else:
        _run("pg_dump", parsed, "--format=custom", "--no-owner", "--no-privileges", f"--file={file}")
    file.chmod(PRIVATE)
    return file


def load_database(file: Path, url: str) -> None:
    """Bring a copy into the database of a URL, which must be empty.

    Raises:
        ConfigurationError: it holds tables, or the copy is of the other engine.
        BackupFailed: the copy cannot be brought back; the database is empty then.
        DatabaseUnavailable: the server is away.
    """
    parsed = parse_url(url)
    engine = parsed.get_backend_name()
    if file.name != DUMPS[engine]:
        raise ConfigurationError(
            f"{file.name} is no copy of a {engine} database; restore it into a database of its own kind"
        )
    if engine == "sqlite":
        target = Path(parsed.database or "")
        _refuse_remains(target)
        private_folder(target.resolve().parent)
        with atomic_file(target, mode=PRIVATE) as unfinished:
            shutil.copyfile(file, unfinished)
        return
    _check_empty(parsed)
    _run(
        "pg_restore",
        parsed,
        "--no-owner",
        "--no-privileges",
        "--exit-on-error",
        "--single-transaction",
        str(file),
    )


def _refuse_remains(target: Path) -> None:
    """Refuse what is left of a database: SQLite would play the log of an old one into the file that is brought back.

    Raises:
        ConfigurationError: names the file.
    """
    for part in ("", "-wal", "-journal", "-shm"):
        file = target.with_name(target.name + part)
        if file.exists():
            raise ConfigurationError(
                f"{file} exists; a backup is restored into an empty database only. Move the old files away"
            )


def _copy_sqlite(source: Path, file: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as from_,
            closing(sqlite3.connect(file)) as into,
        ):
            from_.backup(into)
            # in one file, whatever the mode of the source: a backup has no -wal beside it
            into.execute("PRAGMA journal_mode=DELETE")
            [found] = into.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        raise BackupFailed(f"{source} cannot be copied: {error}") from error
    if found != "ok":
        raise BackupFailed(f"the copy of {source} is damaged, and so is the database: {str(found)[:300]}")


def _check_empty(url: URL) -> None:
    engine = make_engine(url)
    try:
        with database_errors(mask_url(url)), engine.connect() as connection:
            tables = inspect(connection).get_table_names()
    finally:
        engine.dispose()
    if tables:
        raise ConfigurationError(
            f"the database holds {len(tables)} tables ({tables[0]}, ...); a backup is restored into an empty database only"
        )


def _run(program: str, url: URL, *words: str) -> None:
    """Run a program of PostgreSQL; the password goes through its environment, where other users cannot read it."""
    found = shutil.which(program)
    if found is None:
        raise BackupFailed(
            f"{program} is not installed; it comes with PostgreSQL's client (Debian: postgresql-client)"
        )
    password = url.password or url.query.get("password")
    # `URL.set` leaves a password where it is told None.
    bare = url.set(drivername="postgresql")._replace(password=None).difference_update_query(["password"])
    address, mark, query = bare.render_as_string(hide_password=False).partition("?")
    # A space, which the programs of PostgreSQL read in this form only.
    plain = address + mark + query.replace("+", "%20")
    secret = {} if password is None else {"PGPASSWORD": str(password)}
    done = subprocess.run(
        [found, *words, f"--dbname={plain}"],
        env=os.environ
        | secret,  # the program's own variables (PGSSLROOTCERT and the like) are the operator's
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BackupFailed(f"{program} ended with code {done.returncode}: {done.stderr.strip()[-600:]}")
