"""Producers: who flags outputs. One producer may hold many API keys, so that a key can be rotated.

Idempotency keys are unique per producer. The names under which the service itself stores records are reserved: a key that bore
one would share its idempotency keys with the service's own entry points.
"""

import unicodedata

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from db.models import Person, Producer
from wherefrom.errors import ConfigurationError

#: Producer of what is sent without a key, on loopback.
LOCAL = "local"
#: Producer of what comes over the Redis stream.
STREAM = "stream"
#: Names that no key and no producer gets; compared folded (case, width and other compatible forms of letters).
RESERVED = frozenset(
    {
        LOCAL, STREAM, "anonymous", "cli", "client", "http", "intake", "internal", "localhost", "loopback", "none", "operator",
        "redis", "replay", "service", "sweeper", "system", "task", "unknown", "web", "wherefrom", "worker",
    }
)  # fmt: skip
#: Longest name, characters; the columns hold no more.
LONGEST_NAME = 200


def folded(name: str) -> str:
    """The name as it is compared: compatible letters made one, case and outer spaces taken away."""
    compatible = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", compatible).strip()


def is_reserved(name: str) -> bool:
    """Whether the service uses the name itself, in whatever case or form of letters it is written."""
    return folded(name) in RESERVED


def checked_name(name: str, *, what: str) -> str:
    """The name in composed letters (NFC).

    Args:
        name: As the operator wrote it.
        what: What gets the name, for the text of an error.

    Raises:
        ConfigurationError: it is empty, too long or reserved, begins or ends with a space, or holds invisible characters.
    """
    composed = unicodedata.normalize("NFC", name)
    if not folded(composed):
        raise ConfigurationError(f"{what} needs a name")
    if len(composed) > LONGEST_NAME:
        raise ConfigurationError(
            f"the name of {what} has {len(composed)} characters; take at most {LONGEST_NAME}"
        )
    if not composed.isprintable() or composed != composed.strip():
        raise ConfigurationError(
            f"the name {name!r} of {what} contains invisible characters; use letters, digits and `-`"
        )
    if is_reserved(composed):
        raise ConfigurationError(f"the service uses the name {name!r} itself; give {what} another one")
    return composed


def ensure_producer(session: Session, name: str) -> int:
    """The id of the producer of this name, which is made where it is missing.

    Raises:
        ConfigurationError: the name cannot be used, or differs from a producer's name only in case or form of letters.
    """
    return ensure_named(session, Producer, name, what="producer")


def ensure_named(session: Session, table: type[Producer | Person], name: str, *, what: str) -> int:
    """The id of the row of this name, which is made where it is missing.

    Args:
        session: Where to read and write.
        table: Producers or people.
        name: As the operator wrote it.
        what: What the table holds, for the text of an error.

    Raises:
        ConfigurationError: the name cannot be used, or differs from one that is there only in case or form of letters.
    """
    known: dict[str, int] = {row.name: row.id for row in session.execute(select(table.name, table.id))}
    if name in known:
        return known[name]
    composed = checked_name(name, what=f"a {what}")
    twins = [one for one in known if folded(one) == folded(composed)]
    if composed in known:
        return known[composed]
    if twins:
        raise ConfigurationError(
            f"the {what} {twins[0]!r} already exists; use that exact name or choose another one"
        )
    made: int | None = session.scalar(insert(table).values(name=composed).returning(table.id))
    if made is None:
        raise RuntimeError(f"the database returned no id for the new {what}")
    return made
