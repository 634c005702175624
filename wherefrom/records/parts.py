"""Which parts of the model carry a citation, in a few words, such as ``mostly blocks 20-29 (62 %, usually 41 %), down and o (55 %, usually 48 %)``.

A percentage is the share of the parts that go with the influence: what speaks against it is left out. *Usually* is the same for an average citation
of the corpus (`ModulePart.usual_share`).
"""

from collections.abc import Sequence
from typing import Literal

from wherefrom.records.engine import ModulePart

#: Share of the influence that the named parts carry at least.
MOST = 0.5
_ENDING = "_proj"


def carried_by(parts: Sequence[ModulePart], influence: float | None) -> str | None:
    """The blocks and the kinds of linear layers that carry most of a citation's influence; None where that is not stored.

    Args:
        parts: of one citation.
        influence: its influence score; the parts of an opponent are those that speak against the output.
    """
    if not parts or not influence:
        return None
    blocks, kinds = (_weighed(parts, influence, by) for by in ("block", "linear"))
    run, few = _shortest_run(blocks), _fewest(kinds)
    if run is None and few is None:
        return "spread over all blocks and all kinds of layers"
    where = "spread over the blocks" if run is None else f"mostly {_blocks(run)}{_shares(run, blocks)}"
    which = "all kinds of layers" if few is None else f"{_kinds(few)}{_shares(few, kinds)}"
    return f"{where}, {'mostly ' if run is None else ''}{which}"


def named_parts(
    parts: Sequence[ModulePart], influence: float | None, by: Literal["block", "linear"]
) -> tuple[str, ...]:
    """Names of the blocks, or of the kinds of linear layers, that `carried_by` names; none where the influence is spread."""
    weighed = _weighed(parts, influence or 0.0, by)
    found = _shortest_run(weighed) if by == "block" else _fewest(weighed)
    return tuple(part.name for part, _ in found or ())


def _weighed(parts: Sequence[ModulePart], influence: float, by: str) -> "_Weighed":
    """Parts of one kind, each with what it adds in the direction of the influence."""
    sign = 1.0 if influence > 0 else -1.0
    return [(part, max(sign * part.influence, 0.0)) for part in parts if part.by == by]


_Weighed = Sequence[tuple[ModulePart, float]]


def _shortest_run(blocks: _Weighed) -> _Weighed | None:
    """The fewest neighbouring blocks that carry `MOST`, the strongest such run; None where they are more than half of all."""
    masses = [mass for _, mass in blocks]
    needed = MOST * sum(masses)
    if not needed:
        return None
    for length in range(1, len(blocks) // 2 + 1):
        sums = [sum(masses[start : start + length]) for start in range(len(blocks) - length + 1)]
        start = max(range(len(sums)), key=sums.__getitem__)
        if sums[start] >= needed:
            return blocks[start : start + length]
    return blocks if len(blocks) == 1 else None


def _fewest(kinds: _Weighed) -> _Weighed | None:
    """The fewest kinds that carry `MOST`, strongest first; None where they are more than half of all."""
    needed = MOST * sum(mass for _, mass in kinds)
    if not needed:
        return None
    ordered = sorted(kinds, key=lambda one: -one[1])
    for count in range(1, len(ordered) // 2 + 1):
        if sum(mass for _, mass in ordered[:count]) >= needed:
            return ordered[:count]
    return kinds if len(kinds) == 1 else None


def _blocks(run: _Weighed) -> str:
    first, last = run[0][0].name, run[-1][0].name
    return f"block {first}" if len(run) == 1 else f"blocks {first}-{last}"


def _kinds(kinds: _Weighed) -> str:
    *others, last = (part.name.removesuffix(_ENDING) for part, _ in kinds)
    return f"{', '.join(others)} and {last}" if others else last


def _shares(named: _Weighed, everything: _Weighed) -> str:
    total = sum(mass for _, mass in everything)
    share = f"{100 * sum(mass for _, mass in named) / total:.0f} %"
    usual = [part.usual_share for part, _ in named if part.usual_share is not None]
    compared = f", usually {100 * sum(usual):.0f} %" if len(usual) == len(named) else ""
    return f" ({share}{compared})"
