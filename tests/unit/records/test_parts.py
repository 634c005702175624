"""The parts of the model that carry a citation, in words."""

import pytest

from wherefrom.records import ModulePart, carried_by

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def parts(
    blocks: list[float], kinds: list[float] | None = None, usual: float | None = None
) -> list[ModulePart]:
    """Parts with these influences; kinds by default one seventh of the sum each."""
    even = [sum(blocks) / len(KINDS)] * len(KINDS)
    found = [
        ModulePart(by="block", name=str(place), influence=value, usual_share=usual)
        for place, value in enumerate(blocks)
    ]
    found += [
        ModulePart(by="linear", name=name, influence=value, usual_share=usual)
        for name, value in zip(KINDS, kinds or even, strict=True)
    ]
    return found


@pytest.mark.parametrize(
    ("blocks", "kinds", "words"),
    [
        ([0.0] * 20 + [0.05] * 10, None, "mostly blocks 20-24 (50 %), all kinds of layers"),
        ([0.01] * 10, None, "mostly blocks 0-4 (50 %), all kinds of layers"),
        ([0.02, 0.01, 0.01, 0.01, 0.02], None, "spread over all blocks and all kinds of layers"),
        ([0.0, 0.5, 0.1, 0.1], None, "mostly block 1 (71 %), all kinds of layers"),
        (
            [0.02, 0.01, 0.01, 0.01, 0.02],
            [0.0, 0.0, 0.01, 0.03, 0.0, 0.0, 0.03],
            "spread over the blocks, mostly o and down (86 %)",
        ),
        ([0.1], None, "mostly block 0 (100 %), all kinds of layers"),
    ],
)
def test_words_name_the_fewest_parts_with_half(
    blocks: list[float], kinds: list[float] | None, words: str
) -> None:
    """The shortest run of blocks and the fewest kinds that carry half; *spread* where more than half of the parts are needed."""
    assert carried_by(parts(blocks, kinds), sum(blocks)) == words


def test_words_compare_with_an_average_citation() -> None:
    """What is usual for the same parts stands beside their share."""
    found = carried_by(parts([0.4, 0.4, 0.1, 0.1, 0.0], usual=0.1), 1.0)
    assert found == "mostly blocks 0-1 (80 %, usually 20 %), all kinds of layers"


def test_parts_of_an_opponent_are_those_against_the_output() -> None:
    """What speaks the other way is left out on both sides."""
    values = [-0.4, 0.1, 0.0, -0.1]
    assert carried_by(parts(values), sum(values)) == "mostly block 0 (80 %), all kinds of layers"
    assert carried_by(parts([0.4, -0.3, 0.0, 0.1]), 0.2) == "mostly block 0 (80 %), all kinds of layers"


def test_nothing_is_said_where_nothing_is_stored() -> None:
    """Old citations have no parts, and a citation without an influence has nothing to divide."""
    assert carried_by((), 0.5) is None
    assert carried_by(parts([0.1, 0.2]), None) is None
    assert carried_by(parts([0.0, 0.0]), 0.0) is None
    assert carried_by(parts([0.0, 0.0]), 0.1) == "spread over all blocks and all kinds of layers"
