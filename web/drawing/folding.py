"""Citations that say nearly the same, folded into one row: the strongest stands for them. No HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

from web.drawing.evidence import CitationView


@dataclass(frozen=True)
class Fold:
    """The citation that stands for its near-duplicates, and those of them that the audit also cites."""

    view: CitationView
    alike: tuple[CitationView, ...] = ()


def folded(views: Sequence[CitationView]) -> tuple[Fold, ...]:
    """The citations in their order, each with the weaker ones that say nearly the same.

    What the bundle joined as near-duplicates is joined here; where it told none, the same words are.
    """
    kept: list[tuple[CitationView, list[CitationView]]] = []
    seen: dict[str, int] = {}
    for view in views:
        names = _names(view)
        place = next((seen[name] for name in names if name in seen), None)
        if place is None:
            place = len(kept)
            kept.append((view, []))
        else:
            kept[place][1].append(view)
        for name in names:
            seen.setdefault(name, place)
    return tuple(Fold(view, tuple(alike)) for view, alike in kept)


def _names(view: CitationView) -> tuple[str, ...]:
    """What tells two citations to be alike: an id of the same group, or the same words."""
    record = view.record
    ids = (record.example_id, *record.alike) if record.alike else (record.example_id,)
    words = " ".join(f"{record.prompt} {record.completion}".casefold().split())
    return (*(f"id {one}" for one in ids), f"text {words}")
