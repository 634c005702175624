"""The formats people keep training rows in: each gives its turns, its completion, and leaves the rest as fields."""

import hashlib
import json
from typing import Any

import pytest

from wherefrom.attribution.corpus import ReadAs, Turns, parse_row

USER = {"role": "user", "content": "q"}
BOT = {"role": "assistant", "content": "a"}
CALL = {"type": "function", "function": {"name": "stock", "arguments": '{"item": "kettle"}'}}


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": content, **more}


#: Row, the turns before the completion as "role: content", the completion.
ROWS: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "chat": ({"messages": [USER, BOT]}, ["user: q"], "a"),
    "chat as text": ({"messages": json.dumps([USER, BOT])}, ["user: q"], "a"),
    "chat as Python prints it": ({"messages": str([USER, BOT])}, ["user: q"], "a"),
    "developer": ({"messages": [turn("developer", "d"), USER, BOT]}, ["developer: d", "user: q"], "a"),
    "capital role": ({"messages": [turn("User", "q"), turn("Assistant", "a")]}, ["user: q"], "a"),
    "parts of text": (
        {
            "messages": [
                turn("user", [{"type": "text", "text": "q"}, {"type": "input_text", "text": "r"}]),
                BOT,
            ]
        },
        ["user: qr"],
        "a",
    ),
    "messages and completion": ({"messages": [USER], "completion": "a"}, ["user: q"], "a"),
    "conversation": ({"conversation": [USER, BOT]}, ["user: q"], "a"),
    "ends with the user": ({"messages": [USER, BOT, turn("user", "thanks")]}, ["user: q"], "a"),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        ["user: q"],
        "a",
    ),
    "sharegpt with roles": ({"conversations": [USER, BOT]}, ["user: q"], "a"),
    "sharegpt with a system column": (
        {"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        ["system: s", "user: q"],
        "a",
    ),
    "dialog of texts": ({"dialog": ["q", "a", "r", "b"]}, ["user: q", "assistant: a", "user: r"], "b"),
    "pairs": (
        {"conversation": [{"system": "s", "input": "q", "output": "a"}, {"human": "r", "assistant": "b"}]},
        ["system: s", "user: q", "assistant: a", "user: r"],
        "b",
    ),
    "alpaca": ({"instruction": "i", "input": "x", "output": "o"}, ["user: i\nx"], "o"),
    "alpaca, input null": ({"instruction": "i", "input": None, "output": "o"}, ["user: i"], "o"),
    "alpaca with history": (
        {"instruction": "i", "input": "", "output": "o", "history": [["q", "a"]], "system": "s"},
        ["system: s", "user: q", "assistant: a", "user: i"],
        "o",
    ),
    "dolly": ({"instruction": "i", "context": "x", "response": "o"}, ["user: i\nx"], "o"),
    "trl": ({"prompt": [USER], "completion": [BOT]}, ["user: q"], "a"),
    "trl, one message": ({"prompt": [USER], "completion": BOT}, ["user: q"], "a"),
    "prompt of messages as text": ({"prompt": json.dumps([USER]), "completion": "a"}, ["user: q"], "a"),
    "system column": ({"system": "s", "prompt": "q", "completion": "a"}, ["system: s", "user: q"], "a"),
    "system column, system turn": (
        {"system": "s", "messages": [turn("system", "t"), USER, BOT]},
        ["system: t", "user: q"],
        "a",
    ),
    "prompt and response": ({"prompt": "q", "response": "a"}, ["user: q"], "a"),
    "question and answer": ({"question": "q", "answer": "a"}, ["user: q"], "a"),
    "query and response": ({"query": "q", "response": "a"}, ["user: q"], "a"),
    "input and output": ({"input": "q", "output": "a"}, ["user: q"], "a"),
    "problem and solution": ({"problem": "q", "solution": "a"}, ["user: q"], "a"),
    "kto": ({"prompt": "q", "completion": "a", "label": False}, ["user: q"], "a"),
    "dpo": ({"prompt": "q", "chosen": "a", "rejected": "b"}, ["user: q"], "a"),
    "dpo, question": ({"question": "q", "chosen": "a", "rejected": "b"}, ["user: q"], "a"),
    "dpo of messages": (
        {"prompt": [USER], "chosen": [BOT], "rejected": [turn("assistant", "b")]},
        ["user: q"],
        "a",
    ),
    "dpo, prompt inside": (
        {"chosen": [USER, BOT], "rejected": [USER, turn("assistant", "b")]},
        ["user: q"],
        "a",
    ),
    "dpo, prompt beside and inside": (
        {"prompt": "q", "chosen": [USER, BOT], "rejected": [USER]},
        ["user: q"],
        "a",
    ),
    "dpo of sharegpt": (
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {},
        },
        ["user: q"],
        "a",
    ),
    "dpo of OpenAI": (
        {"input": {"messages": [USER]}, "preferred_output": [BOT], "non_preferred_output": [BOT]},
        ["user: q"],
        "a",
    ),
    "transcript": (
        {"chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: b", "rejected": "x"},
        ["user: q", "assistant: a", "user: r"],
        "b",
    ),
    "text": ({"text": "t"}, [], "t"),
    "content": ({"content": "t"}, [], "t"),
    "chosen text alone": ({"chosen": "t", "rejected": "u"}, [], "t"),
}


@pytest.mark.parametrize("name", ROWS)
def test_format(name: str) -> None:
    """The turns before the last completion, and the completion."""
    content, turns, completion = ROWS[name]
    row = parse_row(content, default_id="x")
    assert [f"{one.role}: {one.content}" for one in row.turns] == turns
    assert row.completion == completion


def test_unused_columns_stay() -> None:
    """What no format used is a field; a rejected answer and a label are kept."""
    row = parse_row({"prompt": "q", "chosen": "a", "rejected": "b", "label": True, "x": None}, default_id="x")
    assert row.fields == {"rejected": "b", "label": True, "x": None}
    assert parse_row(ROWS["alpaca"][0], default_id="x").fields == {}


#: Row, and what the template gets: places of turns with their further fields, fields of the completion, context.
CARRIED: dict[str, tuple[dict[str, Any], dict[int, Any], dict[str, Any], dict[str, Any]]] = {
    "calls of tools": (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                turn("tool", "3", tool_call_id="k"),
                BOT,
            ],
            "tools": [{"type": "function", "function": {"name": "stock"}}],
        },
        {1: {"tool_calls": [CALL]}, 2: {"tool_call_id": "k"}},
        {},
        {"tools": [{"type": "function", "function": {"name": "stock"}}]},
    ),
    "a call is the completion": (
        {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]},
        {},
        {"tool_calls": [CALL]},
        {},
    ),
    "old calls": (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "function_call": CALL["function"]},
                turn("function", "3", name="stock"),
                BOT,
            ],
            "functions": [{"name": "stock"}],
        },
        {1: {"tool_calls": [CALL]}, 2: {"name": "stock"}},
        {},
        {"tools": [{"type": "function", "function": {"name": "stock"}}]},
    ),
    "calls of ShareGPT": (
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": json.dumps(CALL["function"])},
                {"from": "observation", "value": "3"},
                {"from": "gpt", "value": "a"},
            ],
            "tools": json.dumps([{"name": "stock"}]),
        },
        {1: {"tool_calls": [CALL]}},
        {},
        {"tools": [{"type": "function", "function": {"name": "stock"}}]},
    ),
    "reasoning": (
        {"messages": [USER, {**BOT, "reasoning_content": "hm"}]},
        {},
        {"reasoning_content": "hm"},
        {},
    ),
    "thinking parts": (
        {
            "messages": [
                USER,
                turn("assistant", [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]),
            ]
        },
        {},
        {"reasoning_content": "hm"},
        {},
    ),
    "documents and arguments": (
        {
            "prompt": "q",
            "completion": "a",
            "documents": [{"text": "d"}],
            "chat_template_kwargs": {"enable_thinking": False, "tokenize": True},
        },
        {},
        {},
        {"enable_thinking": False, "documents": [{"text": "d"}]},
    ),
    "empty calls": ({"messages": [USER, {**BOT, "tool_calls": [], "name": None}]}, {}, {}, {}),
}


@pytest.mark.parametrize("name", CARRIED)
def test_what_a_template_renders_is_carried(name: str) -> None:
    """Calls, reasoning, names, tools and documents reach the row; null and empty ones do not."""
    content, turns, completion, context = CARRIED[name]
    row = parse_row(content, default_id="x", how=ReadAs(turns=Turns.LAST))
    assert {place: one.model_extra for place, one in enumerate(row.turns) if one.model_extra} == turns
    assert row.extras == completion
    assert row.context == context


def test_what_a_template_renders_is_part_of_the_hash() -> None:
    """Rows that differ only in tools or calls are two texts; rows without them keep the hash that they always had."""
    plain = {"messages": [USER, BOT]}
    rows = [plain, {**plain, "tools": [{"name": "t"}]}, {"messages": [USER, {**BOT, "tool_calls": [CALL]}]}]
    hashes = [parse_row(one, default_id="x").text_sha256() for one in rows]
    assert len(set(hashes)) == 3
    assert hashes[0] == hashlib.sha256(b"user\x1fq\x1ea").hexdigest()


def test_calls_and_reasoning_are_shown() -> None:
    """An auditor reads what was called and thought, not an empty completion."""
    row = parse_row(
        {"messages": [USER, {**BOT, "tool_calls": [CALL], "reasoning_content": "hm"}]}, default_id="x"
    )
    assert row.as_example(0).completion == 'hm\na\nstock({"item": "kettle"})'
    prompt = parse_row(
        {"messages": [USER, {**BOT, "content": "", "tool_calls": [CALL]}, turn("tool", "3"), BOT]},
        default_id="x",
        how=ReadAs(turns=Turns.LAST),
    )
    assert prompt.as_example(0).prompt == 'q\nstock({"item": "kettle"})\n3'
