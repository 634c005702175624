"""Common runs of words against brute force; what counts as a word; what is too short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.attribution.explanation.overlap import LEAST_CHARACTERS, LEAST_WORDS, overlaps
from wherefrom.attribution.explanation.passage import Passage


def passage(text: str) -> Passage:
    """A passage of one token."""
    return Passage(text, [(0, len(text))])


def brute(one: Passage, other: Passage) -> list[tuple[int, int, int]]:
    """The longest run of unmarked equal words, again and again, by trying every start and length."""
    marked_one: set[int] = set()
    marked_other: set[int] = set()
    found: list[tuple[int, int, int]] = []
    while True:
        best: tuple[int, int, int] | None = None
        for first in range(len(one.keys)):
            for second in range(len(other.keys)):
                count = 0
                while (
                    first + count < len(one.keys)
                    and second + count < len(other.keys)
                    and one.keys[first + count] == other.keys[second + count]
                    and first + count not in marked_one
                    and second + count not in marked_other
                ):
                    count += 1
                if not count or (best is not None and count <= best[2]):
                    continue
                characters = one.words[first + count - 1, 1] - one.words[first, 0]
                if count >= LEAST_WORDS or characters >= LEAST_CHARACTERS:
                    best = (first, second, count)
        if best is None:
            return found
        marked_one.update(range(best[0], best[0] + best[2]))
        marked_other.update(range(best[1], best[1] + best[2]))
        found.append(best)


WORDS = st.lists(st.sampled_from(["a", "b", "c", "incomprehensibilities"]), max_size=14)


@given(WORDS, WORDS, st.sampled_from([" ", ", ", "\n"]))
def test_against_brute_force(words: list[str], others: list[str], gap: str) -> None:
    """The same runs in the same order, with the characters of their first and last words; no word is in two runs."""
    one, other = passage(" ".join(words)), passage(gap.join(others).upper())
    found = overlaps(one, other)
    expected = brute(one, other)
    assert [run.tokens for run in found] == [count for _, _, count in expected]
    for run, (first, second, count) in zip(found, expected, strict=True):
        assert (run.output.start, run.output.end) == (one.words[first, 0], one.words[first + count - 1, 1])
        assert (run.example.start, run.example.end) == (
            other.words[second, 0],
            other.words[second + count - 1, 1],
        )


def test_case_and_punctuation_do_not_count() -> None:
    """Word for word is the same whatever stands between the words."""
    run = overlaps(
        passage("He said: STRASSE, and don't go!"), passage("then straße and - don't go, he said")
    )[0]
    assert run.tokens == 4
    assert (run.output.start, run.output.end) == (9, 30)
    assert (run.example.start, run.example.end) == (5, 26)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("one two three", 0),
        ("one two three four", 1),
        ("Liechtensteinischer", 0),
        ("Liechtensteinischere", 1),
        ("", 0),
        ("😀😀 !!", 0),
        ("你好世界", 1),
        ("你好世", 0),
    ],
)
def test_least_length(text: str, count: int) -> None:
    """Four words or twenty characters; without spaces between words each character is one."""
    assert len(overlaps(passage(text), passage(text))) == count


def test_what_is_not_explained_is_not_compared() -> None:
    """Text behind the last explained token was cut away."""
    text = "one two three four five six"
    run = overlaps(Passage(text, [(0, 3), (3, 18)]), passage(text))[0]
    assert (run.output.start, run.output.end, run.tokens) == (0, 18, 4)
