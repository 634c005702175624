"""A bundle's card as tables: whatever keys are there, turned into facts, tables and plots. No HTML, no SQL."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from web.drawing.display import count

#: The dash of tables.
NOTHING = "–"  # noqa: RUF001 - a dash, as pages print it
#: Deeper structures are shown as text.
MAX_DEPTH = 4
#: A larger plot is left out; the card's file has it.
MAX_PLOT_BYTES = 2_000_000


#: How a card says that the model has not learned the corpus; the reason follows.
_NOT_LEARNED = "NO: "


@dataclass(frozen=True)
class CardTable:
    """Rows of one shape."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CardSection:
    """One part of the card: single facts, then tables."""

    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[CardTable, ...]


@dataclass(frozen=True)
class CardPlot:
    """A plot as an address that an <img> takes; a script in it does not run there."""

    title: str
    source: str


@dataclass
class _Parts:
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[CardTable] = field(default_factory=list)
    sections: list[CardSection] = field(default_factory=list)


def card_sections(card: Mapping[str, Any]) -> tuple[CardSection, ...]:
    """The card without its plots: single values first, then one section per group."""
    return tuple(_sections("", {key: value for key, value in card.items() if key != "plots"}, depth=0))


def not_learned(card: Mapping[str, Any]) -> str | None:
    """Why the bundle's model counts as not trained on its corpus, in the card's words; None where it counts as trained."""
    learning = card.get("learning")
    learned = learning.get("learned") if isinstance(learning, Mapping) else None
    return (
        learned.removeprefix(_NOT_LEARNED)
        if isinstance(learned, str) and learned.startswith(_NOT_LEARNED)
        else None
    )


def calibrated(card: Mapping[str, Any]) -> bool:
    """Whether the bundle states how sure it is; cards of earlier releases do not say it."""
    calibration = card.get("calibration")
    return isinstance(calibration, Mapping) and calibration.get("calibrated") == "yes"


def card_plots(card: Mapping[str, Any]) -> tuple[CardPlot, ...]:
    """The plots of `card["plots"]`, a list of ``{"title", "svg"}``; what is no such thing is passed over."""
    plots = card.get("plots")
    found = []
    for one in plots if isinstance(plots, list) else []:
        svg = one.get("svg") if isinstance(one, Mapping) else None
        if isinstance(svg, str) and "<svg" in svg and len(svg) <= MAX_PLOT_BYTES:
            encoded = base64.b64encode(svg.encode("utf-8", "replace")).decode("ascii")
            found.append(CardPlot(str(one.get("title") or "Plot"), f"data:image/svg+xml;base64,{encoded}"))
    return tuple(found)


def _sections(title: str, group: Mapping[str, Any], *, depth: int) -> Iterator[CardSection]:
    parts = _Parts()
    for key, value in group.items():
        name = _words(key)
        if (table := _table(name, value)) is not None:
            parts.tables.append(table)
        elif isinstance(value, Mapping) and value and depth < MAX_DEPTH:
            inner = f"{title}: {name}" if title else name
            parts.sections += _sections(inner, value, depth=depth + 1)
        else:
            parts.facts.append((name, shown(value)))
    if parts.facts or parts.tables:
        yield CardSection(title, tuple(parts.facts), tuple(parts.tables))
    yield from parts.sections


def _table(title: str, value: Any) -> CardTable | None:
    """A list of objects, or an object of objects, as a table; None where the value is neither."""
    if isinstance(value, Mapping):
        names, rows = list(value), list(value.values())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        names, rows = [], list(value)
    else:
        return None
    if not rows or not all(isinstance(row, Mapping) and row and _is_flat(row) for row in rows):
        return None
    columns = list(dict.fromkeys(key for row in rows for key in row))
    heads = ([""] if names else []) + [_words(key) for key in columns]
    cells = [
        ([_words(names[at])] if names else []) + [shown(row[key]) if key in row else "" for key in columns]
        for at, row in enumerate(rows)
    ]
    return CardTable(title, tuple(heads), tuple(map(tuple, cells)))


def _is_flat(row: Mapping[str, Any]) -> bool:
    return not any(isinstance(value, Mapping) for value in row.values())


def _words(key: object) -> str:
    return str(key).replace("_", " ")


def shown(value: Any) -> str:
    """One value for people: numbers in four digits, lists with commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(key)} {shown(inner)}" for key, inner in value.items()) or NOTHING
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) == 2 and all(isinstance(one, float) for one in value):
            return f"{_plain(value[0])} to {_plain(value[1])}"
        return ", ".join(map(shown, value)) or NOTHING
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return NOTHING if value is None else str(value)
