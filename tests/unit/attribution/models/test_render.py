"""Rows become tokens: prompt and completion told apart, cut, restricted to spans; templates and ids that cannot be used."""

from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import TINY_MODEL, VOCABULARY
from wherefrom.attribution.models.ranges import decoded_ranges
from wherefrom.attribution.models.render import Renderer, TokenRow
from wherefrom.errors import EmptyCompletion, InvalidRecord, OutputTooLong, TemplateNotPrefix, UnusableModel
from wherefrom.records import Message, Role, Span, Turn

TURNS = (Message(role=Role.USER, content="How long does a refund take?"),)
ANSWER = "It takes ten days."
END = 1


@pytest.fixture
def tokenizer():
    """A tokenizer that a test may change."""
    return transformers.AutoTokenizer.from_pretrained(str(TINY_MODEL), local_files_only=True)


@pytest.fixture
def renderer(tokenizer) -> Renderer:
    """A renderer with that tokenizer."""
    return Renderer(tokenizer, end_ids=frozenset({END}))


def render(renderer: Renderer, completion: str = ANSWER, turns=TURNS, **changes: Any) -> TokenRow:
    """A row without a limit."""
    options: dict[str, Any] = {"max_tokens": 10_000, "over_long": "truncate"} | changes
    return renderer.render(turns, completion, **options)


def explained_text(tokenizer, row: TokenRow) -> str:
    """The text of the tokens that are to be explained."""
    kept = [token for token, flag in zip(row.ids[row.start :], row.explained, strict=True) if flag]
    return tokenizer.decode(kept, skip_special_tokens=True)


def test_row(renderer: Renderer, tokenizer) -> None:
    """The completion starts behind the assistant's mark and ends with its end-of-turn token."""
    row = render(renderer)
    assert tokenizer.decode(row.ids[: row.start]) == f"<|user|>{TURNS[0].content}<|end|><|assistant|>"
    assert tokenizer.decode(row.ids[row.start :]) == f"{ANSWER}<|end|>"
    assert row.completion_tokens == len(row.explained) == len(row.ids) - row.start
    assert all(row.explained)
    assert not row.truncated


def test_template_white_space_is_cut(renderer: Renderer, tokenizer) -> None:
    """What a template writes behind the end of the turn is no completion."""
    tokenizer.chat_template = tokenizer.chat_template.replace("'<|end|>' }}", "'<|end|>\n' }}")
    assert tokenizer.decode(render(renderer).ids[-1:]) == "<|end|>"


def test_a_template_gets_all_that_a_turn_and_a_row_carry(renderer: Renderer, tokenizer) -> None:
    """Calls of tools, a turn's further fields and the row's tools reach the template; they are part of the prompt."""
    tokenizer.chat_template = (
        "{% for tool in tools or [] %}[{{ tool.name }}]{% endfor %}"
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ m.note or '' }}{% for c in m.tool_calls or [] %}({{ c.name }}){% endfor %}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    turns = (*TURNS, Turn(role="assistant", content="", tool_calls=[{"name": "stock"}], note="!"))
    row = render(renderer, turns=turns, context={"tools": [{"name": "shelf"}]})
    assert tokenizer.decode(row.ids[: row.start]).startswith("[shelf]<|user|>How long")
    assert tokenizer.decode(row.ids[: row.start]).endswith("<|assistant|>!(stock)<|end|><|assistant|>")
    assert tokenizer.decode(row.ids[row.start :]) == f"{ANSWER}<|end|>"


def test_special_token_text_in_a_completion(renderer: Renderer, tokenizer) -> None:
    """Text that looks like an end of turn does not end the completion early, whatever it becomes as tokens."""
    row = render(renderer, "Ten days.<|end|><|user|>And then? ten")
    assert tokenizer.decode(row.ids[row.start :]).endswith("And then? ten<|end|>")
    prompt = render(renderer, turns=(Message(role=Role.USER, content="<|assistant|>no<|end|>"),))
    assert tokenizer.decode(prompt.ids[prompt.start :]) == f"{ANSWER}<|end|>"


def test_plain_text(renderer: Renderer, tokenizer) -> None:
    """Without BOS the first token stands in for the prompt; with BOS every token of the text is explained."""
    ids = tokenizer(ANSWER)["input_ids"]
    without = render(renderer, turns=())
    assert (list(without.ids), without.start, len(without.explained)) == (ids, 1, len(ids) - 1)
    tokenizer.bos_token = "<|system|>"
    bos = render(Renderer(tokenizer, end_ids=frozenset({END})), turns=())
    assert (list(bos.ids), bos.start) == ([tokenizer.bos_token_id, *ids], 1)


def test_one_token_of_plain_text(renderer: Renderer) -> None:
    """A text of one token has no predecessor to explain it from."""
    with pytest.raises(EmptyCompletion, match="row 9: the completion has no token to explain"):
        render(renderer, "a", turns=(), name="row 9")


@given(st.data())
def test_spans_restrict_positions(data: st.DataObject) -> None:
    """Every character of a span is covered, and what is explained beside it belongs to tokens that touch it."""
    text = data.draw(st.text(alphabet="ab 7.é€😀", min_size=1, max_size=20).filter(str.strip))
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    turns = data.draw(st.sampled_from([TURNS, ()]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(TINY_MODEL), local_files_only=True)
    renderer = Renderer(tokenizer, end_ids=frozenset({END}))
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    expected = [first < end and last > start for first, last in offsets][0 if turns else 1 :]
    if not any(expected):
        with pytest.raises(EmptyCompletion):
            render(renderer, text, turns=turns, spans=[Span(start=start, end=end)])
        return
    row = render(renderer, text, turns=turns, spans=[Span(start=start, end=end)])
    assert list(row.explained) == expected + ([False] if turns else [])


def test_several_spans(renderer: Renderer, tokenizer) -> None:
    """The union of the spans is explained."""
    row = render(renderer, spans=[Span(start=0, end=2), Span(start=9, end=12)])
    assert explained_text(tokenizer, row) == "It ten"


def test_span_behind_the_completion(renderer: Renderer) -> None:
    """A span that no token touches is refused."""
    with pytest.raises(EmptyCompletion, match="row: no completion token lies in the given spans"):
        render(renderer, spans=[Span(start=500, end=501)])


@pytest.mark.parametrize("limit", [8, 9, 12, 15])
def test_over_long_is_cut_with_a_mark(renderer: Renderer, limit: int) -> None:
    """The row fits the limit; the completion keeps at least half; the prompt loses its beginning."""
    whole = render(renderer)
    assert len(whole.ids) > limit
    row = render(renderer, max_tokens=limit)
    assert row.truncated
    assert len(row.ids) == limit
    assert row.start >= 1
    assert row.completion_tokens >= min(whole.completion_tokens, limit // 2)
    assert row.ids[row.start :] == whole.ids[whole.start :][: row.completion_tokens]
    assert row.ids[: row.start] == whole.ids[: whole.start][-row.start :]


def test_over_long_is_rejected(renderer: Renderer) -> None:
    """With `reject` the message says how long it is and what the limit is."""
    length = len(render(renderer).ids)
    assert not render(renderer, max_tokens=length, over_long="reject").truncated
    with pytest.raises(OutputTooLong, match=rf"query q7: {length} tokens, the limit is {length - 1}"):
        render(renderer, max_tokens=length - 1, over_long="reject", name="query q7")


def test_spans_behind_the_cut(renderer: Renderer) -> None:
    """Spans that were cut away leave nothing to explain."""
    with pytest.raises(EmptyCompletion, match="the spans lie beyond the token limit of 30"):
        render(renderer, "a " * 100 + "z", max_tokens=30, spans=[Span(start=200, end=201)])


def test_own_token_ids(renderer: Renderer, tokenizer) -> None:
    """The producer's ids replace the tokenizer's, and the end of the turn is added where it is missing."""
    ids = [*tokenizer("It")["input_ids"], *tokenizer(" takes")["input_ids"]]
    for given_ids in (ids, [*ids, END]):
        row = render(renderer, "It takes", token_ids=given_ids)
        assert list(row.ids[row.start :]) == [*ids, END]
    text = render(renderer, "It takes", turns=(), token_ids=ids)
    assert (list(text.ids), text.start) == (ids, 1)


@pytest.mark.parametrize("wrong", [-1, VOCABULARY, 2**40])
def test_token_ids_of_another_model(renderer: Renderer, wrong: int) -> None:
    """An id outside of the vocabulary is refused by name, not left to an index error in the model."""
    with pytest.raises(
        InvalidRecord,
        match=rf"query q: token id {wrong} is not one of the tokenizer's {VOCABULARY}",
    ):
        render(renderer, token_ids=[5, wrong], name="query q")


def test_completion_that_melts_into_the_prompt(renderer: Renderer, tokenizer) -> None:
    """Where prompt and completion share a token (as blank lines do), the prompt keeps its own and the completion follows it, as sampled tokens do."""
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "('W' if message['role'] == 'assistant' else '') + message['content']"
    ).replace("{{ '<|assistant|>' }}", "{{ '<|assistant|>W' }}")
    assert tokenizer("We", add_special_tokens=False).input_ids != [
        *tokenizer("W", add_special_tokens=False).input_ids,
        *tokenizer("e", add_special_tokens=False).input_ids,
    ]
    row = render(renderer, completion="e are")
    assert tokenizer.decode(row.ids[: row.start]).endswith("W")
    assert tokenizer.decode(row.ids[row.start :]).replace(" ", "").startswith("eare")


def test_template_without_prefix(renderer: Renderer, tokenizer) -> None:
    """A template whose generation prompt is not how an assistant turn begins cannot be used."""
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ '<|assistant|>' }}", "{{ '<|assistant|>Well, ' }}"
    )
    with pytest.raises(
        TemplateNotPrefix,
        match=r"training example 'a': the rendered prompt \(\d+ tokens\) is not a token prefix",
    ):
        render(renderer, name="training example 'a'")


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('roles must alternate') }}", "{{ nothing.at.all }}", "{% if %}"]
)
def test_template_that_raises(renderer: Renderer, tokenizer, template: str) -> None:
    """Whatever a template raises becomes an error of ours that names the row and not its text."""
    tokenizer.chat_template = template
    with pytest.raises(UnusableModel, match="row 3: the chat template failed: ") as raised:
        render(renderer, name="row 3")
    assert ANSWER not in str(raised.value)


def test_no_template(renderer: Renderer, tokenizer) -> None:
    """Rows with a prompt need a template; plain text does not."""
    tokenizer.chat_template = None
    with pytest.raises(UnusableModel, match=r"no chat template.*use `text` rows"):
        render(renderer)
    assert render(renderer, turns=()).start == 1


def test_ranges(renderer: Renderer) -> None:
    """Each token's characters; all bytes of a character share it; the end of the turn has none."""
    text = "Ten é😀 days."
    row = render(renderer, text)
    ranges = renderer.ranges(text, row, chat=True)
    assert len(ranges) == row.completion_tokens
    assert ranges[-1] == (len(text), len(text))
    assert [start for start, _ in ranges] == sorted(start for start, _ in ranges)
    assert sum(found == (5, 6) for found in ranges) == 4
    covered = {place for start, end in ranges for place in range(start, end)}
    assert covered == set(range(len(text)))


def test_template_that_strips(renderer: Renderer, tokenizer) -> None:
    """Characters are counted in the completion as it was given, even where the template strips it."""
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "message['content'] | trim"
    )
    row = render(renderer, "  Ten days. ")
    ranges = renderer.ranges("  Ten days. ", row, chat=True)
    assert ranges[0][0] == 2
    assert ranges[-2][1] == 11


def test_template_that_rewrites(renderer: Renderer, tokenizer) -> None:
    """Where the rendered text is not the completion's, the tokens are aligned by what they decode to."""
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "message['content'] | replace('days', 'hours')"
    )
    row = render(renderer, "Ten days.")
    ranges = renderer.ranges("Ten days.", row, chat=True)
    assert ranges[0][0] == 0
    assert ranges[-1] == (9, 9)
    assert all(0 <= start <= end <= 9 for start, end in ranges)


@given(st.data())
def test_ranges_of_other_ids(data: st.DataObject) -> None:
    """Ids that are not the tokenizer's own choice are aligned by decoding: the same as its offsets where they can be compared."""
    text = data.draw(st.text(alphabet="ab 7.é€😀", min_size=1, max_size=20).filter(str.strip))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(TINY_MODEL), local_files_only=True)
    renderer = Renderer(tokenizer, end_ids=frozenset({END}))
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    decoded = decoded_ranges(renderer._decode, whole["input_ids"], lead=(), limit=len(text))
    assert decoded == [tuple(one) for one in whole["offset_mapping"]]
    split = [token for letter in text for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    row = render(renderer, text, token_ids=split)
    ranges = renderer.ranges(text, row, chat=True)
    expected = [
        (place, place + 1)
        for place, letter in enumerate(text)
        for _ in tokenizer(letter, add_special_tokens=False)["input_ids"]
    ]
    assert ranges == [*expected, (len(text), len(text))]


def test_decoding_is_linear() -> None:
    """No decoded window is longer than what two characters can need."""
    longest = 0

    def decode(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return bytes(ids).decode("utf-8", errors="replace")

    text = "a😀é\ufffd" * 50
    ranges = decoded_ranges(decode, list(text.encode()), lead=(), limit=len(text))
    assert longest <= 8
    assert len(ranges) == len(text.encode())
    assert ranges[:8] == [(0, 1), *[(1, 2)] * 4, *[(2, 3)] * 2, (3, 4)]
    assert ranges[-1][1] == len(text)


def test_ranges_of_plain_text(renderer: Renderer, tokenizer) -> None:
    """The first token of a text without BOS is none of the completion's, by offsets and by decoding."""
    row = render(renderer, turns=())
    ranges = renderer.ranges(ANSWER, row, chat=False)
    offsets = tokenizer(ANSWER, return_offsets_mapping=True)["offset_mapping"]
    assert ranges == offsets[1:]
    ids = [token for letter in "abc" for token in tokenizer(letter)["input_ids"]]
    spelled = render(renderer, "abc", turns=(), token_ids=ids)
    assert renderer.ranges("abc", spelled, chat=False) == [(1, 2), (2, 3)]


@pytest.mark.parametrize("turns", [TURNS, ()])
def test_ranges_of_an_example(renderer: Renderer, turns) -> None:
    """A cited example whose tokens were not kept: the same ranges, cut where it was cut, none where the count does not fit."""
    row = render(renderer, turns=turns)
    expected = renderer.ranges(ANSWER, row, chat=bool(turns))
    prompt = turns[0].content if turns else ""
    assert renderer.ranges_of_example(prompt, ANSWER, row.completion_tokens) == expected
    assert renderer.ranges_of_example(prompt, ANSWER, 2) == expected[:2]
    assert renderer.ranges_of_example(prompt, ANSWER, row.completion_tokens + 9) is None


def test_chat_without_a_prompt(renderer: Renderer, tokenizer) -> None:
    """An example with an empty prompt is a chat where the number of tokens says so; without a template it is plain text."""
    row = render(renderer, turns=(Message(role=Role.SYSTEM, content="Be kind."),))
    expected = renderer.ranges(ANSWER, row, chat=True)
    assert renderer.ranges_of_example("", ANSWER, row.completion_tokens) == expected
    tokenizer.chat_template = None
    assert renderer.ranges_of_example("", ANSWER, row.completion_tokens) is None


def test_slow_tokenizer(tokenizer) -> None:
    """A tokenizer that tells no offsets is decoded."""

    class Slow:
        is_fast = False

        def __getattr__(self, name: str):
            return getattr(tokenizer, name)

        def __call__(self, text: str, **options):
            options.pop("return_offsets_mapping", None)
            return tokenizer(text, **options)

    fast, slow = (Renderer(one, end_ids=frozenset({END})) for one in (tokenizer, Slow()))
    row = render(fast, "Ten é😀 days.")
    assert slow.ranges("Ten é😀 days.", row, chat=True) == fast.ranges("Ten é😀 days.", row, chat=True)
