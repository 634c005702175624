"""What benchmarks are made of: prompts with completions of which something is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wherefrom.evaluation.asking import question
from wherefrom.records import Query


@dataclass(frozen=True)
class Passage:
    """A prompt with its completion, and what is known of it."""

    prompt: str
    #: Empty where the trained model is to answer.
    completion: str
    source: str = ""
    #: What must not be on two sides of a split: a question, a conversation, an author.
    group: str = ""
    #: Corpus rows that taught it; none for a control.
    gold: tuple[int, ...] = ()
    #: Without it both sides are plain text that no chat template wraps.
    chat: bool = True

    @property
    def text(self) -> str:
        """Prompt and completion."""
        return f"{self.prompt} {self.completion}"

    def query(self, key: str) -> Query:
        """The passage as the engine is asked for it."""
        asked = question(key, self.prompt, self.completion)
        return asked if self.chat else asked.model_copy(update={"turns": ()})


def queries_of(passages: Sequence[Passage]) -> list[Query]:
    """Passages as queries, numbered."""
    return [one.query(str(place)) for place, one in enumerate(passages)]


def first_tokens(tokenizer: Any, text: str, count: int) -> str:
    """The beginning of a text, at most `count` tokens long."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(ids) <= count else str(tokenizer.decode(ids[:count]))


def first_whole_tokens(tokenizer: Any, text: str, count: int) -> str:
    """The same without half a character, or blanks, at the cut."""
    cut = first_tokens(tokenizer, text, count)
    return text if cut is text else cut.rstrip("\ufffd").rstrip()
