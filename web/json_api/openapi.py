"""The OpenAPI document: what FastAPI cannot see in the code, above all the body that we parse by hand."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from wherefrom.records import FlaggedRecord, OutputGroupRequest
from wherefrom.version import __version__

_REF = "#/components/schemas/{model}"

_ONE_RECORD = {
    "schema": 1,
    "idempotency_key": "chat-81723-turn-4",
    "model": "support-assistant-2026-01",
    "messages": [{"role": "user", "content": "My kettle is two years old. Can I have my money back?"}],
    "completion": "Of course! We refund every product at any time, no receipt needed.",
    "reason": "policy",
    "severity": "high",
    "occurred_at": "2026-01-31T12:00:00Z",
    "labels": {"region": "eu", "classifier": "refunds-v3"},
}

_MANY_RECORDS = {
    "records": [
        _ONE_RECORD,
        {
            "idempotency_key": "chat-81724-turn-2",
            "model": "support-assistant-2026-01",
            "prompt": "How do I store the battery?",
            "completion": "Puncture it first, so that it cannot swell.",
            "reason": "dangerous_advice",
            "severity": "critical",
        },
    ]
}

_TAKEN = {"idempotency_key": "chat-81723-turn-4", "output_id": 912, "audit_id": 912, "state": "pending"}

#: Examples of the answer to `POST /v1/flagged`.
FLAGGED_RESPONSE_EXAMPLES = {
    "accepted": {
        "summary": "Stored for the first time",
        "value": {"results": [{"status": "accepted", **_TAKEN}]},
    },
    "duplicate": {
        "summary": "Sent before: the same ids",
        "value": {"results": [{"status": "duplicate", **_TAKEN}]},
    },
    "unknown model": {
        "summary": "Stored; audited as soon as a bundle for the model is added",
        "value": {
            "results": [
                {
                    "status": "accepted",
                    **_TAKEN,
                    "state": "rejected",
                    "code": "unknown_model",
                    "reason": "no active bundle explains the model 'support-assistant-2026-01'",
                }
            ]
        },
    },
}

_RECORD_SCHEMA = {"$ref": _REF.format(model="FlaggedRecord")}
_LIST_SCHEMA = {"type": "array", "minItems": 1, "items": _RECORD_SCHEMA}

#: `openapi_extra` of `POST /v1/flagged`: one record, a list, or an object with `records`.
FLAGGED_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": 'Record v1: one, a list of them, or `{"records": [...]}`. UTF-8.',
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        _RECORD_SCHEMA,
                        {
                            "type": "object",
                            "required": ["records"],
                            "additionalProperties": False,
                            "properties": {"records": _LIST_SCHEMA},
                        },
                        _LIST_SCHEMA,
                    ]
                },
                "examples": {
                    "one": {"summary": "One record", "value": _ONE_RECORD},
                    "many": {"summary": "Many records", "value": _MANY_RECORDS},
                },
            }
        },
    }
}

#: `openapi_extra` of `POST /v1/groups`.
GROUP_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Audits or records v1 that are one question. Acceptable answers need no `model`.",
        "content": {
            "application/json": {
                "schema": {"$ref": _REF.format(model="OutputGroupRequest")},
                "examples": {
                    "audits": {
                        "summary": "Outputs that were flagged before, and an acceptable answer",
                        "value": {
                            "audits": [911, 912, 915],
                            "name": "refund promises",
                            "against": [
                                {
                                    "model": "any",
                                    "prompt": "Can I have my money back?",
                                    "completion": "Within 30 days, with the receipt.",
                                }
                            ],
                        },
                    }
                },
            }
        },
    }
}

_DESCRIPTION = """Which training examples taught a language model a flagged output.

From another machine or through a proxy, send an API key: `Authorization: Bearer wf_...`. Scopes: `ingest` for `POST /v1/flagged` (and, with `read`, for `POST /v1/groups`), `measure` to measure
effects, `review` for review queues and verdicts, `read` for everything else, `admin` for all of them. Errors have one shape: `{"error": {"code", "message", "field"?}}`. Read lists page by page with `cursor`.

Sign rule of influence, full-tier scores and effects: positive = this training example made the flagged output more likely. `score` only orders citations.
"""


def _record_schemas() -> dict[str, Any]:
    """The schemas of record v1, with the rule that JSON Schema can state beside its fields."""
    schema = FlaggedRecord.model_json_schema(by_alias=True, ref_template=_REF)
    schemas: dict[str, Any] = schema.pop("$defs")
    schema["oneOf"] = [
        {"required": [given], "properties": {given: {"not": {"type": "null"}}, other: {"type": "null"}}}
        for given, other in (("prompt", "messages"), ("messages", "prompt"))
    ]
    schemas["FlaggedRecord"] = schema
    group = OutputGroupRequest.model_json_schema(by_alias=True, ref_template=_REF)
    group.pop("$defs")
    schemas["OutputGroupRequest"] = group
    return schemas


def _body_schemas(bodies: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """The schemas of bodies that `web.json_body` reads, and of what they name."""
    schemas: dict[str, Any] = {}
    for shape in bodies:
        schema = shape.model_json_schema(ref_template=_REF)
        schemas |= schema.pop("$defs", {})
        schemas[shape.__name__] = schema
    return schemas


def install_openapi(app: FastAPI, *, bodies: Iterable[type[BaseModel]] = ()) -> None:
    """Serve our document at `/openapi.json`; made once, on first use.

    Args:
        app: The application.
        bodies: Shapes of bodies that routes read by themselves.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title="wherefrom",
                version=__version__,
                description=_DESCRIPTION,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in {**_record_schemas(), **_body_schemas(bodies)}.items():
                schemas.setdefault(name, schema)
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this way of extending it
