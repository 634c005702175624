"""Who sent a request, and what they may do."""

from dataclasses import dataclass

from db.access.budgets import Budget
from db.access.keys import KeyInfo, Scope
from db.access.producers import LOCAL
from db.audit_trail.trail import LOCAL_ACTOR
from db.sight import NO_LIMITS, Limits, Sight
from wherefrom.records import PersonRef, Via


@dataclass(frozen=True)
class Caller:
    """Who sent a request."""

    #: Name of the API key, or `local`.
    name: str
    #: Whose key it is: its records and idempotency keys stand under this name.
    producer: str
    #: Values of `Scope`.
    scopes: frozenset[str]
    #: Who judges; None for a program, and where nobody has chosen a name.
    person: PersonRef | None
    via: Via
    #: What the tokens of their forms are bound to.
    seed: str
    #: Prefix of the key, or of the key that the session began with; None without one.
    key: str | None = None
    #: Which outputs they may see and send.
    limits: Limits = NO_LIMITS
    #: How much they may do; None where nothing is bounded.
    budget: Budget | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the key or the session has the scope."""
        wide = {Scope.ADMIN, Scope.READ} if scope is Scope.METRICS else {Scope.ADMIN}
        return not self.scopes.isdisjoint({scope, *wide})

    @property
    def proven(self) -> bool:
        """A key, and not only a chosen name, says who they are."""
        return self.via is not Via.LOCAL

    @property
    def actor(self) -> str:
        """Who acts, as the trail names them: by id, never by name."""
        if self.person is not None:
            return f"person:{self.person.person_id}"
        return LOCAL_ACTOR if self.key is None else f"api_key:{self.key}"

    @property
    def sight(self) -> Sight | None:
        """What their statements may read; None where that is everything."""
        if not self.limits.given:
            return None
        return Sight(self.limits, None if self.person is None else self.person.person_id)

    @property
    def is_admin(self) -> bool:
        """Whether they may look after keys."""
        return self.may(Scope.ADMIN)

    @property
    def sees_all(self) -> bool:
        """Not only what stands in their queues and assignments."""
        return self.may(Scope.READ)


#: Whoever is on this machine, where no key is asked for: they may do everything, under no name.
NOBODY = Caller(LOCAL, LOCAL, frozenset(scope.value for scope in Scope), None, Via.LOCAL, LOCAL)


def caller_of_key(info: KeyInfo, *, via: Via, seed: str) -> Caller:
    """Who stands behind a key."""
    person = None
    if info.person is not None and info.person_id is not None:
        person = PersonRef(person_id=info.person_id, name=info.person)
    return Caller(
        name=info.name,
        producer=info.producer,
        scopes=frozenset(info.scopes),
        person=person,
        via=via,
        seed=seed,
        key=info.prefix,
        limits=info.limits,
        budget=Budget(info.key_id, info.quotas) if info.quotas.given else None,
    )
