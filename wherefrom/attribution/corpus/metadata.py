"""What a row carries beside its conversation: id, source, further fields, and what the chat template reads (tools, documents).

None of it stops a build for its kind: empty is absent, 3.0 is 3, an object becomes text. Only what no database can hold is refused.
"""

import json
from collections.abc import Mapping
from typing import Any

from wherefrom.attribution.corpus.messages import decoded

#: Fields of a row with a meaning; all others are kept in `fields`.
KNOWN_FIELDS = frozenset({"id", "source", "prompt", "completion", "messages", "text"})
TOOL_COLUMNS = ("tools", "functions")
#: What `apply_chat_template` takes itself and no row may set.
_RESERVED = frozenset(
    {
        "conversation",
        "messages",
        "chat_template",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
    }
)


def name_text(value: Any) -> str | None:
    """An id or a source as text; None where the row has none."""
    if value is None or value == "" or value != value:  # noqa: PLR0124 - a table's NaN is an absent value
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def context_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the chat template reads beside the turns."""
    context: dict[str, Any] = {}
    more = decoded(row.get("chat_template_kwargs"))
    if isinstance(more, Mapping):
        context |= {
            name: value for name, value in more.items() if name not in _RESERVED and value is not None
        }
    tools = next((found for name in TOOL_COLUMNS if (found := _objects(row.get(name)))), None)
    if tools:
        context["tools"] = [_tool(one) for one in tools]
    documents = _objects(row.get("documents"))
    if documents:
        context["documents"] = documents
    return context


def _objects(value: Any) -> list[dict[str, Any]]:
    listed = decoded(value)
    if isinstance(listed, list) and listed and all(isinstance(decoded(one), dict) for one in listed):
        return [decoded(one) for one in listed]
    return []


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as templates read it; the old `functions` lack the wrapping."""
    if "name" in tool and "function" not in tool and "type" not in tool:
        return {"type": "function", "function": tool}
    return tool
