"""Keys of the digests that the trail keeps of texts: one per item, destroyed with the item's text.

A plain digest of a short text can be tried out: whoever guesses the text knows that it was right. With a random key of its own a digest
proves what a text was for as long as the key is there, and is noise afterwards. The chain does not change when a key is destroyed.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.models import ItemKey
from db.statements import insert_rows
from db.storing.examples import CHUNK

KEY_BYTES = 32


def new_digests(session: Session, digests: Mapping[str, str]) -> dict[str, str]:
    """Make a key for each new item, and the keyed digest of its content; one statement.

    Args:
        session: The transaction that stores the items.
        digests: SHA-256 of the content of each item, by ``table:id``.

    Returns:
        What the trail may keep, by ``table:id``.
    """
    keys = {subject: secrets.token_bytes(KEY_BYTES) for subject in digests}
    if keys:
        rows = [{"subject": subject, "key": key} for subject, key in sorted(keys.items())]
        session.execute(insert_rows(ItemKey), rows)
    return {subject: keyed_digest(keys[subject], digest) for subject, digest in digests.items()}


def keyed_digest(key: bytes, digest: str) -> str:
    """HMAC-SHA-256 of a content's SHA-256, as hexadecimal text."""
    return hmac.digest(key, digest.encode(), hashlib.sha256).hex()


def kept_digests(session: Session, digests: Mapping[str, str]) -> dict[str, str]:
    """The keyed digest of each item that has a key, from the SHA-256 of its content; both by ``table:id``."""
    found: dict[str, str] = {}
    wanted = sorted(digests)
    for start in range(0, len(wanted), CHUNK):
        keys = select(ItemKey.subject, ItemKey.key).where(ItemKey.subject.in_(wanted[start : start + CHUNK]))
        for subject, key in session.execute(keys):
            found[subject] = keyed_digest(key, digests[subject])
    return found


def digest_is_of(session: Session, subject: str, *, kept: str, digest: str) -> bool | None:
    """Whether what the trail keeps of an item is of the content with this SHA-256; None where its key was destroyed."""
    key = session.scalar(select(ItemKey.key).where(ItemKey.subject == subject))
    return None if key is None else hmac.compare_digest(kept, keyed_digest(key, digest))


def destroy_keys(session: Session, subjects: Iterable[str]) -> int:
    """Destroy the keys of items whose texts are erased in this transaction; how many there were."""
    wanted, gone = sorted(set(subjects)), 0
    for start in range(0, len(wanted), CHUNK):
        some = wanted[start : start + CHUNK]
        statement = delete(ItemKey).where(ItemKey.subject.in_(some)).returning(ItemKey.subject)
        gone += len(session.scalars(statement.execution_options(synchronize_session=False)).all())
    return gone
