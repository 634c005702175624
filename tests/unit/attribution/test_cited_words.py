"""Spans and overlaps of the engine's citations, what flagged spans and an acceptable answer do to them, and inputs to be refused."""

from typing import Any

import numpy as np
import pytest

from tests.tiny import opened, tiny_queries, token_factors
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.explanation.passage import Passage
from wherefrom.attribution.explanation.spans import KEPT_PASSAGES, Explainer
from wherefrom.attribution.kernel import token_kernel
from wherefrom.errors import EmptyCompletion, InvalidRecord, OutputTooLong
from wherefrom.records import Attribution, Message, Query, Span

PREFERRED = "Please ask our support team."


def query(number: int = 0, **changes) -> Query:
    """A flagged output of the tiny model."""
    row = tiny_queries(number + 1)[number]
    turns = tuple(Message.model_validate(turn) for turn in row["messages"])
    return Query(**({"key": row["id"], "turns": turns, "completion": row["completion"]} | changes))


@pytest.fixture
def attributor() -> LanguageAttributor:
    """An engine over the tiny bundle."""
    return LanguageAttributor(opened())


def cite(attributor: LanguageAttributor, one: Query, **changes) -> Attribution:
    """The attribution of one query."""
    options: dict[str, Any] = {"max_tokens": 512, "over_long": "reject"} | changes
    return attributor.attribute([attributor.prepare(one, **options)], top_k=8, opponents=4)[0]


def whole_words(text: str, span: Span) -> bool:
    """Whether a span neither begins nor ends inside of a word."""
    inside = [
        0 < edge < len(text) and text[edge - 1].isalnum() and text[edge].isalnum()
        for edge in (span.start, span.end)
    ]
    return not any(inside)


def test_citations_name_words(attributor: LanguageAttributor) -> None:
    """Proponents and opponents alike: few pairs of whole words of both texts, strongest first, with a share of the mass each."""
    one = query()
    attribution = cite(attributor, one)
    assert min(citation.rank for citation in attribution.citations) < 0
    for citation in attribution.citations:
        shares = [pair.share for pair in citation.spans]
        assert 0 < len(shares) <= 5
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1 + 1e-5
        for pair in citation.spans:
            assert pair.output.end <= len(one.completion)
            assert pair.example.end <= len(citation.example.completion)
            assert whole_words(one.completion, pair.output)
            assert whole_words(citation.example.completion, pair.example)


def test_shares_follow_the_sign(attributor: LanguageAttributor) -> None:
    """The mass of a citation's first span, counted by hand over its tokens: positive entries for a proponent, negative ones for an opponent."""
    one = query(4)
    prepared = attributor.prepare(one, max_tokens=512, over_long="reject")
    signal = attributor.signals([prepared])[0].signals
    renderer = opened().language.renderer
    output = renderer.ranges(one.completion, prepared.row, chat=True)
    citations = cite(attributor, one).citations
    for citation in (citations[0], citations[-1]):
        packed = token_factors(opened()).gather(np.array([citation.example.row]))
        matrix = token_kernel(signal.factors, packed.unpack()).numpy()
        mass = np.maximum(np.sign(citation.influence_score or 0.0) * matrix, 0)
        example = renderer.ranges_of_example(
            citation.example.prompt, citation.example.completion, matrix.shape[1]
        )
        pair = citation.spans[0]
        touched = [
            [start < span.end and end > span.start for start, end in ranges]
            for ranges, span in ((output, pair.output), (example or [], pair.example))
        ]
        share = mass[touched[0]][:, touched[1]].sum() / mass.sum()
        assert pair.share == pytest.approx(share, rel=0.02)


def test_flagged_spans_restrict_the_explanation(attributor: LanguageAttributor) -> None:
    """Nothing outside of the flagged characters is named, and overlaps end with them."""
    whole = cite(attributor, query())
    text = query().completion
    start, end = 0, text.index(" ", len(text) // 2)
    part = cite(attributor, query(spans=(Span(start=start, end=end),)))
    assert part.tokens < whole.tokens
    named = [pair.output for citation in part.citations for pair in citation.spans]
    assert named
    assert max(span.end for span in named) <= end
    assert max(pair.output.end for one in whole.citations for pair in one.spans) > end
    marked = [run.output.end for citation in part.citations for run in citation.overlaps]
    assert max(marked, default=0) <= end


def test_copied_text_is_marked(attributor: LanguageAttributor) -> None:
    """An output that repeats a training example overlaps with it from end to end."""
    example = opened().texts.read([3])[0]
    copied = query(
        completion=example.completion,
        turns=(Message.model_validate({"role": "user", "content": example.prompt}),),
    )
    citation = next(one for one in cite(attributor, copied).citations if one.example.row == 3)
    run = citation.overlaps[0]
    assert run.output == run.example
    assert run.output.start == 0
    assert run.output.end >= len(example.completion.rstrip(".!?")) - 1


def test_acceptable_answer_shows_the_completion(attributor: LanguageAttributor) -> None:
    """Scores change, the loss and token count do not, and only the completion's words are named."""
    plain, both = cite(attributor, query()), cite(attributor, query(preferred=PREFERRED))
    assert both.tokens == plain.tokens
    assert both.loss_nats == pytest.approx(plain.loss_nats, rel=1e-4)
    scores = {one.example.row: one.influence_score or 0.0 for one in plain.citations}
    changed = [one for one in both.citations if one.example.row in scores]
    assert any(abs((one.influence_score or 0.0) - scores[one.example.row]) > 1e-3 for one in changed)
    assert max(pair.output.end for one in both.citations for pair in one.spans) <= len(query().completion)


def test_acceptable_answer_that_is_the_completion(attributor: LanguageAttributor) -> None:
    """No difference, nothing to explain: refused by name; so is one that the limit makes equal."""
    one = query(key="k")
    with pytest.raises(InvalidRecord, match="query k: `preferred` equals the completion, so there is no"):
        attributor.prepare(
            one.model_copy(update={"preferred": one.completion}), max_tokens=512, over_long="reject"
        )
    longer = one.model_copy(update={"preferred": one.completion + " And so on."})
    attributor.prepare(longer, max_tokens=512, over_long="reject")
    with pytest.raises(InvalidRecord, match="equals the completion within the limit of 20 tokens"):
        attributor.prepare(longer, max_tokens=20, over_long="truncate")


def test_over_long_acceptable_answer(attributor: LanguageAttributor) -> None:
    """Cut with the mark or refused, as a completion is; one without tokens is refused too."""
    long = query(key="k", completion="Yes.", preferred="refund " * 600)
    assert cite(attributor, long, max_tokens=60, over_long="truncate").truncated
    with pytest.raises(OutputTooLong, match=r"acceptable answer of query k: \d+ tokens, the limit is 60"):
        attributor.prepare(long, max_tokens=60, over_long="reject")
    empty = query(key="k", turns=(), preferred="")
    with pytest.raises(EmptyCompletion, match="acceptable answer of query k: the completion has no token"):
        attributor.prepare(empty, max_tokens=60, over_long="reject")


def test_example_that_cannot_be_aligned(attributor: LanguageAttributor) -> None:
    """Where the tokens of an example cannot be found again no span is shown; common words are, and its neighbours keep their spans."""
    prepared = attributor.prepare(query(), max_tokens=512, over_long="reject")
    signal = attributor.signals([prepared])[0].signals
    citations = cite(attributor, query()).citations[:3]
    examples = [one.example for one in citations]
    short = examples[1].model_copy(update={"completion": query().completion[:30]})
    explainer = Explainer(opened().language.renderer, opened().store)
    ranges = opened().language.renderer.ranges(query().completion, prepared.row, chat=True)
    found = explainer.explain(
        signal.factors,
        Passage(query().completion, ranges),
        [examples[0], short, examples[2]],
        signs=[1, 1, 1],
    )
    assert found[1].spans == ()
    assert found[1].overlaps[0].output.start == 0
    assert [one.spans for one in (found[0], found[2])] == [citations[0].spans, citations[2].spans]


def test_kept_texts_are_bounded(attributor: LanguageAttributor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the examples that were cited last are kept."""
    assert KEPT_PASSAGES > 3
    monkeypatch.setattr("wherefrom.attribution.explanation.spans.KEPT_PASSAGES", 3)
    rows = [one.example.row for one in cite(attributor, query()).citations]
    assert list(attributor._citer._explainer._passages) == rows[-3:]
