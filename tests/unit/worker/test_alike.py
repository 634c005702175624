"""Which outputs join a finding, which found one, and what never belongs anywhere."""

from collections.abc import Mapping

import numpy as np
import pytest

from db.grouping.finding_work import AlikeOutput, Grouped, Round
from wherefrom.records import utc_now
from worker.sweeper import alike


def output(number: int, *direction: int, finding: int | None = None, cited: Mapping[int, int] | None = None) -> AlikeOutput:  # fmt: skip
    """An output with this vector."""
    return AlikeOutput(number, np.array(direction, dtype=np.int8).tobytes(), finding, cited or {})


def grouped(
    *new: AlikeOutput, loose: tuple[AlikeOutput, ...] = (), exemplars: tuple[AlikeOutput, ...] = ()
) -> Grouped:
    """Where outputs go."""
    return alike.group(Round(1, 0, new, loose, exemplars, utc_now()))


def test_it_joins_what_it_is_most_alike_to() -> None:
    """In the mean over the exemplars of a finding, not by the nearest of them."""
    exemplars = (
        output(1, 100, 0, finding=1),
        output(2, 90, 30, finding=1),
        output(3, 99, 10, finding=2),
        output(4, -99, 10, finding=2),
    )
    assert grouped(output(9, 99, 10), exemplars=exemplars).placed == {9: 1}


@pytest.mark.parametrize(("degrees", "joins"), [(50, True), (56, False)])
def test_from_the_least_similarity_on(degrees: float, joins: bool) -> None:
    """Half of the cosine counts where nothing is cited: .3 is that of 53 degrees."""
    x, y = (round(100 * one) for one in (np.cos(np.radians(degrees)), np.sin(np.radians(degrees))))
    found = grouped(output(9, x, y), exemplars=(output(1, 100, 0, finding=7),))
    assert found.placed == {9: 7 if joins else None}


def test_what_is_cited_alike_counts_as_much_as_vectors() -> None:
    """Vectors that say nothing, and the same first citations; a place further down counts less."""
    exemplars = (
        output(1, 100, 0, finding=1, cited={5: 1, 6: 2}),
        output(2, 100, 0, finding=2, cited={7: 1, 5: 10}),
    )
    assert grouped(output(9, 0, 100, cited={5: 1, 8: 2}), exemplars=exemplars).placed == {9: 1}


def test_three_found_a_finding_with_those_that_waited() -> None:
    """Two do not; what waited is not placed again, and what is like nothing stays out."""
    waits = (output(1, 100, 0), output(2, 98, 9))
    assert grouped(output(8, 0, 100), output(9, 3, 100), loose=waits).founded == []
    found = grouped(output(8, 0, 100), output(9, 99, 3), loose=waits)
    assert [sorted(one) for one in found.founded] == [[1, 2, 9]]
    assert found.placed == {8: None, 9: None}


def test_what_waited_is_not_clustered_again_for_nothing() -> None:
    """Where every new output joins, the others were tried before."""
    waits = tuple(output(number, 100, number) for number in range(3))
    assert grouped(output(9, 0, 100), loose=waits, exemplars=(output(4, 0, 99, finding=1),)).founded == ()


@pytest.mark.parametrize("odd", [b"", b"\x01", b"\x00\x00"])
def test_a_vector_that_does_not_compare_belongs_nowhere(odd: bytes) -> None:
    """Empty, of another length, or without a direction; the others are grouped all the same."""
    new = (AlikeOutput(1, odd), *(output(number, 100, number) for number in (2, 3, 4)))
    found = grouped(*new)
    assert found.placed[1] is None
    assert [sorted(one) for one in found.founded] == [[2, 3, 4]]


def test_nothing_compares() -> None:
    """No vector at all."""
    assert grouped(AlikeOutput(1, b"")).placed == {1: None}
