"""The formats in which people keep training rows: a table of small functions from a row to its conversation.

A row has the first format of `DIALECTS` that recognises it; a format that was asked for by name reads every row or refuses it. What a format does not use stays a
field of the row.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherefrom.attribution.corpus.messages import (
    Said,
    alternating,
    columns,
    decoded,
    is_message,
    read_messages,
    said,
)
from wherefrom.errors import ConfigurationError, InvalidRecord
from wherefrom.records import Role

Row = Mapping[str, Any]

CONVERSATION_COLUMNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
PROMPT_COLUMNS = ("prompt", "question", "query", "instruction", "input", "problem", "user", "human")
ANSWER_COLUMNS = ("completion", "response", "answer", "output", "solution", "assistant", "target", "reply")
INPUT_COLUMNS = ("input", "context")
TEXT_COLUMNS = ("text", "content")
_CHOSEN = ("chosen", "preferred_output")
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):[ \t]?")


@dataclass(frozen=True)
class Conversation:
    """What a format makes of a row."""

    #: All turns, answers included; empty for plain text.
    turns: tuple[Said, ...]
    #: Columns that were used.
    used: frozenset[str]
    #: Place of the first turn that training may have trained on; those before are prompt.
    first: int = 0
    #: The text of a row without turns.
    text: str | None = None
    #: Whether the prompt is one text, not messages.
    plain: bool = False


@dataclass(frozen=True)
class Dialect:
    """One format."""

    #: How it is asked for.
    name: str
    #: How it is told.
    title: str
    #: The columns that it needs, for an error.
    needs: str
    recognises: Callable[[Row], bool]
    read: Callable[[Row], Conversation]


def dialect_of(row: Row, wanted: str | None) -> Dialect:
    """The format of a row, or the one that was asked for.

    Raises:
        InvalidRecord: the row has none, or not the wanted one; the text says what it has.
    """
    if wanted is not None:
        dialect = named(wanted)
        if not dialect.recognises(row):
            raise InvalidRecord(
                f"not a row of the format {wanted}, which needs {dialect.needs}; this one has {columns(row)}"
            )
        return dialect
    found = next((one for one in DIALECTS if one.recognises(row)), None)
    if found is None:
        raise InvalidRecord(
            "a row needs `messages`, or `prompt` and `completion`, or `text`, or the columns of another known format "
            f"({', '.join(one.name for one in DIALECTS)}); this one has {columns(row)}"
        )
    return found


def named(name: str) -> Dialect:
    """The format of a name.

    Raises:
        ConfigurationError: there is none.
    """
    found = next((one for one in DIALECTS if one.name == name), None)
    if found is None:
        raise ConfigurationError(
            f"--format {name}: unknown format; the formats are {', '.join(one.name for one in DIALECTS)}"
        )
    return found


def _first_of(row: Row, names: Sequence[str]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


def _conversation_column(row: Row, fits: Callable[[Any], bool]) -> str | None:
    for name in CONVERSATION_COLUMNS:
        value = decoded(row.get(name))
        if isinstance(value, list | tuple) and value and fits(value[0]):
            return name
    return None


def _is_chat_message(value: Any) -> bool:
    return is_message(value) and "from" not in value


def _is_sharegpt_message(value: Any) -> bool:
    return is_message(value) and "from" in value


def _is_sharegpt(row: Row) -> bool:
    column = _conversation_column(row, is_message)
    return column == "conversations" or _conversation_column(row, _is_sharegpt_message) is not None


def _is_pair(value: Any) -> bool:
    return isinstance(value, Mapping) and not is_message(value) and _pair(value) is not None


def _pair(row: Row) -> tuple[str, str] | None:
    """A column of prompts and one of answers."""
    answer = _first_of(row, ANSWER_COLUMNS)
    prompt = _first_of(row, [name for name in PROMPT_COLUMNS if name != answer])
    return (prompt, answer) if prompt is not None and answer is not None else None


# chat, sharegpt, turns, pairs: one column holds the conversation


def _is_chat(row: Row) -> bool:
    return row.get("messages") is not None or _conversation_column(row, _is_chat_message) is not None


def _chat(row: Row) -> Conversation:
    column = _conversation_column(row, is_message) or "messages"
    turns = read_messages(row[column], name=column)
    if row.get("completion") is None:
        return Conversation(tuple(turns), frozenset({column}))
    answer = _answer(row["completion"], column="completion")
    return Conversation((*turns, *answer), frozenset({column, "completion"}), first=len(turns))


def _sharegpt(row: Row) -> Conversation:
    column = _conversation_column(row, _is_sharegpt_message) or "conversations"
    return Conversation(tuple(read_messages(row.get(column), name=column)), frozenset({column}))


def _is_turns(row: Row) -> bool:
    column = _conversation_column(row, lambda first: isinstance(first, str))
    return column is not None and len(decoded(row[column])) > 1


def _turns(row: Row) -> Conversation:
    column = _conversation_column(row, lambda first: isinstance(first, str)) or "turns"
    texts = decoded(row[column])
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRecord(f"`{column}` must hold texts only: the user's, the assistant's, and so on")
    return Conversation(tuple(alternating(texts)), frozenset({column}))


def _pairs(row: Row) -> Conversation:
    column = _conversation_column(row, _is_pair) or "conversation"
    turns: list[Said] = []
    for place, one in enumerate(decoded(row[column]), start=1):
        found = _pair(one) if isinstance(one, Mapping) else None
        if found is None:
            raise InvalidRecord(f"entry {place} of `{column}` holds no prompt and answer")
        if isinstance(one.get("system"), str) and one["system"]:
            turns.append(said(Role.SYSTEM, one["system"], column="system"))
        turns += [said(Role.USER, one[found[0]], column=found[0])]
        turns += [said(Role.ASSISTANT, one[found[1]], column=found[1])]
    return Conversation(tuple(turns), frozenset({column}))


# prompt and answer in columns of their own


def _prompt(value: Any, *, column: str) -> list[Said]:
    """The turns of a prompt: text is the user's; a list of messages stands as it is."""
    listed = decoded(value)
    if is_message(listed) or (isinstance(listed, list) and listed and all(is_message(one) for one in listed)):
        return read_messages(listed, name=column)
    if isinstance(value, list):
        return read_messages(value, name=column)
    return [said(Role.USER, value, column=column)]


def _answer(value: Any, *, column: str) -> list[Said]:
    """The turns of an answer: text is the assistant's; messages stand as they are."""
    listed = decoded(value)
    if is_message(listed) or (isinstance(listed, list) and listed and all(is_message(one) for one in listed)):
        return read_messages(listed, name=column)
    if isinstance(value, list):
        return read_messages(value, name=column)
    return [said(Role.ASSISTANT, value, column=column)]


def _is_text(prompt: Sequence[Said], value: Any) -> bool:
    """Whether a prompt is the text of its column."""
    return len(prompt) == 1 and prompt[0].turn.content == value


def _is_prompt_completion(row: Row) -> bool:
    if row.get("completion") is not None:
        return row.get("prompt") is not None or _pair(row) is None
    return row.get("prompt") is not None and _pair(row) is None


def _prompt_completion(row: Row) -> Conversation:
    prompt = _prompt(row.get("prompt"), column="prompt")
    answer = _answer(row.get("completion"), column="completion")
    used, plain = frozenset({"prompt", "completion"}), _is_text(prompt, row["prompt"])
    return Conversation((*prompt, *answer), used, first=len(prompt), plain=plain)


def _is_question_answer(row: Row) -> bool:
    return _pair(row) is not None


def _question_answer(row: Row) -> Conversation:
    asked, answered = _pair(row) or ("question", "answer")
    prompt = _prompt(row[asked], column=asked)
    answer = _answer(row[answered], column=answered)
    used, plain = frozenset({asked, answered}), _is_text(prompt, row[asked])
    return Conversation((*prompt, *answer), used, first=len(prompt), plain=plain)


def _is_alpaca(row: Row) -> bool:
    return row.get("instruction") is not None and _first_of(row, ANSWER_COLUMNS) is not None


def _alpaca(row: Row) -> Conversation:
    """Instruction and input are one user turn, a line each; `history` holds earlier pairs, which are trained on too."""
    answered = _first_of(row, ANSWER_COLUMNS) or "output"
    beside = _first_of(row, INPUT_COLUMNS)
    asked = said(Role.USER, row["instruction"], column="instruction").turn.content
    more = said(Role.USER, row[beside], column=beside).turn.content if beside else ""
    history = decoded(row.get("history")) or []
    if not isinstance(history, list) or not all(isinstance(one, list) and len(one) == 2 for one in history):
        raise InvalidRecord("`history` must be a list of [question, answer]")
    turns = [turn for pair in history for turn in alternating(pair)]
    turns.append(said(Role.USER, f"{asked}\n{more}" if more.strip() else asked, column="instruction"))
    turns += _answer(row[answered], column=answered)
    used = {"instruction", answered} | ({beside} if beside else set()) | ({"history"} if history else set())
    return Conversation(tuple(turns), frozenset(used), plain=not history)


# preference: the chosen answer is the completion


def _preference(row: Row) -> Conversation:
    column = _first_of(row, _CHOSEN) or "chosen"
    chosen, prompt, used = decoded(row[column]), *_prompt_of_preference(row)
    if isinstance(chosen, str):
        return _chosen_text(chosen, prompt, used | {column})
    answer = _answer(chosen, column=column)
    whole = any(not one.by_assistant and one.turn.role != Role.TOOL for one in answer)
    if whole:  # the prompt stands in it too, and once more in `rejected`
        first = _common(answer, row.get("rejected")) or len(answer) - 1
        return Conversation(tuple(answer), frozenset({column}), first=first)
    return Conversation((*prompt, *answer), frozenset(used | {column}), first=len(prompt))


def _prompt_of_preference(row: Row) -> tuple[list[Said], frozenset[str]]:
    """The turns before the chosen answer, from whichever column holds them."""
    given = row.get("input")
    if isinstance(given, Mapping) and given.get("messages") is not None:
        return read_messages(given["messages"], name="input.messages"), frozenset({"input"})
    talk = _conversation_column(row, is_message)
    if row.get("prompt") is None and talk is not None:
        turns = read_messages(row[talk], name=talk)
        while turns and turns[-1].by_assistant:  # some repeat the chosen answer there
            turns.pop()
        return turns, frozenset({talk})
    column = _first_of(row, PROMPT_COLUMNS)
    if column is None:
        return [], frozenset()
    return _prompt(row[column], column=column), frozenset({column})


def _chosen_text(chosen: str, prompt: list[Said], used: frozenset[str]) -> Conversation:
    spoken = transcript(chosen)
    if spoken:
        last = max(place for place, one in enumerate(spoken) if one.by_assistant)
        return Conversation(tuple(spoken), used, first=last)
    if not prompt:
        return Conversation((), used, text=chosen)
    answer = said(Role.ASSISTANT, chosen, column="chosen")
    plain = len(prompt) == 1 and not used & set(CONVERSATION_COLUMNS)
    return Conversation((*prompt, answer), used, first=len(prompt), plain=plain)


def _common(chosen: Sequence[Said], rejected: Any) -> int:
    """Number of turns that the chosen and the rejected conversation begin with; 0 where they cannot be compared."""
    try:
        other = read_messages(rejected, name="rejected")
    except InvalidRecord:
        return 0
    pairs = zip(chosen, other, strict=False)
    shared = next((place for place, (one, two) in enumerate(pairs) if one.turn != two.turn), 0)
    return shared if any(one.by_assistant for one in chosen[shared:]) else 0


def transcript(text: str) -> list[Said]:
    r"""Turns of a text that is written as `\n\nHuman: ...\n\nAssistant: ...`; none where it is not."""
    parts = _TRANSCRIPT.split("\n\n" + text.lstrip("\n") if text.startswith(("Human:", "\nHuman:")) else text)
    if parts[0].strip() or "Assistant" not in parts[1::2]:
        return []
    roles = {"Human": Role.USER, "Assistant": Role.ASSISTANT}
    return [
        said(roles[speaker], words.strip(), column="chosen")
        for speaker, words in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _text(row: Row) -> Conversation:
    column = _first_of(row, TEXT_COLUMNS) or "text"
    text = said(Role.ASSISTANT, row[column], column=column).turn.content
    return Conversation((), frozenset({column}), text=text)


#: In the order in which a row is tried.
DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "preference",
        "preference pairs (the chosen answer is the completion)",
        "`chosen`",
        lambda row: _first_of(row, _CHOSEN) is not None,
        _preference,
    ),
    Dialect(
        "sharegpt",
        "ShareGPT conversations",
        "`conversations` of {from, value}",
        _is_sharegpt,
        _sharegpt,
    ),
    Dialect(
        "pairs",
        "conversations of pairs",
        "`conversation` of {input, output}",
        lambda row: _conversation_column(row, _is_pair) is not None,
        _pairs,
    ),
    Dialect("turns", "lists of turns", "`dialog`, a list of texts", _is_turns, _turns),
    Dialect("chat", "chat messages (OpenAI)", "`messages` of {role, content}", _is_chat, _chat),
    Dialect(
        "prompt-completion",
        "prompt and completion",
        "`prompt` and `completion`",
        _is_prompt_completion,
        _prompt_completion,
    ),
    Dialect("alpaca", "Alpaca instructions", "`instruction` and `output`", _is_alpaca, _alpaca),
    Dialect(
        "question-answer",
        "question and answer",
        "two columns such as `question` and `answer`",
        _is_question_answer,
        _question_answer,
    ),
    Dialect("text", "plain text", "`text`", lambda row: _first_of(row, TEXT_COLUMNS) is not None, _text),
)
