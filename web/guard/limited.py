"""What a key that is limited to producers, models or queues may ask for at all.

Its statements read only what is within the limit (`db.sight`). Some answers are made of what is kept over everything: blame of sources,
findings, fix lists, comparisons of bundles, the trail. Within a limit they would be empty or wrong, so they are refused. A route that does
not stand here is refused too.
"""

from db.access.keys import Scope
from web.guard.caller import Caller
from wherefrom.errors import BeyondLimits

#: Answers that hold within a limit, by method and path of their route.
WITHIN = frozenset(
    {
        ("GET", "/"),
        ("GET", "/audits/{audit_id}"),
        ("GET", "/audits/{audit_id}/text"),
        ("GET", "/audits/{audit_id}/compare/{other_audit_id}"),
        ("GET", "/examples"),
        ("GET", "/examples/{training_example_id}"),
        ("GET", "/examples/{training_example_id}/text"),
        ("GET", "/bundles"),
        ("GET", "/bundles/{name}"),
        ("GET", "/export"),
        ("GET", "/queue"),
        ("GET", "/views/{view_id}"),
        ("GET", "/review"),
        ("GET", "/review/{queue_id}"),
        ("GET", "/review/{queue_id}/items/{item_id}"),
        ("GET", "/v1/audits"),
        ("GET", "/v1/audits.csv"),
        ("GET", "/v1/audits.jsonl"),
        ("GET", "/v1/audits/{audit_id}"),
        ("GET", "/v1/audits/{audit_id}/comparison/{other_audit_id}"),
        ("GET", "/v1/audits/{audit_id}/hypotheticals"),
        ("GET", "/v1/audits/{audit_id}/reviews"),
        ("GET", "/v1/bundles"),
        ("GET", "/v1/examples"),
        ("GET", "/v1/examples/search"),
        ("GET", "/v1/examples/{training_example_id}"),
        ("GET", "/v1/examples/{training_example_id}/cited-by"),
        ("GET", "/v1/export.jsonl"),
        ("GET", "/v1/export.zip"),
        ("GET", "/v1/group-measurements/{measurement_id}"),
        ("GET", "/v1/listing"),
        ("GET", "/v1/measurements/{measurement_id}"),
        ("GET", "/v1/people"),
        ("GET", "/v1/queue"),
        ("GET", "/v1/report.html"),
        ("GET", "/v1/review-queues"),
        ("GET", "/v1/review-queues/{queue_id}/items"),
        ("GET", "/v1/review-queues/{queue_id}/items/{item_id}"),
        ("GET", "/v1/review-queues/{queue_id}/people"),
        ("GET", "/v1/verdicts.jsonl"),
        ("GET", "/v1/views"),
        ("POST", "/audits/{audit_id}/citations/{rank}/measure"),
        ("POST", "/audits/{audit_id}/hypotheticals"),
        ("POST", "/audits/{audit_id}/measure"),
        ("POST", "/audits/{audit_id}/reviews"),
        ("POST", "/review/{queue_id}/items/{item_id}/blind/{training_example_id}"),
        ("POST", "/review/{queue_id}/next"),
        ("POST", "/reviews/{review_id}/undo"),
        ("POST", "/sign-out"),
        ("POST", "/v1/audits/{audit_id}/citations/{rank}/measure"),
        ("POST", "/v1/audits/{audit_id}/hypotheticals"),
        ("POST", "/v1/audits/{audit_id}/measure"),
        ("POST", "/v1/audits/{audit_id}/reviews"),
        ("POST", "/v1/flagged"),
        ("POST", "/v1/review-queues/{queue_id}/items/{item_id}/blind/{training_example_id}"),
        ("POST", "/v1/review-queues/{queue_id}/next"),
        ("POST", "/v1/reviews/{review_id}/undo"),
        ("POST", "/v1/views"),
        ("POST", "/views"),
        ("POST", "/views/{view_id}/delete"),
        ("DELETE", "/v1/views/{view_id}"),
    }
)


def is_within(caller: Caller, method: str, route: str) -> bool:
    """Whether a route answers within the limits of a key."""
    wanted = "GET" if method == "HEAD" else method
    return not caller.limits.given or (wanted, route) in WITHIN


def check_within(caller: Caller, method: str, route: str) -> None:
    """Refuse what cannot be answered within the limits of a key.

    Raises:
        BeyondLimits: the route speaks of everything.
    """
    if not is_within(caller, method, route):
        raise BeyondLimits(
            f"the API key {caller.name!r} is limited, and this answer would speak of everything; ask with a key without limits"
        )


def check_sends(caller: Caller, models: set[str]) -> None:
    """Refuse outputs that a limited key may not send.

    Raises:
        BeyondLimits: one is of another model.
    """
    allowed = caller.limits.models
    if allowed and (others := models - set(allowed)):
        raise BeyondLimits(
            f"the API key {caller.name!r} sends outputs of {', '.join(allowed)} only, not of {min(others)!r}; nothing was stored"
        )


def sees_statements(scope: Scope | None) -> bool:
    """Whether the limit is put under the statements of a request: sending an output reads none but that output."""
    return scope is not Scope.INGEST
