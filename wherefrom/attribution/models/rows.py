"""A corpus row as tokens: one prompt and one completion, or a conversation with several trained turns; and which characters its tokens stand for."""

from collections.abc import Sequence
from dataclasses import dataclass

from wherefrom.attribution.corpus.rows import REASONING, CorpusRow, Piece
from wherefrom.attribution.models.conversation import RenderedTalk, Talk, render_talk
from wherefrom.attribution.models.ranges import Range
from wherefrom.attribution.models.render import Renderer, TokenRow
from wherefrom.records import Turn


@dataclass(frozen=True)
class RenderedRow:
    """A training example as tokens."""

    tokens: TokenRow
    #: Characters of the row's `completion_text`, one range per explained token; None where they are found again from the text alone (`Renderer.ranges_of_example`).
    ranges: tuple[Range, ...] | None = None
    #: Assistant turns that are explained.
    turns: int = 1
    #: Fields of the row that the chat template left out of the rendering.
    left_out: frozenset[str] = frozenset()

    def ranges_of(self, read: Sequence[bool]) -> tuple[Range, ...] | None:
        """One range per completion token that is read; None as in `ranges`. A token that is not explained has an empty one behind the last.

        Args:
            read: whether each completion token is read; all explained ones are.
        """
        if self.ranges is None:
            return None
        own = iter(self.ranges)
        found: list[Range] = []
        latest = 0
        for explained, wanted in zip(self.tokens.explained, read, strict=True):
            range_ = next(own) if explained else (latest, latest)
            latest = range_[1]
            found += [range_] if wanted else []
        return tuple(found)


def render_row(renderer: Renderer, row: CorpusRow, *, max_tokens: int, name: str) -> RenderedRow:
    """Tokens of a training example; a row over the limit is cut with a mark.

    Raises:
        PermanentError: the row cannot be rendered; see `Renderer.render` and `conversation.render_talk`.
    """
    if row.is_plain:
        tokens = renderer.render(
            row.turns,
            row.completion,
            max_tokens=max_tokens,
            over_long="truncate",
            plain=row.plain_prompt,
            context=row.context,
            name=name,
        )
        return RenderedRow(tokens, left_out=_left_out_of_prompt(renderer, row, name))
    turns = row.conversation()
    talk = Talk(turns, (*row.trained, len(turns) - 1), row.context, name)
    found = render_talk(renderer, talk, max_tokens=max_tokens)
    return RenderedRow(
        found.row, shown_ranges(found, row), len(found.stretches), _left_out(found.text, turns, row)
    )


def shown_ranges(found: RenderedTalk, row: CorpusRow) -> tuple[Range, ...]:
    """Characters of the row's `completion_text` that each explained token stands for.

    What a template writes has an empty range. Where the tokenizer does not tell its characters all are empty and stand at the end: words can be compared then, tokens not.
    """
    if found.characters is None:
        return ((len(row.completion_text()),) * 2,) * found.row.explained_tokens
    places = _places(found, row.pieces())
    ranges: list[Range] = []
    latest = 0
    for start, end in found.characters:
        range_ = next(
            (
                (piece.start + max(0, start - first), piece.start + min(end - first, len(piece.text)))
                for piece, first in places
                if start < first + len(piece.text) and end > first
            ),
            (latest, latest),
        )
        ranges.append(range_)
        latest = range_[1]
    return tuple(ranges)


def _places(found: RenderedTalk, pieces: Sequence[Piece]) -> list[tuple[Piece, int]]:
    """The pieces that stand in the rendered text, with the character where each begins."""
    placed: list[tuple[Piece, int]] = []
    for stretch in found.stretches:
        behind = stretch.start
        for piece in (one for one in pieces if one.turn == stretch.turn):
            own = piece.text.strip()
            place = found.text.find(own, behind, stretch.end)
            if place >= 0 and own:
                blank = len(piece.text) - len(piece.text.lstrip())
                placed.append((Piece(piece.turn, piece.start + blank, own), place))
                behind = place + len(own)
    return placed


def _left_out(text: str, turns: Sequence[Turn], row: CorpusRow) -> frozenset[str]:
    """Fields that a chat template does not write: calls of tools, the reasoning of the last turn, tools."""
    left = {"tool_calls"} if not all(name in text for turn in turns for name in _called(turn)) else set()
    if any(
        isinstance(row.extras.get(name), str) and row.extras[name].strip() not in text for name in REASONING
    ):
        left.add("reasoning")
    if not all(name in text for name in _tools(row)):
        left.add("tools")
    return frozenset(left)


def _left_out_of_prompt(renderer: Renderer, row: CorpusRow, name: str) -> frozenset[str]:
    """The same for a row of one completion; rendered once more only where there is something to look for."""
    if not row.context.get("tools") and not any(
        (turn.model_extra or {}).get("tool_calls") for turn in row.turns
    ):
        return frozenset()
    text = renderer.chat.row(
        row.turns, row.completion, plain=row.plain_prompt, context=row.context, name=name
    )
    return _left_out(text.whole, row.turns, row)


def _called(turn: Turn) -> list[str]:
    """Names of the functions that a turn calls."""
    calls = (turn.model_extra or {}).get("tool_calls") or []
    return [str(call.get("function", call).get("name", "")) for call in calls if isinstance(call, dict)]


def _tools(row: CorpusRow) -> list[str]:
    """Names of the tools that a row offers."""
    tools = row.context.get("tools") or []
    return [str(tool.get("function", tool).get("name", "")) for tool in tools if isinstance(tool, dict)]
