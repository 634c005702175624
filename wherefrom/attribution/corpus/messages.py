"""Reads the turns of a conversation, however a corpus writes them, and the text of their content.

A message is `{role, content}` or `{from, value}`. Roles have many names; content may be text, null, or a list of parts that are text. What else a message carries
stays with its turn, for the chat template; only what says whether training trained on it is kept apart (`training`).
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from wherefrom.attribution.corpus.storable import check_storable
from wherefrom.errors import InvalidRecord
from wherefrom.records import Role, Turn
from wherefrom.records.explain import first_problem

_ROLE_KEYS = ("role", "from", "speaker", "author")
_CONTENT_KEYS = ("content", "value", "text", "message")
#: Role of a message that is a call of a tool, written as JSON.
_CALL = "call"
ROLES: Mapping[str, str] = {
    "system": Role.SYSTEM.value,
    "developer": "developer",
    **dict.fromkeys(("user", "human", "prompter"), Role.USER.value),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bot", "model", "ai", "chatbot", "bing", "bard", "claude"),
        Role.ASSISTANT.value,
    ),
    **dict.fromkeys(
        ("tool", "function", "observation", "ipython", "tool_response", "function_response", "tool_result"),
        Role.TOOL.value,
    ),
    **dict.fromkeys(("function_call", "tool_call"), _CALL),
}
#: Keys of a message that say whether training trained on it; see `training`.
FLAGS = frozenset(
    {
        "weight",
        "loss_weight",
        "loss_scale",
        "train",
        "training",
        "trainable",
        "learn",
        "loss",
        "loss_mask",
        "mask",
        "masked",
    }
)
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")


@dataclass(frozen=True)
class Said:
    """One turn with what its message says about training."""

    turn: Turn
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by_assistant(self) -> bool:
        """Whether the model said it."""
        return self.turn.role == Role.ASSISTANT

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to explain: no text, no call, no reasoning."""
        return not self.turn.content.strip() and not self.turn.model_extra


def decoded(value: Any) -> Any:
    """A list or an object that a table cell holds as text (JSON, or as Python prints it); everything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def is_message(value: Any) -> bool:
    """Whether a value looks like one message."""
    return isinstance(value, Mapping) and any(key in value for key in _ROLE_KEYS)


def read_messages(value: Any, *, name: str) -> list[Said]:
    """The turns of a list of messages.

    Raises:
        InvalidRecord: it is no such list, or a message cannot be read; the text says which and why.
    """
    listed = decoded(value)
    if isinstance(listed, Mapping):
        listed = [listed]
    if not isinstance(listed, list | tuple) or not listed:
        raise InvalidRecord(f"`{name}` must be a non-empty list of {{role, content}}")
    found = []
    for place, message in enumerate(listed, start=1):
        try:
            found.append(_said(message))
        except InvalidRecord as error:
            raise InvalidRecord(f"message {place} of `{name}`: {error}") from error
    return found


def said(role: Role, content: Any, *, column: str) -> Said:
    """A turn from a column of text.

    Raises:
        InvalidRecord: the value is no text.
    """
    if not isinstance(content, str):
        kind = "missing" if content is None else type(content).__name__
        raise InvalidRecord(f"field `{column}` must be a string, it is {kind}")
    check_storable(content, column)
    return Said(_turn(role.value, content, {}))


def alternating(values: Sequence[str]) -> list[Said]:
    """Turns of plain texts: the user begins, the assistant answers."""
    roles = (Role.USER, Role.ASSISTANT)
    return [said(roles[place % 2], text, column="turns") for place, text in enumerate(values)]


def _said(message: Any) -> Said:
    if not isinstance(message, Mapping):
        raise InvalidRecord("each message needs `role` and `content`, this one is not an object")
    role_key = next((key for key in _ROLE_KEYS if message.get(key) is not None), None)
    content_key = next((key for key in _CONTENT_KEYS if key in message), None)
    rest = {
        key: value
        for key, value in message.items()
        if key not in {role_key, content_key, *_ROLE_KEYS} and key not in FLAGS and value not in (None, [])
    }
    calls = _calls(rest)
    if role_key is None or (content_key is None and not rest and not calls):
        raise InvalidRecord(
            f"each message needs `role` and `content` (or `from` and `value`), this one has {columns(message)}"
        )
    content, more = text_of(message.get(content_key) if content_key else None)
    role = _role(message[role_key])
    if role == _CALL:
        role, content, calls = Role.ASSISTANT.value, *_written_call(content)
    extras = {**rest, **more, **({"tool_calls": calls} if calls else {})}
    return Said(_turn(role, content, extras), {key: message[key] for key in FLAGS & message.keys()})


def _turn(role: str, content: str, extras: Mapping[str, Any]) -> Turn:
    try:
        return Turn.model_validate({**extras, "role": role, "content": content})
    except ValidationError as error:
        place, what = first_problem(error)
        raise InvalidRecord(f"message field `{place}`: {what}") from error


def _role(value: Any) -> str:
    if isinstance(value, Mapping):  # the author of a message in an export
        value = value.get("role")
    known = ROLES.get(str(value).strip().lower())
    if known is None:
        raise InvalidRecord(
            f"message field `role`: {str(value)[:40]!r} is not known; use system, user, assistant or tool"
        )
    return known


def _calls(rest: dict[str, Any]) -> list[Any]:
    """Calls of tools, taken out of a message's fields; the old `function_call` becomes one."""
    listed, old = decoded(rest.pop("tool_calls", None)), decoded(rest.pop("function_call", None))
    calls = [listed] if isinstance(listed, Mapping) else list(listed) if isinstance(listed, list) else []
    return [*calls, *([{"type": "function", "function": old}] if isinstance(old, Mapping) else [])]


def _written_call(content: str) -> tuple[str, list[Any]]:
    """A call that stands as JSON in the content; other text stays text."""
    call = decoded(content)
    listed = call if isinstance(call, list) else [call]
    if not listed or not all(isinstance(one, Mapping) and "name" in one for one in listed):
        return content, []
    return "", [{"type": "function", "function": dict(one)} for one in listed]


def text_of(content: Any) -> tuple[str, dict[str, Any]]:
    """The text of a message's content, and fields that its parts stand for.

    Raises:
        InvalidRecord: a part is no text.
    """
    if content is None:
        return "", {}
    if isinstance(content, str):
        return content, {}
    if isinstance(content, Mapping):
        content = content.get("parts", [content])
    if not isinstance(content, list | tuple):
        raise InvalidRecord(f"message field `content`: must be text, it is {type(content).__name__}")
    texts, fields = [], {}
    for part in content:
        if (
            isinstance(part, Mapping)
            and part.get("type") == "thinking"
            and isinstance(part.get("thinking"), str)
        ):
            fields["reasoning_content"] = part["thinking"]
        else:
            texts.append(_part(part))
    return "".join(texts), fields


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if isinstance(part, Mapping) and kind in _TEXT_PARTS:
        text = part.get("refusal" if kind == "refusal" else "text")
        if isinstance(text, str):
            return text
    raise InvalidRecord(
        f"message field `content`: holds a part of type {str(kind)[:40]!r}; only text can be explained; skip such rows with --skip-bad"
    )


def columns(row: Mapping[str, Any]) -> str:
    """Names of what a row or a message has, for an error."""
    names = [f"`{str(name)[:40]}`" for name, value in row.items() if value is not None]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"
