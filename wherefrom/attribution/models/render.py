"""Turns a chat into tokens by the tokenizer's own chat template, and says which tokens are the completion.

The rendering of the prompt with the generation prompt must be a token prefix of the rendering of the whole row. The row is
cut after its last end-of-turn token (templates add white space behind it). A row of plain text has no prompt: every token
that has a predecessor counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wherefrom.attribution.interface import OverLong
from wherefrom.attribution.models.ranges import Range, clipped_ranges, decoded_ranges
from wherefrom.errors import EmptyCompletion, InvalidRecord, OutputTooLong, TemplateNotPrefix, UnusableModel
from wherefrom.records import Span, Turn

#: Stands for any prompt where only the completion's tokens matter.
_SHORT_CHAT = [{"role": "user", "content": "?"}]


@dataclass(frozen=True)
class TokenRow:
    """Tokens of one row; the completion (with its end-of-turn token) starts at `start`."""

    ids: tuple[int, ...]
    start: int
    #: Whether each completion token is to be explained, one flag per token from `start` on.
    explained: tuple[bool, ...]
    truncated: bool = False

    @property
    def completion_tokens(self) -> int:
        """Number of completion tokens, the end-of-turn token included."""
        return len(self.ids) - self.start


class Renderer:
    """Renders rows with one tokenizer."""

    def __init__(self, tokenizer: Any, *, end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = end_ids

    @cached_property
    def _bos(self) -> list[int]:
        return [] if self._tokenizer.bos_token_id is None else [self._tokenizer.bos_token_id]

    def render(
        self,
        turns: Sequence[Turn],
        completion: str,
        *,
        max_tokens: int,
        over_long: OverLong,
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
            spans: characters of `completion` to be explained; all where empty.
            token_ids: the completion's own tokens, where the producer has them.
            context: what the template reads beside the turns (`tools`, `documents`, ...).
            name: names the row in errors.

        Raises:
            TemplateNotPrefix, EmptyCompletion, OutputTooLong, InvalidRecord, UnusableModel: see `wherefrom.errors`.
        """
        prompt, answer = self._split(turns, completion, name, context or {})
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
                raise EmptyCompletion(f"{name}: the spans lie behind the token limit of {max_tokens}")
        return TokenRow(tuple(prompt + answer), len(prompt), tuple(flags), truncated)

    def _split(
        self, turns: Sequence[Turn], completion: str, name: str, context: Mapping[str, Any]
    ) -> tuple[list[int], list[int]]:
        if not turns:
            return self._behind_start(self._encode(completion))
        if self._tokenizer.chat_template is None:
            raise UnusableModel(
                "the tokenizer has no chat template, so rows with a prompt cannot be rendered; use `text` rows"
            )
        chat = [turn.for_template() for turn in turns]
        prompt_text = self._template(chat, name, add_generation_prompt=True, context=context)
        whole_text = self._template(
            [*chat, {"role": "assistant", "content": completion}],
            name,
            add_generation_prompt=False,
            context=context,
        )
        prompt, whole = self._encode(prompt_text), self._encode(whole_text)
        if whole[: len(prompt)] != prompt and whole_text.startswith(prompt_text):
            # a completion that begins with white space melts into the prompt's last token; sampled tokens follow the prompt's own
            whole = prompt + self._encode(whole_text[len(prompt_text) :])
        if whole[: len(prompt)] != prompt:
            raise TemplateNotPrefix(
                f"{name}: the rendered prompt ({len(prompt)} tokens) is no token prefix of the rendered row; "
                "use a chat template whose generation prompt is the beginning of an assistant turn"
            )
        answer = whole[len(prompt) :]
        ends = [index for index, token in enumerate(answer) if token in self._end_ids]
        return prompt, answer[: ends[-1] + 1] if ends else answer

    def _behind_start(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """Plain text has no prompt: what stands before its first explained token is BOS, or else its own first token."""
        return (self._bos, ids) if self._bos else (ids[:1], ids[1:])

    def _check_ids(self, token_ids: Sequence[int], name: str) -> None:
        wrong = next((token for token in token_ids if not 0 <= token < len(self._tokenizer)), None)
        if wrong is not None:
            raise InvalidRecord(
                f"{name}: token id {wrong} is none of the tokenizer's {len(self._tokenizer)}; send the ids of the audited model"
            )

    def _template(
        self,
        chat: Sequence[dict[str, Any]],
        name: str,
        *,
        add_generation_prompt: bool,
        context: Mapping[str, Any] | None = None,
    ) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(chat), tokenize=False, add_generation_prompt=add_generation_prompt, **(context or {})
            )
        except Exception as error:
            raise UnusableModel(f"{name}: the chat template failed: {type(error).__name__}") from error
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

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
        found = [
            self._own(completion, chat=chat)[1]
            for chat in kinds
            if not chat or self._tokenizer.chat_template is not None
        ]
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
        asked, opening = self._opening if chat else ("", 0)
        whole = self._chat_text(completion) if chat else completion
        encoded = self._tokenizer(
            whole, add_special_tokens=False, return_offsets_mapping=self._tokenizer.is_fast
        )
        ids: list[int] = encoded["input_ids"]
        ends = [index for index, token in enumerate(ids) if token in self._end_ids and index >= opening]
        last = ends[-1] + 1 if ends and chat else len(ids)
        first = opening + self._leads(chat=chat)
        start = _place_of(completion, whole, behind=len(asked))
        if start is None or not self._tokenizer.is_fast:
            lead = ids[opening:first]
            return ids[first:last], decoded_ranges(
                self._decode, ids[first:last], lead=lead, limit=len(completion)
            )
        offsets = encoded["offset_mapping"][first:last]
        return ids[first:last], clipped_ranges(offsets, start=start, length=len(completion))

    @cached_property
    def _opening(self) -> tuple[str, int]:
        """A short rendered prompt and its number of tokens."""
        text = self._template(_SHORT_CHAT, "short prompt", add_generation_prompt=True)
        return text, len(self._encode(text))

    def _chat_text(self, completion: str) -> str:
        chat = [*_SHORT_CHAT, {"role": "assistant", "content": completion}]
        return self._template(chat, "short prompt", add_generation_prompt=False)

    def _leads(self, *, chat: bool) -> bool:
        """Whether the row's first token, which nothing predicts, belongs to the completion."""
        return not self._bos and (not chat or not self._opening[1])

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _place_of(completion: str, whole: str, *, behind: int) -> int | None:
    """Where the completion begins in the rendered text; templates may strip its ends. None where they changed it."""
    found = whole.find(completion, behind)
    if found >= 0:
        return found
    found = whole.find(completion.strip(), behind)
    return found - (len(completion) - len(completion.lstrip())) if found >= 0 else None
