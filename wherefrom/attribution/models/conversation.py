"""Renders a conversation of which training trained several turns: one row of tokens with several explained ranges.

The text is the one that the chat template makes of the whole conversation, as training saw it. Each trained turn is found in it: it begins where the prompt before it
ends, and ends with its end-of-turn token. Templates that write an earlier turn otherwise than the last one (they drop its reasoning) are met by looking for the
turn's words. A row over the limit is cut: first its end, and of the prompt before the first trained turn at most so much that this turn keeps half of the row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherefrom.attribution.models.chat import ChatText, RowText, reasoning_apart
from wherefrom.attribution.models.ranges import Range
from wherefrom.attribution.models.render import Renderer, TokenRow
from wherefrom.errors import EmptyCompletion, TemplateNotPrefix, TemplateRefused
from wherefrom.records import Turn


@dataclass(frozen=True)
class Talk:
    """A conversation up to its last trained turn."""

    #: All turns; the last one is trained.
    turns: tuple[Turn, ...]
    #: Places of the trained turns, ascending.
    trained: tuple[int, ...]
    #: What the template reads beside the turns.
    context: Mapping[str, Any]
    #: Names the row in errors.
    name: str


@dataclass(frozen=True)
class Stretch:
    """Characters of one trained turn in the rendered text."""

    #: Place of the turn.
    turn: int
    start: int
    end: int
    #: Whether the end-of-turn token stands behind `end`.
    open: bool = False


@dataclass(frozen=True)
class RenderedTalk:
    """A conversation as tokens."""

    row: TokenRow
    #: The rendered text and where the trained turns stand in it.
    text: str
    stretches: tuple[Stretch, ...]
    #: Characters of the rendered text, one range per explained token; None where the tokenizer does not tell them.
    characters: tuple[Range, ...] | None


def render_talk(renderer: Renderer, talk: Talk, *, max_tokens: int) -> RenderedTalk:
    """Tokens of a conversation.

    Raises:
        TemplateRefused: the template raised an error, or leaves a trained turn out.
        NoChatTemplate: the model has no chat template.
        EmptyCompletion: no token is left to explain.
        UnusableModel: the model has no embedding for a token.
    """
    text, stretches = find_stretches(renderer.chat, talk)
    ids, offsets = renderer.encode(text, name=talk.name)
    tokens = [_tokens_of(renderer, text, ids, one) for one in stretches]
    ids = ids[: tokens[-1][1]]
    flags = [False] * len(ids)
    for start, end in tokens:
        flags[start:end] = [True] * (end - start)
    lead = renderer.start_ids if flags and flags[0] else []
    if flags and flags[0] and not lead:
        flags[0] = False  # nothing predicts a row's first token
    ids, flags = [*lead, *ids], [*([False] * len(lead)), *flags]
    placed = [(0, 0)] * len(lead) + list(offsets or [])
    if not any(flags):
        raise EmptyCompletion(f"{talk.name}: the completion has no token to explain")
    start = flags.index(True)
    first, last = _window(len(ids), start, max_tokens)
    row = TokenRow(
        tuple(ids[first:last]), start - first, tuple(flags[start:last]), truncated=last - first < len(ids)
    )
    kept = [placed[place] for place in range(start, last) if flags[place]] if offsets is not None else None
    return RenderedTalk(row, text, tuple(stretches), None if kept is None else tuple(kept))


def _window(length: int, start: int, limit: int) -> Range:
    """Which tokens of a row are kept."""
    if length <= limit:
        return 0, length
    first = max(0, min(start - (limit - limit // 2), length - limit))
    return first, first + limit


def _tokens_of(renderer: Renderer, text: str, ids: Sequence[int], one: Stretch) -> Range:
    """First and last token (excluded) of a stretch, its end-of-turn token included and what the template writes behind that left out."""
    start = renderer.place_in_tokens(text, ids, one.start)
    end = renderer.place_in_tokens(text, ids, one.end) if one.end < len(text) else len(ids)
    if one.open:
        return start, end + 1 if end < len(ids) and ids[end] in renderer.end_ids else end
    ends = [place for place in range(start, end) if ids[place] in renderer.end_ids]
    return start, ends[-1] + 1 if ends else end


def find_stretches(chat: ChatText, talk: Talk) -> tuple[str, list[Stretch]]:
    """The rendered text of a conversation and its trained turns in it, in order; calls that the template leaves out have no stretch.

    Raises:
        TemplateRefused: the template raised an error, or leaves a trained turn out.
        TemplateNotPrefix: the rendered prompt is not the beginning of the rendered row.
        NoChatTemplate: the model has no chat template.
    """
    *earlier, last = talk.trained
    whole = _answered(chat, talk, last)
    if not whole.whole.startswith(whole.prompt):
        raise TemplateNotPrefix(
            f"{talk.name}: the rendered row does not begin with the rendered prompt; use a chat template whose generation prompt begins an assistant turn"
        )
    found: list[Stretch] = []
    for place in earlier:
        behind = found[-1].end if found else 0
        answered = _answered(chat, talk, place) if place else None
        stretch = _stretch(whole.whole, talk.turns[place], place, answered=answered, behind=behind)
        if stretch is None:
            raise TemplateRefused(
                f"{talk.name}: the chat template leaves the text of message {place + 1} out of the rendered row, so the model never saw it. "
                "Pass the template used in training (--chat-template), or explain the last turn alone (--turns last)"
            )
        found.append(stretch)
    found.append(Stretch(last, len(whole.prompt), len(whole.whole)))
    said = [one for one in found if _says_something(talk.turns[one.turn], whole.whole[one.start : one.end])]
    if not said:
        raise TemplateRefused(
            f"{talk.name}: the chat template leaves the tool calls out of the rendered row, so the model never saw them. "
            "Pass the template used in training (--chat-template)"
        )
    return whole.whole, said


def _says_something(turn: Turn, text: str) -> bool:
    """Whether anything of a turn is in its rendered text; templates without tools leave calls out."""
    return bool(turn.content.strip()) or own_words(turn) in text


def _answered(chat: ChatText, talk: Talk, place: int) -> RowText:
    """The conversation up to one trained turn."""
    turn = talk.turns[place]
    return chat.row(
        talk.turns[:place],
        turn.content,
        plain=False,
        context=talk.context,
        name=talk.name,
        extras=turn.model_extra or {},
    )


def _stretch(text: str, turn: Turn, place: int, *, answered: RowText | None, behind: int) -> Stretch | None:
    """Where a turn stands that is not the last one; None where the template left it out."""
    start = behind
    if answered is not None and text.startswith(answered.prompt):
        start = max(behind, len(answered.prompt))
        if text.startswith(answered.whole):
            return Stretch(place, start, len(answered.whole))
    words = own_words(turn)
    first = text.find(words, start) if words else -1
    if first < 0:
        return None
    if answered is None or not text.startswith(answered.prompt):
        start = first
    return Stretch(place, start, first + len(words), open=True)


def own_words(turn: Turn) -> str:
    """The words of a turn that every template keeps: those behind its reasoning, or the name of what it calls."""
    words = reasoning_apart(turn.content)[-1]
    if words:
        return words
    calls = (turn.model_extra or {}).get("tool_calls") or [{}]
    function = calls[-1].get("function", calls[-1])
    return str(function.get("name", ""))
