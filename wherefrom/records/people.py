"""People as the other records name them."""

from enum import StrEnum

from wherefrom.records.flagged import Frozen


class Via(StrEnum):
    """How it is known who somebody is; stored beside what they judged."""

    #: An API key came with the request.
    KEY = "key"
    #: A session that began with an API key.
    SESSION = "session"
    #: A name that was chosen on a machine that asks for no keys: it proves nothing.
    LOCAL = "local"


class PersonRef(Frozen):
    """Somebody, by number and name."""

    person_id: int
    name: str
