"""How long things may be. Every text and every sequence of a record has a bound; these are the numbers."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from pydantic import Field

T = TypeVar("T")

#: Names of producers, models, reasons and labels; ids and sources of new corpora.
MAX_SHORT_CHARS: Final = 200
#: Ids and sources of training examples in a database; bundles of earlier releases have longer ones. So long a text fits every
#: index of both databases, also in four-byte characters.
MAX_STORED_NAME_CHARS: Final = 500

#: Any text. Requests and stream entries are smaller (`body_limit_bytes`); a training example may be a book.
MAX_TEXT_CHARS: Final = 2**26
#: Messages before one completion, and ranges of one completion.
MAX_MESSAGES: Final = 10_000
MAX_SPANS: Final = 10_000
#: Tokens of one completion, and the largest token id.
MAX_TOKEN_IDS: Final = 2**20
MAX_TOKEN_ID: Final = 2**31 - 1
#: Outputs of one group, and acceptable answers that they are held against.
MAX_MEMBERS: Final = 256
#: Near-duplicates of a training example that a citation names.
MAX_ALIKE: Final = 20
#: Bytes of the similarity vector of an output.
MAX_VECTOR_BYTES: Final = 512
#: Training examples of one group whose effect is measured, and characters of an id or a source's name.
MAX_GROUP: Final = 10_000
MAX_SOURCE: Final = 500
#: Labels of one record.
MAX_LABELS: Final = 50
#: Fields of one object of a record; more are not even looked at.
MAX_FIELDS: Final = 64
#: Items of a sequence, and fields of an object, that wherefrom itself made and reads again.
MAX_ITEMS: Final = 1_000_000

#: A sequence that wherefrom itself made.
Items: TypeAlias = Annotated[tuple[T, ...], Field(max_length=MAX_ITEMS)]
#: An object with further details, made by wherefrom or kept from a corpus.
Details: TypeAlias = Annotated[dict[str, Any], Field(max_length=MAX_ITEMS)]

#: Hexadecimal digits that stand for the rest of a name.
_DIGEST_CHARS = 14


def shortened(name: str, *, longest: int) -> str:
    """A name of at most `longest` characters; a longer one is cut and ends in a hash, so that it stays the only one."""
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]
    return f"{name[: longest - _DIGEST_CHARS - 4]}... {digest}"


def few_fields(value: Any, *, most: int = MAX_FIELDS) -> Any:
    """Let an object with a sensible number of fields pass: each unknown one would become a problem of its own.

    Raises:
        ValueError: it has more.
    """
    if isinstance(value, Mapping) and len(value) > most:
        raise ValueError(f"has {len(value)} fields; at most {most} are checked")
    return value
