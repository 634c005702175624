"""How long things may be. Every text and every sequence of a record has a bound; these are the numbers."""

import hashlib
from typing import Final

#: Names of producers, models, reasons and labels; ids and sources of new corpora.
MAX_SHORT_CHARS: Final = 200
#: Ids and sources of training examples in a database; bundles of earlier releases have longer ones. So long a text fits every
#: index of both databases, also in four-byte characters.
MAX_STORED_NAME_CHARS: Final = 500

#: Hexadecimal digits that stand for the rest of a name.
_DIGEST_CHARS = 14


def shortened(name: str, *, longest: int) -> str:
    """A name of at most `longest` characters; a longer one is cut and ends in a hash, so that it stays the only one."""
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]
    return f"{name[: longest - _DIGEST_CHARS - 4]}... {digest}"
