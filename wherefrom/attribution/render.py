"""Turns a chat into tokens by the tokenizer's own chat template, and says which tokens are the completion.

The rendering of the prompt with the generation prompt must be a token prefix of the rendering of the whole row. The row is
cut after its last end-of-turn token (templates add white space behind it). A row of plain text has no prompt: every token
that has a predecessor counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wherefrom.attribution.interface import OverLong
from wherefrom.errors import EmptyCompletion, InvalidRecord, OutputTooLong, TemplateNotPrefix, UnusableModel
from wherefrom.records import Message, Span


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
        turns: Sequence[Message],
        completion: str,
        *,
        max_tokens: int,
        over_long: OverLong,
        spans: Sequence[Span] = (),
        token_ids: Sequence[int] | None = None,
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
            name: names the row in errors.

        Raises:
            TemplateNotPrefix, EmptyCompletion, OutputTooLong, InvalidRecord, UnusableModel: see `wherefrom.errors`.
        """
        prompt, answer = self._split(turns, completion, name)
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
        lead = (
            prompt if not turns and not self._bos else []
        )  # plain text's first token is part of the completion
        flags = (
            self._flags(completion, spans, answer, lead=lead, name=name) if spans else [True] * len(answer)
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

    def _split(self, turns: Sequence[Message], completion: str, name: str) -> tuple[list[int], list[int]]:
        if not turns:
            return self._behind_start(self._encode(completion))
        if self._tokenizer.chat_template is None:
            raise UnusableModel(
                "the tokenizer has no chat template, so rows with a prompt cannot be rendered; use `text` rows"
            )
        chat = [{"role": str(turn.role), "content": turn.content} for turn in turns]
        prompt_text = self._template(chat, name, add_generation_prompt=True)
        whole_text = self._template(
            [*chat, {"role": "assistant", "content": completion}], name, add_generation_prompt=False
        )
        prompt, whole = self._encode(prompt_text), self._encode(whole_text)
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

    def _template(self, chat: list[dict[str, str]], name: str, *, add_generation_prompt: bool) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:
            raise UnusableModel(f"{name}: the chat template failed: {type(error).__name__}") from error
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _flags(
        self, completion: str, spans: Sequence[Span], answer: list[int], *, lead: list[int], name: str
    ) -> list[bool]:
        """Which answer tokens touch a span: tokens are aligned by the lengths of their decoded prefixes."""
        flags: list[bool] = []
        before = self._decoded_until(lead)[0] if lead else 0
        for index in range(len(answer)):
            start, after = self._decoded_until([*lead, *answer[: index + 1]])
            flags.append(any(before < span.end and after > span.start for span in spans))
            before = min(start, len(completion))
        if not any(flags):
            raise EmptyCompletion(f"{name}: no completion token lies in the given spans")
        return flags

    def _decoded_until(self, ids: list[int]) -> tuple[int, int]:
        """Where the next token starts and where these end, in characters; a token may hold a part of a character only."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return len(text) - text.endswith("\ufffd"), len(text)
