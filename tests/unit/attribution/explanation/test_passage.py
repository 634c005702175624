"""Words and units of texts in several scripts, and the spans that are made of them."""

import pytest

from wherefrom.attribution.explanation.passage import Passage


def cut(text: str, places) -> list[str]:
    """The texts at the given places."""
    return [text[start:end] for start, end in places.tolist()]


@pytest.mark.parametrize(
    ("text", "words", "units"),
    [
        (
            'Born in 1939, "it" said.',
            ["Born", "in", "1939", "it", "said"],
            ["Born", "in", "1939,", '"', 'it"', "said."],
        ),
        ("don't f(x, y)", ["don't", "f", "x", "y"], ["don't", "f(", "x,", "y)"]),
        ("价格10元", ["价", "格", "10", "元"], ["价", "格", "10", "元"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"], ["हिन्दी", "भाषा"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"], ["e\u0301te\u0301"]),
        ("😀 ok", ["ok"], ["😀", "ok"]),
        ("  \n", [], []),
        ("", [], []),
    ],
)
def test_words_and_units(text: str, words: list[str], units: list[str]) -> None:
    """Units hold every character but white space; words hold letters and digits."""
    passage = Passage(text, [(0, len(text))])
    assert cut(text, passage.words) == words
    assert cut(text, passage.units) == units


def test_span() -> None:
    """From the first character of the first unit to the last of the last one."""
    passage = Passage("Yes, in 1939, (really) 😀", [(0, 24)])
    spans = [passage.span(0, 3), passage.span(3, 5), passage.span(3, 6)]
    assert [passage.text[span.start : span.end] for span in spans] == [
        "Yes, in 1939,",
        "(really)",
        "(really) 😀",
    ]


def test_units_end_with_the_explained_tokens() -> None:
    """The last unit is whole even where its token was cut; none begins behind it."""
    passage = Passage("alpha beta gamma", [(0, 5), (5, 8)])
    assert cut(passage.text, passage.units) == ["alpha", "beta"]
    assert passage.end == 8
