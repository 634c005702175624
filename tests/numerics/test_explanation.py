"""Spans against plain loops over units and tokens; what they must hold whatever the matrix; planted pairs are found."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.attribution.explanation.passage import Passage
from wherefrom.attribution.explanation.spans import LEAST_SHARE, MOST_PAIRS, evidence_spans, strong_runs
from wherefrom.records import Span


def pieces(text: str, cuts: list[int]) -> Passage:
    """A passage whose tokens are cut at the given characters, with an empty one for the end of the turn."""
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return Passage(text, [*itertools.pairwise(edges), (len(text), len(text))])


def loop_table(matrix: np.ndarray, output: Passage, example: Passage) -> np.ndarray:
    """Positive mass of every pair of units, token by token."""

    def touched(passage: Passage, token: int) -> list[int]:
        start, end = passage.ranges[token]
        return [index for index, (first, last) in enumerate(passage.units) if start < last and end > first]

    table = np.zeros((len(output.units), len(example.units)))
    for one in range(matrix.shape[0]):
        for other in range(matrix.shape[1]):
            rows, columns = touched(output, one), touched(example, other)
            for row in rows:
                for column in columns:
                    table[row, column] += max(0.0, matrix[one, other]) / (len(rows) * len(columns))
    return table


def loop_runs(values: np.ndarray, strong: float) -> list[tuple[int, int]]:
    """Runs of strong entries of one row."""
    runs, first = [], None
    for index, value in enumerate([*values, -1.0]):
        high = value > 0 and value >= (1 - 1e-5) * strong * np.mean(values)
        if high and first is None:
            first = index
        if not high and first is not None:
            runs.append((first, index))
            first = None
    return runs


def loop_spans(
    matrix: np.ndarray, output: Passage, example: Passage, strong: float
) -> list[tuple[Span, Span, float]]:
    """All pairs of stretches with their mass, strongest first."""
    table = loop_table(matrix, output, example)
    found = []
    for row in loop_runs(table.sum(axis=1), strong):
        profile = table[row[0] : row[1]].sum(axis=0)
        found += [
            (output.span(*row), example.span(*column), profile[slice(*column)].sum())
            for column in loop_runs(profile, strong)
        ]
    return sorted(found, key=lambda one: -one[2])


TEXTS = st.lists(
    st.sampled_from(["Ada", "was", "born", "in", "1939,", "(Kuwait)", "é😀", "!"]), min_size=1, max_size=9
)


@given(st.data())
def test_spans_against_loops(data: st.DataObject) -> None:
    """The strongest pairs with their shares, as loops over tokens and units find them."""
    output, example = (
        pieces(" ".join(data.draw(TEXTS)), data.draw(st.lists(st.integers(0, 60), max_size=12)))
        for _ in range(2)
    )
    seed, strong = data.draw(st.integers(0, 10**6)), data.draw(st.sampled_from([0.5, 1.0, 2.0]))
    shape = (len(output.ranges), len(example.ranges))
    matrix = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    expected = loop_spans(matrix.astype(np.float64), output, example, strong)
    total = np.maximum(matrix, 0).sum(dtype=np.float64)
    found = evidence_spans(matrix, output, [example], strong=strong)[0]
    kept = [one for one in expected if one[2] >= LEAST_SHARE * total][:MOST_PAIRS]
    assert [span.share for span in found] == pytest.approx([one[2] / total for one in kept], rel=1e-4)
    places = {(one[0], one[1]) for one in expected}
    assert all((span.output, span.example) in places for span in found)
    assert sum(span.share for span in found) <= 1 + 1e-5


@given(TEXTS, st.lists(st.integers(0, 60), max_size=12))
def test_membership_keeps_the_mass(words: list[str], cuts: list[int]) -> None:
    """A token that touches a unit counts once in all; one that touches none counts nowhere."""
    passage = pieces(" ".join(words), cuts)
    touches = [
        any(start < last and end > first for first, last in passage.units) for start, end in passage.ranges
    ]
    tokens, units, shares = passage.memberships
    assert units.tolist() == sorted(units.tolist())
    counted = np.bincount(tokens, weights=shares, minlength=len(passage.ranges))
    np.testing.assert_allclose(counted, np.array(touches, dtype=np.float64), rtol=1e-6)


@given(
    TEXTS,
    st.lists(TEXTS, min_size=1, max_size=5),
    st.lists(st.integers(0, 60), max_size=12),
    st.integers(0, 99),
)
def test_together_as_alone(words: list[str], others: list[list[str]], cuts: list[int], seed: int) -> None:
    """Examples that are explained at once get the pairs that each gets by itself."""
    output, examples = pieces(" ".join(words), cuts), [pieces(" ".join(one), cuts) for one in others]
    generator = np.random.default_rng(seed)
    matrices = [
        generator.standard_normal((len(output.ranges), len(one.ranges))).astype(np.float32)
        for one in examples
    ]
    together = evidence_spans(np.concatenate(matrices, axis=1), output, examples)
    alone = [
        evidence_spans(one, output, [example])[0] for one, example in zip(matrices, examples, strict=True)
    ]
    for found, expected in zip(together, alone, strict=True):
        assert [(one.output, one.example) for one in found] == [(one.output, one.example) for one in expected]
        assert [one.share for one in found] == pytest.approx([one.share for one in expected], rel=1e-4)


def test_planted_pair_is_found() -> None:
    """One strong pair of tokens names its two words, whole, and holds nearly all of the mass."""
    output, example = (
        pieces("She was born in Kuwait City.", [9, 12, 18]),
        pieces("Kuwait is the birth place", [3, 6]),
    )
    matrix = np.full((len(output.ranges), len(example.ranges)), 0.01, dtype=np.float32)
    inside = next(index for index, (start, _) in enumerate(output.ranges) if start == 18)
    matrix[inside, 1] = 50.0  # the second half of "Kuwait"
    matrix[0, 2] = -90.0
    best = evidence_spans(matrix, output, [example])[0][0]
    assert example.text[best.example.start : best.example.end] == "Kuwait"
    assert output.text[best.output.start : best.output.end] == "Kuwait City."  # one token holds both words
    assert best.share > 0.95


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_nothing_positive(value: float) -> None:
    """Without positive mass there is nothing to name."""
    passage = pieces("a b", [1])
    matrix = np.full((len(passage.ranges), len(passage.ranges)), value, dtype=np.float32)
    assert evidence_spans(matrix, passage, [passage]) == [()]


def test_only_the_end_of_the_turn() -> None:
    """Mass that lies on tokens without characters has no span."""
    passage = pieces("a b", [1])
    matrix = np.zeros((len(passage.ranges), len(passage.ranges)), dtype=np.float32)
    matrix[-1, -1] = 4.0
    assert evidence_spans(matrix, passage, [passage]) == [()]


def test_strong_runs() -> None:
    """Runs at both ends of a row, rows without one, and runs that do not cross from row to row."""
    profiles = np.array([[3, 0, 0, 3], [3, 3, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=np.float32)
    expected = [[0, 0, 1], [0, 3, 4], [1, 0, 2], [3, 0, 4]]
    assert strong_runs(profiles, 1.0).tolist() == expected
