"""Turns rows into tokens and says which tokens are the completion; their text is written by `chat`.

The rendering of the prompt must be a token prefix of the rendering of the whole row. The row is cut after its last end-of-turn
token (templates add white space behind it). A row of plain text has no prompt: every token that has a predecessor counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wherefrom.attribution.interface import OverLong
from wherefrom.attribution.models.chat import ChatText, RowText
from wherefrom.attribution.models.ranges import Range, clipped_ranges, decoded_ranges
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.errors import EmptyCompletion, InvalidRecord, OutputTooLong, TemplateNotPrefix, UnusableModel
from wherefrom.records import Message, Role, Span, Turn

#: Stands for any prompt where only the completion's tokens matter.
_SHORT_PROMPT = (Message(role=Role.USER, content="?"),)


@dataclass(frozen=True)
class TokenRow:
    """Tokens of one row; the first completion (with its end-of-turn token) starts at `start`.

    A training example may hold several trained turns: the turns between them are not explained, and training does not train on them.
    """

    ids: tuple[int, ...]
    start: int
    #: Whether each token from `start` on is to be explained.
    explained: tuple[bool, ...]
    truncated: bool = False

    @property
    def completion_tokens(self) -> int:
        """Number of tokens from the first completion on, end-of-turn tokens and turns between completions included."""
        return len(self.ids) - self.start

    @property
    def explained_tokens(self) -> int:
        """Number of tokens to be explained."""
        return sum(self.explained)


class Renderer:
    """Renders rows with one tokenizer.

    Args:
        tokenizer: the model's.
        end_ids: tokens that end a turn.
        embeddings: tokens that the model has embeddings for; None where that is not known.
        rule: what the bundle uses beside the tokenizer's own chat template.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        end_ids: frozenset[int],
        embeddings: int | None = None,
        rule: RenderingRule | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._embeddings = embeddings
        self._rule = rule or RenderingRule()
        self._chat = ChatText(tokenizer, self._rule)

    def with_rule(self, rule: RenderingRule) -> "Renderer":
        """The same tokenizer under another rule."""
        return Renderer(self._tokenizer, end_ids=self._end_ids, embeddings=self._embeddings, rule=rule)

    @property
    def chat(self) -> ChatText:
        """Writes rows as text."""
        return self._chat

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a turn."""
        return self._end_ids

    @property
    def has_template(self) -> bool:
        """Whether messages can be rendered: there is a chat template."""
        return self._chat.has_template

    @property
    def ends_text(self) -> bool:
        """Whether the tokenizer has a token that ends a text."""
        return self._tokenizer.eos_token_id is not None

    @cached_property
    def _bos(self) -> list[int]:
        return [] if self._tokenizer.bos_token_id is None else [self._tokenizer.bos_token_id]

    @cached_property
    def _own_bos(self) -> list[int]:
        """BOS where the tokenizer itself writes it before a text."""
        return self._bos if self._bos and self._tokenizer("a")["input_ids"][:1] == self._bos else []

    def render(  # noqa: PLR0913 - one keyword for each thing that a row may carry
        self,
        turns: Sequence[Turn],
        completion: str,
        *,
        max_tokens: int,
        over_long: OverLong,
        plain: bool = False,
        spans: Sequence[Span] = (),
        token_ids: Sequence[int] | None = None,
        context: Mapping[str, Any] | None = None,
        name: str = "row",
    ) -> TokenRow:
        """Tokens of prompt and completion.

        Args:
            turns: the turns before the completion; empty for plain text.
            completion: what the model answered, without template tokens.
            max_tokens: limit of the row; the completion keeps at least half of it when a row is cut.
            over_long: whether a row over the limit is cut with a mark or refused.
            plain: whether the prompt came as one text, not as messages.
            spans: characters of `completion` to be explained; all where empty.
            token_ids: the completion's own tokens, where the producer has them.
            context: what the template reads beside the turns (`tools`, `documents`, ...).
            name: names the row in errors.

        Raises:
            TemplateNotPrefix, EmptyCompletion, OutputTooLong, InvalidRecord, UnusableModel: see `wherefrom.errors`.
        """
        prompt, answer = self._split(turns, completion, plain=plain, context=context or {}, name=name)
        if token_ids is not None:
            self._check_ids(token_ids, name)
            end = [token for token in answer[-1:] if token in self._end_ids]
            answer = [*token_ids, *(end if not token_ids or token_ids[-1] not in self._end_ids else [])]
            if not turns:
                prompt, answer = self._behind_start(answer)
        if not prompt:  # a template without any mark before the completion: nothing predicts its first token
            prompt, answer = self._behind_start(answer)
        if not answer:
            raise EmptyCompletion(f"{name}: the completion has no token to explain")
        self._check_embedded(prompt + answer, name)
        flags = (
            self._flags(completion, spans, answer, prompt=prompt, chat=bool(turns), name=name)
            if spans
            else [True] * len(answer)
        )
        truncated = len(prompt) + len(answer) > max_tokens
        if truncated:
            if over_long == "reject":
                raise OutputTooLong(f"{name}: {len(prompt) + len(answer)} tokens, the limit is {max_tokens}")
            kept = min(len(answer), max(max_tokens // 2, max_tokens - len(prompt)))
            answer, flags = answer[:kept], flags[:kept]
            prompt = prompt[-(max_tokens - kept) :]
            if not any(flags):
                raise EmptyCompletion(f"{name}: the spans lie beyond the token limit of {max_tokens}")
        return TokenRow(tuple(prompt + answer), len(prompt), tuple(flags), truncated)

    def _split(
        self,
        turns: Sequence[Turn],
        completion: str,
        *,
        plain: bool,
        context: Mapping[str, Any],
        name: str,
    ) -> tuple[list[int], list[int]]:
        if not turns:
            return self._behind_start(self._encode(completion))
        text = self._chat.row(turns, completion, plain=plain, context=context, name=name)
        prompt, whole = self._encode(text.prompt), self._encode(text.whole)
        if whole[: len(prompt)] != prompt and text.whole.startswith(text.prompt):
            # a completion that begins with white space melts into the prompt's last token; sampled tokens follow the prompt's own
            whole = prompt + self._encode(text.whole[len(text.prompt) :])
        if whole[: len(prompt)] != prompt:
            raise TemplateNotPrefix(
                f"{name}: the rendered prompt ({len(prompt)} tokens) is not a token prefix of the rendered row; "
                "use a chat template whose generation prompt begins an assistant turn"
            )
        answer = whole[len(prompt) :]
        if text.joined:
            return self._own_bos + prompt, answer + self._join_end
        ends = [index for index, token in enumerate(answer) if token in self._end_ids]
        return prompt, answer[: ends[-1] + 1] if ends else answer

    @cached_property
    def _join_end(self) -> list[int]:
        """What stands behind a joined prompt and completion."""
        return [self._tokenizer.eos_token_id] if self._rule.join_ends and self.ends_text else []

    def _behind_start(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """Plain text has no prompt: what stands before its first explained token is BOS, or else its own first token."""
        return (self._bos, ids) if self._bos else (ids[:1], ids[1:])

    def _check_ids(self, token_ids: Sequence[int], name: str) -> None:
        wrong = next((token for token in token_ids if not 0 <= token < len(self._tokenizer)), None)
        if wrong is not None:
            raise InvalidRecord(
                f"{name}: token id {wrong} is not one of the tokenizer's {len(self._tokenizer)}; send token ids of the audited model"
            )

    def _check_embedded(self, ids: Sequence[int], name: str) -> None:
        largest = max(ids)
        if self._embeddings is not None and largest >= self._embeddings:
            raise UnusableModel(
                f"{name}: token id {largest}, but the model has {self._embeddings} embeddings; the tokenizer does not belong to these weights"
            )

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def encode(self, text: str, *, name: str) -> tuple[list[int], list[Range] | None]:
        """Tokens of a rendered text, and their characters where the tokenizer tells them.

        Raises:
            UnusableModel: the model has no embedding for one of them.
        """
        encoded = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=self._tokenizer.is_fast
        )
        ids: list[int] = encoded["input_ids"]
        self._check_embedded(ids, name)
        return ids, [tuple(one) for one in encoded["offset_mapping"]] if self._tokenizer.is_fast else None

    def place_in_tokens(self, text: str, ids: Sequence[int], character: int) -> int:
        """The first of a text's tokens that does not lie wholly before a character."""
        before = self._encode(text[:character])
        return next(
            (place for place, (one, other) in enumerate(zip(before, ids, strict=False)) if one != other),
            min(len(before), len(ids)),
        )

    @property
    def start_ids(self) -> list[int]:
        """What stands before a text whose first token is explained too: BOS, where there is one."""
        return self._bos

    def ranges(self, completion: str, row: TokenRow, *, chat: bool) -> list[Range]:
        """Characters of `completion` that each completion token of a rendered row stands for, one range per token from `start` on.

        Args:
            completion: the text that was rendered.
            row: as `render` gave it.
            chat: whether there were turns before the completion.
        """
        return self._aligned(completion, row.ids[row.start :], prompt=row.ids[: row.start], chat=chat)

    def ranges_of_example(self, prompt: str, completion: str, count: int) -> list[Range] | None:
        """Characters of the first `count` completion tokens of a training example whose tokens were not kept.

        The example is rendered again behind a short prompt, since the completion's tokens do not depend on the prompt's. None where that
        does not give so many tokens.
        """
        kinds = [True] if prompt else [False, True]  # plain text has no prompt; a chat may have an empty one
        found = [self._own(completion, chat=chat)[1] for chat in kinds]
        fitting = [ranges for ranges in found if len(ranges) >= count]  # more: the example was cut
        return min(fitting, key=len)[:count] if fitting else None

    def _flags(
        self,
        completion: str,
        spans: Sequence[Span],
        answer: list[int],
        *,
        prompt: list[int],
        chat: bool,
        name: str,
    ) -> list[bool]:
        """Which answer tokens touch a span."""
        ranges = self._aligned(completion, answer, prompt=prompt, chat=chat)
        flags = [any(start < span.end and end > span.start for span in spans) for start, end in ranges]
        if not any(flags):
            raise EmptyCompletion(f"{name}: no completion token lies in the given spans")
        return flags

    def _aligned(
        self, completion: str, answer: Sequence[int], *, prompt: Sequence[int], chat: bool
    ) -> list[Range]:
        """Ranges of answer tokens: the tokenizer's where these are its tokens, decoded ones where a producer sent others."""
        own, ranges = self._own(completion, chat=chat)
        if own[: len(answer)] == list(answer):
            return ranges[: len(answer)]
        lead = prompt if self._leads(chat=chat) else ()
        return decoded_ranges(self._decode, answer, lead=lead, limit=len(completion))

    def _own(self, completion: str, *, chat: bool) -> tuple[list[int], list[Range]]:
        """The tokenizer's completion tokens behind a short prompt and their ranges."""
        text = self._short(completion) if chat else RowText("", completion)
        whole, opening = text.whole, len(self._encode(text.prompt))
        encoded = self._tokenizer(
            whole, add_special_tokens=False, return_offsets_mapping=self._tokenizer.is_fast
        )
        ids: list[int] = encoded["input_ids"]
        ends = [index for index, token in enumerate(ids) if token in self._end_ids and index >= opening]
        if text.joined:
            ids = [*ids, *self._join_end]
        last = ends[-1] + 1 if ends and chat and not text.joined else len(ids)
        first = opening + self._leads(chat=chat)
        start = _place_of(completion, whole, behind=len(text.prompt))
        if start is None or not self._tokenizer.is_fast:
            lead = ids[opening:first]
            return ids[first:last], decoded_ranges(
                self._decode, ids[first:last], lead=lead, limit=len(completion)
            )
        offsets = [*encoded["offset_mapping"], *[(len(whole),) * 2] * (len(ids) - len(encoded["input_ids"]))]
        offsets = offsets[first:last]
        return ids[first:last], clipped_ranges(offsets, start=start, length=len(completion))

    def _short(self, completion: str) -> RowText:
        """The completion behind a short prompt."""
        return self._chat.row(_SHORT_PROMPT, completion, plain=True, context={}, name="short prompt")

    def _leads(self, *, chat: bool) -> bool:
        """Whether the row's first token, which nothing predicts, belongs to the completion."""
        return not self._bos and (not chat or self._opens_bare)

    @cached_property
    def _opens_bare(self) -> bool:
        """Whether the chat template writes no token before a completion."""
        return not self._encode(self._short(_SHORT_PROMPT[0].content).prompt)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _place_of(completion: str, whole: str, *, behind: int) -> int | None:
    """Where the completion begins in the rendered text; templates may strip its ends. None where they changed it.

    A tag at its beginning that the prompt ends with stands before `behind`.
    """
    found = whole.find(completion, behind)
    if found >= 0:
        return found
    own = completion.strip()
    found = whole.find(own, behind)
    if found < 0:
        found = whole.find(own, max(0, behind - len(own) + 1))
    return found - (len(completion) - len(completion.lstrip())) if found >= 0 else None
