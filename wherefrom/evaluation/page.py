"""A card as one HTML page that needs nothing but itself."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1c1f24;--faint:#5b636e;--line:#d4d8de}
@media(prefers-color-scheme:dark){:root{--ground:#171a1f;--ink:#e6e8eb;--faint:#a3acb8;--line:#3a4048}}
body{background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}p,.faint{color:var(--faint)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .9rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
.plots{display:flex;flex-wrap:wrap;gap:1rem}.plots svg{max-width:100%;height:auto;border:1px solid var(--line);border-radius:6px}
code{font-size:.9em;overflow-wrap:anywhere}
"""


def card_page(name: str, card: Mapping[str, Any]) -> str:
    """The page; whatever keys the card has are shown as tables.

    Args:
        name: of the bundle.
        card: content of `card.json`; drawings under `plots` are put in as they are, everything else is escaped.
    """
    quality = card.get("quality") or {}
    rest = {key: value for key, value in card.items() if key not in {"quality", "plots"}}
    plots = "".join(one["svg"] for one in card.get("plots", []))
    made_by = f"measured {quality.get('date', '')} by <code>{_shown(quality.get('command', ''))}</code>"
    body = [
        f"<h1>Card of {escape(name)}</h1><p>{made_by}</p>",
        f'<div class="plots">{plots}</div>',
        *_parts({key: value for key, value in quality.items() if key not in {"date", "command"}}, level=2),
        "<h2>Build: cost and coverage</h2>",
        *_parts(rest, level=3),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<title>Card of {escape(name)}</title><style>{_STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def _parts(group: Mapping[str, Any], *, level: int) -> Iterator[str]:
    """Single values as one table, then a section per part."""
    facts = {key: value for key, value in group.items() if not _holds_more(value) and value != {}}
    if facts:
        rows = [[_words(key), _shown(value)] for key, value in facts.items()]
        yield _table([], rows)
    for key, value in group.items():
        if not _holds_more(value):
            continue
        yield f"<h{min(level, 4)}>{_words(key)}</h{min(level, 4)}>"
        table = _as_table(value)
        if table is not None:
            yield table
        elif isinstance(value, Mapping):
            yield from _parts(value, level=level + 1)
        else:
            yield _table([], [[_shown(one)] for one in value])


def _holds_more(value: Any) -> bool:
    return (isinstance(value, Mapping) and bool(value)) or (
        isinstance(value, list) and any(isinstance(one, Mapping) for one in value)
    )


def _as_table(value: Any) -> str | None:
    """Objects of one kind as the rows of a table; None where they are not."""
    names, rows = (list(value), list(value.values())) if isinstance(value, Mapping) else ([], list(value))
    flat = (
        isinstance(row, Mapping) and not any(isinstance(cell, Mapping) for cell in row.values())
        for row in rows
    )
    if not all(flat):
        return None
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_shown(row[key]) if key in row else "" for key in columns] for row in rows]
    named = [[_words(name), *row] for name, row in zip(names, cells, strict=True)] if names else cells
    return _table([*([""] if names else []), *map(_words, columns)], named)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells come escaped."""
    top = f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>" if head else ""
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table>{top}{lines}</table></div>'


def _words(key: object) -> str:
    return escape(str(key).replace("_", " "))


def _shown(value: Any) -> str:
    """One value for people, escaped."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        between = " to " if len(value) == 2 and all(isinstance(one, float) for one in value) else ", "
        return between.join(map(_shown, value)) or "&ndash;"
    if value is None:
        return "&ndash;"
    return escape({True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value))
