"""Conversations with several trained turns become one row of tokens whose explained ranges are those turns, whatever the template does to them."""

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import TINY_MODEL
from wherefrom.attribution.corpus import CorpusRow, parse_row
from wherefrom.attribution.models.render import Renderer, TokenRow
from wherefrom.attribution.models.rows import RenderedRow, render_row
from wherefrom.errors import NoChatTemplate, TemplateRefused

END = 1
MARKED = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
#: Writes a think block before the last answer alone and drops the reasoning of earlier ones.
THINKS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>"
    "{% if loop.last %}<think>{{ m.reasoning_content or '' }}</think>{% endif %}{{ m.content.split('</think>')[-1] }}<|end|>"
    "{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOLS = (
    "{% for t in tools or [] %}<|system|>{{ t.function.name }}<|end|>{% endfor %}"
    "{% for m in messages %}<|{{ m.role if m.role in ['system', 'user', 'assistant'] else 'user' }}|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}call {{ c.function.name }} {{ c.function.arguments }}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Slow:
    """The tokenizer without the characters of its tokens."""

    is_fast = False

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, **options: Any) -> Any:
        return self._tokenizer(text, add_special_tokens=options["add_special_tokens"])


@functools.cache
def shared_tokenizer() -> Any:
    """The tiny model's tokenizer; nobody changes it."""
    return transformers.AutoTokenizer.from_pretrained(str(TINY_MODEL), local_files_only=True)


@pytest.fixture
def tokenizer() -> Any:
    """The same."""
    return shared_tokenizer()


def renderer(tokenizer: Any, template: str | None = None) -> Renderer:
    """A renderer, under another template where one is given."""
    copy = (
        transformers.AutoTokenizer.from_pretrained(str(TINY_MODEL), local_files_only=True)
        if template
        else tokenizer
    )
    if template:
        copy.chat_template = template
    return Renderer(copy, end_ids=frozenset({END}))


def chat(*contents: str, **columns: Any) -> dict[str, Any]:
    """A row of alternating turns, the user's first."""
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(contents)],
        **columns,
    }


def render(
    renderer: Renderer, row: dict[str, Any], *, max_tokens: int = 10_000
) -> tuple[CorpusRow, RenderedRow]:
    """A row as it is read and rendered."""
    read = parse_row(row, default_id="x")
    return read, render_row(renderer, read, max_tokens=max_tokens, name="row x")


def ranges_of(row: TokenRow) -> list[tuple[int, ...]]:
    """Tokens of each run of explained tokens."""
    runs: list[list[int]] = []
    for place, flag in enumerate(row.explained):
        if flag and (place == 0 or not row.explained[place - 1]):
            runs.append([])
        if flag:
            runs[-1].append(row.ids[row.start + place])
    return [tuple(run) for run in runs]


def explained(tokenizer: Any, row: TokenRow) -> list[str]:
    """Text of each run of explained tokens."""
    return [tokenizer.decode(run) for run in ranges_of(row)]


@pytest.mark.parametrize("template", [None, MARKED])
def test_every_trained_turn_is_a_range(tokenizer, template: str | None) -> None:
    """With its end-of-turn token; prompts and what the template writes between turns are not explained."""
    made = renderer(tokenizer, template)
    row = render(made, chat("Hi there.", "Hello you.", "Why?", "Because.", "Bye.", "Good bye."))[1].tokens
    assert explained(tokenizer, row) == ["Hello you.<|end|>", "Because.<|end|>", "Good bye.<|end|>"]
    assert (
        tokenizer.decode(row.ids[: row.start])
        == "<|user|>Hi there.<|end|>" + "\n" * bool(template) + "<|assistant|>"
    )
    assert row.ids[-1] == END
    assert row.explained_tokens < row.completion_tokens


words = st.text(alphabet="ab 7.,é€\n😀", min_size=1, max_size=12).filter(str.strip)


@given(st.lists(words, min_size=2, max_size=8).filter(lambda one: len(one) % 2 == 0))
def test_ranges_are_those_of_single_rows(contents: Sequence[str]) -> None:
    """The tokens of each range are the completion of the conversation that ends with that turn; the last range begins where a row of the last turn alone does."""
    made = renderer(shared_tokenizer())
    row = render(made, chat(*contents))[1].tokens
    for place, run in enumerate(ranges_of(row)):
        single = parse_row(
            {"messages": chat(*contents[: 2 * place + 1])["messages"], "completion": contents[2 * place + 1]},
            default_id="x",
        )
        alone = render_row(made, single, max_tokens=10_000, name="x").tokens
        assert run == alone.ids[alone.start :]
        assert row.ids[: len(alone.ids)] == alone.ids


def test_one_trained_turn_is_rendered_as_before(tokenizer) -> None:
    """A conversation of which training trained the last turn alone is the row of one completion, bit for bit."""
    made = renderer(tokenizer)
    messages = chat("q", "no", "r", "yes")["messages"]
    messages[1]["weight"] = 0
    row = render(made, {"messages": messages})[1]
    plain = made.render(
        parse_row({"messages": messages}, default_id="x").turns, "yes", max_tokens=99, over_long="truncate"
    )
    assert row == RenderedRow(plain)


def test_a_turn_that_was_not_trained_lies_between(tokenizer) -> None:
    """Its tokens are read and not explained."""
    messages = chat("q", "one", "r", "two", "s", "three")["messages"]
    messages[3]["weight"] = 0
    row = render(renderer(tokenizer), {"messages": messages})[1].tokens
    assert explained(tokenizer, row) == ["one<|end|>", "three<|end|>"]
    assert "two" in tokenizer.decode(row.ids[row.start :])


def test_a_template_that_writes_earlier_turns_otherwise(tokenizer) -> None:
    """The reasoning that it drops from earlier turns is nowhere, and the turn's words are found."""
    made = renderer(tokenizer, THINKS)
    row = render(made, chat("q", "<think>hm</think>one", "r", "two"))[1].tokens
    assert explained(tokenizer, row) == ["one<|end|>", "two<|end|>"]
    assert tokenizer.decode(row.ids).count("think") == 2, "the block of the last answer, opened and closed"


def test_reasoning_of_its_own_column_is_explained(tokenizer) -> None:
    """It is the model's own, and what it says is shown."""
    messages = chat("q", "one", "r", "two")["messages"]
    messages[3]["reasoning_content"] = "because"
    read, made = render(renderer(tokenizer, THINKS), {"messages": messages})
    assert explained(tokenizer, made.tokens) == ["one<|end|>", "<think>because</think>two<|end|>"]
    assert read.completion_text() == "one\n[user] r\n[assistant] because\ntwo"
    assert made.left_out == frozenset()
    assert render(renderer(tokenizer), {"messages": messages})[1].left_out == {"reasoning"}


CALL = {"type": "function", "function": {"name": "stock", "arguments": '{"a": 1}'}}


def test_calls_of_tools(tokenizer) -> None:
    """A call is explained like an answer; a template without calls leaves that turn out and says which fields it does not write."""
    row: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "3"},
            {"role": "assistant", "content": "three"},
        ],
        "tools": [{"type": "function", "function": {"name": "stock"}}],
    }
    read, made = render(renderer(tokenizer, TOOLS), row)
    assert explained(tokenizer, made.tokens) == ['call stock {"a": 1}<|end|>', "three<|end|>"]
    assert tokenizer.decode(made.tokens.ids).startswith("<|system|>stock<|end|>")
    assert (made.turns, made.left_out) == (2, frozenset())
    assert read.completion_text() == 'stock({"a": 1})\n[tool] 3\n[assistant] three'
    without = render(renderer(tokenizer), row)[1]
    assert explained(tokenizer, without.tokens) == ["three<|end|>"]
    assert (without.turns, without.left_out) == (1, frozenset({"tool_calls", "tools"}))
    with pytest.raises(TemplateRefused, match="row x: the chat template leaves the tool calls out"):
        render(renderer(tokenizer), {"messages": row["messages"][:2]})


@pytest.mark.parametrize("knows", [True, False])
def test_developer(tokenizer, knows: bool) -> None:
    """A template that knows the role gets it; another one gets what the developer says as the system's."""
    only = (
        "{% if m.role != 'developer' %}"
        + MARKED.split("%}", 1)[1].split("{% endfor %}", maxsplit=1)[0]
        + "{% endif %}"
    )
    template = (
        MARKED
        if knows
        else MARKED.replace(MARKED.split("%}", 1)[1].split("{% endfor %}", maxsplit=1)[0], only)
    )
    messages = [{"role": "developer", "content": "Be kind."}, *chat("q", "a")["messages"]]
    row = render(renderer(tokenizer, template), {"messages": messages})[1].tokens
    role = "developer" if knows else "system"
    assert tokenizer.decode(row.ids).startswith(f"<|{role}|>Be kind.<|end|>")


def test_a_template_that_leaves_a_turn_out(tokenizer) -> None:
    """Is refused: the model never saw what would be explained."""
    only_last = MARKED.replace(
        "<|{{ m.role }}|>", "{% if loop.last or m.role == 'user' %}<|{{ m.role }}|>"
    ).replace("<|end|>\n", "<|end|>{% endif %}")
    with pytest.raises(TemplateRefused, match="row x: the chat template leaves the text of message 2 out"):
        render(renderer(tokenizer, only_last), chat("q", "one", "r", "two"))


def test_no_template(tokenizer) -> None:
    """Several turns cannot be joined."""
    copy = transformers.AutoTokenizer.from_pretrained(str(TINY_MODEL), local_files_only=True)
    copy.chat_template = None
    with pytest.raises(NoChatTemplate, match="row x"):
        render(Renderer(copy, end_ids=frozenset({END})), chat("q", "one", "r", "two"))


@pytest.mark.parametrize("limit", [8, 12, 20, 30])
def test_long_conversations_are_cut(tokenizer, limit: int) -> None:
    """At the end, and before the first trained turn so far that half of the row is left for it; the mark says so."""
    contents = (
        "one two three four five six seven eight nine ten",
        "alpha beta gamma",
        "more?",
        "delta epsilon",
    )
    whole = render(renderer(tokenizer), chat(*contents))[1]
    cut = render(renderer(tokenizer), chat(*contents), max_tokens=limit)[1]
    assert len(cut.tokens.ids) == limit < len(whole.tokens.ids)
    assert cut.tokens.truncated
    assert cut.tokens.start <= max(limit - limit // 2, limit - (len(whole.tokens.ids) - whole.tokens.start))
    kept = tuple(whole.tokens.ids[whole.tokens.start :][: limit - cut.tokens.start])
    assert cut.tokens.ids[cut.tokens.start :] == kept
    assert cut.tokens.explained == whole.tokens.explained[: len(kept)]
    assert cut.ranges == (whole.ranges or ())[: cut.tokens.explained_tokens]


def test_an_answer_first(tokenizer) -> None:
    """A conversation may begin with the assistant; what nothing predicts is not explained."""
    messages = [{"role": "assistant", "content": "Welcome."}, *chat("q", "a")["messages"]]
    row = render(renderer(tokenizer), {"messages": messages})[1].tokens
    assert explained(tokenizer, row) == ["Welcome.<|end|>", "a<|end|>"]
    bare = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    assert (
        explained(tokenizer, render(renderer(tokenizer, bare), {"messages": messages})[1].tokens)[-1]
        == "a<|end|>"
    )


@given(st.lists(words, min_size=4, max_size=6).filter(lambda one: len(one) % 2 == 0))
def test_tokens_know_their_characters(contents: Sequence[str]) -> None:
    """Every character that an answer shows lies in a token's range, and no range reaches into what others said."""
    made = renderer(shared_tokenizer())
    read, row = render(made, chat(*contents))
    shown = read.completion_text()
    assert len(row.ranges or ()) == row.tokens.explained_tokens
    covered = {place for start, end in row.ranges or () for place in range(start, end)}
    own = {place for one in read.pieces() for place in range(one.start, one.start + len(one.text))}
    assert covered <= own
    assert {place for place in own if shown[place].strip()} <= covered


def test_slow_tokenizers(tokenizer) -> None:
    """They give the same row; their tokens stand for no characters."""
    row = chat("q", "one", "r", "two")
    read, fast = render(renderer(tokenizer), row)
    slow = render_row(Renderer(Slow(tokenizer), end_ids=frozenset({END})), read, max_tokens=99, name="x")
    assert slow.tokens == fast.tokens
    assert set(slow.ranges or ()) == {(len(read.completion_text()),) * 2}
