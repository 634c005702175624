"""Which citations of two audits are the same, and how far the blame moved."""

from dataclasses import dataclass

import pytest

from wherefrom.records import matched, moved


@dataclass(frozen=True)
class Cited:
    """A citation: rank, row, content."""

    rank: int
    training_example_id: int
    text_sha256: str


def cited(*rows: tuple[int, str]) -> list[Cited]:
    """Citations of these rows and contents in this order."""
    return [Cited(rank, row, text) for rank, (row, text) in enumerate(rows, start=1)]


def ranks(ones: list[Cited], others: list[Cited]) -> list[tuple[int | None, int | None]]:
    """The pairs by their ranks."""
    return [
        (here.rank if here else None, there.rank if there else None) for here, there in matched(ones, others)
    ]


def test_the_same_row_is_the_same_citation() -> None:
    """Whatever else holds the same text."""
    ones, others = cited((1, "a"), (2, "a"), (3, "b")), cited((3, "b"), (2, "a"), (4, "c"))
    assert ranks(ones, others) == [(1, None), (2, 2), (3, 1), (None, 3)]


def test_rows_of_two_corpora_are_matched_by_content() -> None:
    """Their numbers say nothing: a cleaned corpus counts anew."""
    assert ranks(cited((1, "a"), (2, "b")), cited((11, "b"), (12, "c"))) == [(1, None), (2, 1), (None, 2)]


def test_equal_contents_are_matched_one_by_one() -> None:
    """Three of them in one audit and two in the other: one is gone."""
    ones, others = cited((1, "a"), (2, "a"), (3, "a")), cited((11, "x"), (12, "a"), (13, "a"))
    assert ranks(ones, others) == [(1, 2), (2, 3), (3, None), (None, 1)]


def test_erased_texts_are_not_alike() -> None:
    """They have one digest between them, which is none."""
    gone = "0" * 64
    assert ranks(cited((1, gone), (2, "b")), cited((11, gone), (12, "b"))) == [(1, None), (2, 2), (None, 1)]
    assert ranks(cited((1, gone)), cited((1, gone))) == [(1, 1)]


@pytest.mark.parametrize(
    ("ones", "others", "expected"),
    [
        (cited((1, "a"), (2, "b")), cited((1, "a"), (2, "b")), 0.0),
        (cited((1, "a"), (2, "b")), cited((3, "c"), (4, "d")), 1.0),
        (cited((1, "a"), (2, "b")), cited((2, "b"), (1, "a")), 1 / 3),
        (cited((1, "a")), [], 1.0),
        ([], [], 0.0),
    ],
)
def test_how_much_moved(ones: list[Cited], others: list[Cited], expected: float) -> None:
    """Nothing, everything, and a change of the first two places."""
    assert moved(matched(ones, others)) == pytest.approx(expected)
