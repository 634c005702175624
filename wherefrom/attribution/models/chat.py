"""The text of a row as the model read it: what it was given, and the whole with its answer.

With a chat template, the prompt ends where the completion begins. That is the end of the rendering with the generation prompt, with three additions for templates that
think:

- What the template itself writes before the completion (an empty think block) belongs to the prompt.
- A generation prompt that opens or closes a think block which the rendered answer lacks: the prompt ends before that block, as it did in training.
- A completion whose reasoning the template drops is written behind the generation prompt as it is, as the model wrote it.

A template that leaves the completion out is refused. One that reads content parts is given content parts. Without a template, prompt and completion are joined by the
bundle's rule. Tokens are made in `render`.
"""

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.errors import NoChatTemplate, TemplateRefused
from wherefrom.records import Role, Turn

#: Text of a completion that no template writes by itself.
_PROBE = "\u00a7 7319"
#: Share of a completion's words that a template must keep; templates trim and replace words.
_KEPT_WORDS = 0.5
#: Words or characters that are compared where the completion is not found as it is.
_COMPARED = 400
_FEW_WORDS, _LONG_WORD = 3, 20
_LONGEST_SENTENCE = 300
#: Shortest text of a chat that counts as repeated.
_TELLING = 6
#: A tag that opens or closes reasoning: <think>, </think>, <|thinking|>, [THINK], <reasoning>, <|START_THINKING|>.
_TAG = r"(?:<[^<>\s]*(?:think|thought|reason)[^<>\s]*>|\[/?THINK\])"
_THINK_TAG = re.compile(_TAG, re.IGNORECASE)
_ENDS_IN_THINK = re.compile(rf"{_TAG}\s*(?:{_TAG}\s*)?$", re.IGNORECASE)


@dataclass(frozen=True)
class RowText:
    """One row as text; `whole` begins with `prompt`, unless the template is one that cannot be used."""

    #: Ends where the completion begins.
    prompt: str
    whole: str
    #: Whether prompt and completion were joined without a template.
    joined: bool = False


@dataclass(frozen=True)
class _Asked:
    """The turns before a completion, as templates read them."""

    chat: list[dict[str, Any]]
    #: What the template reads beside the turns.
    context: Mapping[str, Any]
    #: Names the row in errors.
    name: str
    #: What the answer carries beside its text (`tool_calls`, `reasoning_content`, ...).
    extras: Mapping[str, Any] = field(default_factory=dict)

    def answered(self, completion: str) -> "_Asked":
        """The chat with the answer behind it."""
        answer = {"role": str(Role.ASSISTANT), "content": completion, **self.extras}
        return replace(self, chat=[*self.chat, answer])


class ChatText:
    """Writes rows by one tokenizer's chat template, or joins them where it has none."""

    def __init__(self, tokenizer: Any, rule: RenderingRule) -> None:
        self._tokenizer = tokenizer
        self._rule = rule

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template."""
        return self._rule.chat_template is not None or self._tokenizer.chat_template is not None

    def row(
        self,
        turns: Sequence[Turn],
        completion: str,
        *,
        plain: bool,
        context: Mapping[str, Any],
        name: str,
        extras: Mapping[str, Any] | None = None,
    ) -> RowText:
        """Prompt and whole of a row with turns.

        Args:
            turns: what stands before the completion; at least one.
            completion: the model's answer.
            plain: whether the prompt came as one text, not as messages.
            context: what the template reads beside the turns (`tools`, `documents`, ...).
            name: names the row in errors.
            extras: what the answer carries beside its text; all of it is the model's own.

        Raises:
            NoChatTemplate: messages, and the model has no chat template.
            TemplateRefused: the template raised an error, or leaves the completion out.
        """
        if not self.has_template:
            return self._joined(turns, completion, plain=plain, name=name)
        asked = _Asked([turn.for_template() for turn in turns], context, name, extras or {})
        prompt = self._render(asked, generation_prompt=True)
        whole = self._render(asked.answered(completion))
        opening = prompt if whole.startswith(prompt) else _before_think_block(prompt, whole)
        if opening is None:
            return RowText(prompt, whole)  # refused in `render`, with the numbers of tokens
        behind = whole[len(opening) :]
        if _says(behind, completion):
            return RowText(opening + self._lead(asked, completion, opening, behind=behind), whole)
        return _as_written(prompt, completion, behind=behind, name=name)

    def _lead(self, asked: _Asked, completion: str, opening: str, *, behind: str) -> str:
        """What the template writes behind `opening` before any completion; blanks alone belong to the completion."""
        place = behind.find(completion.strip())
        before = behind[:place] if place >= 0 else behind
        if not before.strip() or asked.extras:
            return ""
        other = self._render(asked.answered(_PROBE))
        if not other.startswith(opening):
            return ""
        pairs = zip(before, other[len(opening) :], strict=False)
        lead = "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        return lead.rstrip(" ") if lead.strip() else ""

    def _joined(self, turns: Sequence[Turn], completion: str, *, plain: bool, name: str) -> RowText:
        if not plain:
            raise NoChatTemplate(
                f"{name}: the model has no chat template, so `messages` cannot be rendered; "
                "give `prompt` and `completion`, use `text` rows, or name a template when the bundle is built (--chat-template)"
            )
        prompt = "".join(turn.content for turn in turns) + self._rule.join
        return RowText(prompt, prompt + completion, joined=True)

    def _render(self, asked: _Asked, *, generation_prompt: bool = False) -> str:
        """The template's text of a chat.

        Raises:
            TemplateRefused: the template raised an error; its own sentence is in the text.
        """
        if not self._knows_developer:
            asked = _with_system_for_developer(asked)
        if self._wants_parts:
            asked = _in_parts(asked)
        return self._apply(asked, generation_prompt=generation_prompt)

    @cached_property
    def _knows_developer(self) -> bool:
        """Whether the template writes what a developer says; most know only the system."""
        probe = _Asked(
            [{"role": "developer", "content": _PROBE}, {"role": "user", "content": "?"}], {}, "probe"
        )
        try:
            return any(_PROBE in self._apply(one) for one in (probe, _in_parts(probe)))
        except TemplateRefused:
            return False

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether the template reads contents as lists of parts and loses plain strings."""
        probe = _Asked([{"role": "user", "content": _PROBE}], {}, "probe").answered(_PROBE)
        try:
            return _PROBE not in self._apply(probe) and _PROBE in self._apply(_in_parts(probe))
        except TemplateRefused:
            return False

    def _apply(self, asked: _Asked, *, generation_prompt: bool = False) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                asked.chat,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                chat_template=self._rule.chat_template,
                **{**self._rule.template_args, **asked.context},
            )
        except Exception as error:  # a template is a program of somebody else's
            said = _sentence(error, asked.chat)
            raise TemplateRefused(f"{asked.name}: the chat template failed: {said}") from error
        return text


def _in_parts(asked: _Asked) -> _Asked:
    chat = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in asked.chat]
    return replace(asked, chat=chat)


def _with_system_for_developer(asked: _Asked) -> _Asked:
    chat = [
        {**turn, "role": str(Role.SYSTEM)} if turn["role"] == "developer" else turn for turn in asked.chat
    ]
    return replace(asked, chat=chat)


def _before_think_block(prompt: str, whole: str) -> str | None:
    """The prompt without the think block at its end, where the rendered row begins so; None where it does not."""
    block = _ENDS_IN_THINK.search(prompt)
    if block is None:
        return None
    before = prompt[: block.start()]
    return next((one for one in (before, before.rstrip()) if whole.startswith(one)), None)


def _as_written(prompt: str, completion: str, *, behind: str, name: str) -> RowText:
    """A completion with reasoning that the template drops: behind the generation prompt, as the model wrote it.

    Raises:
        TemplateRefused: what the template leaves out is more than reasoning.
    """
    own = completion
    if _ENDS_IN_THINK.search(prompt) and (tag := _THINK_TAG.match(own.lstrip())):
        own = own.lstrip()[tag.end() :].lstrip("\n")  # the prompt has opened the block already
    answer = reasoning_apart(completion)[-1]
    place = behind.rfind(answer)
    if place < 0 or not _THINK_TAG.search(completion):
        raise TemplateRefused(
            f"{name}: the chat template leaves the completion's text out of the rendered row, so the model never saw it; "
            "pass the template used in training (--chat-template)"
        )
    return RowText(prompt, prompt + own.rstrip() + behind[place + len(answer) :])


def _says(text: str, completion: str) -> bool:
    """Whether a rendered text holds the completion, its reasoning included; templates may trim and replace a few words."""
    return all(piece in text or _mostly_in(piece, text) for piece in reasoning_apart(completion))


def reasoning_apart(completion: str) -> list[str]:
    """The completion's stretches between tags of reasoning, blanks at their ends cut off."""
    found = [piece.strip() for piece in _THINK_TAG.split(completion)]
    return [piece for piece in found if piece] or [completion.strip()]


def _mostly_in(piece: str, text: str) -> bool:
    wanted, there = piece.split(), text.split()
    if len(wanted) < _FEW_WORDS and len(piece) > _LONG_WORD:  # a script without blanks between words
        wanted, there = list(piece), list(text)
    wanted = wanted[:_COMPARED]
    blocks = difflib.SequenceMatcher(None, wanted, there[: 2 * _COMPARED], autojunk=False)
    return sum(block.size for block in blocks.get_matching_blocks()) >= _KEPT_WORDS * len(wanted)


def _sentence(error: Exception, chat: Sequence[dict[str, Any]]) -> str:
    """What a template says when it refuses a chat, on one line; the kind of error alone where it repeats the chat's text."""
    said = " ".join(str(error).split())[:_LONGEST_SENTENCE]
    texts = [text for turn in chat for text in _texts(turn["content"])]
    if not said or any(text.strip() in said for text in texts if len(text.strip()) >= _TELLING):
        return type(error).__name__
    return said


def _texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content]
