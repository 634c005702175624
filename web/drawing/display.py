"""Text of strangers, made safe to look at, and the filters of the templates.

Flagged outputs and training examples may hold control characters, bidirectional overrides and invisible letters;
they are evidence, so they are shown by name instead of being obeyed or dropped. Everything is escaped.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable
from datetime import datetime

from markupsafe import Markup, escape

from wherefrom.records import utc_now

#: Marks among which each source has a favourite; `web.drawing.source_colours` gives the others where one is taken.
NUM_SOURCE_COLOURS = 24

# Not seen although no control or format character: fillers, blank pattern, variation selectors that smuggle text.
_INVISIBLE = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0xE0100, 0xE01F0)}
)
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_PLAIN_CONTROLS = frozenset("\n\t")
# Everything below that is printable ASCII or a plain control needs no look-up of its category.
_MAYBE_HIDDEN = re.compile(r"[^\n\t -~]")
_CONTROL_NAMES = {
    0x00: "NULL",
    0x07: "BELL",
    0x08: "BACKSPACE",
    0x0D: "CARRIAGE RETURN",
    0x1B: "ESCAPE",
    0x7F: "DELETE",
}


#: Longest text that a form is filled with.
EDITED_CHARACTERS = 8_000
#: Hidden characters of one text that are named; a text of nothing else would grow sixtyfold. Further ones are shown as this sign.
NAMED_CHARACTERS = 500
_UNNAMED = Markup("\N{REPLACEMENT CHARACTER}")


def is_hidden(character: str) -> bool:
    """True for a character that shows nothing or changes how its neighbours show."""
    if character in _PLAIN_CONTROLS:
        return False
    return unicodedata.category(character) in _HIDDEN_CATEGORIES or ord(character) in _INVISIBLE


def _badge(character: str) -> Markup:
    code = ord(character)
    name = unicodedata.name(character, _CONTROL_NAMES.get(code, "UNNAMED"))
    return Markup('<span class="hidden-char" title="{0}">U+{1:04X}</span>').format(name, code)


def visible(text: str) -> Markup:
    """The text, escaped, with every hidden character shown as a badge that names it."""
    text = text.replace("\r\n", "\n")
    pieces: list[Markup] = []
    start = 0
    for found in _MAYBE_HIDDEN.finditer(text):
        if is_hidden(found.group()):
            badge = _badge(found.group()) if len(pieces) < 2 * NAMED_CHARACTERS else _UNNAMED
            pieces += [escape(text[start : found.start()]), badge]
            start = found.end()
    return Markup("").join([*pieces, escape(text[start:])])


def editable(text: str | None) -> str:
    """The text where a form may hold it; empty where it is too long, or has hidden characters, which a form would obey."""
    shown = text if text and len(text) <= EDITED_CHARACTERS else ""
    return "" if any(map(is_hidden, set(shown))) else shown


def plain_line(text: str) -> str:
    """One line for titles and attributes: white space folded, hidden characters as `<U+202E>`."""
    folded = " ".join(text.split())
    return "".join(f"<U+{ord(one):04X}>" if is_hidden(one) else one for one in folded)


def source_colour(source: str) -> int:
    """The favourite mark of a source, 0 to `NUM_SOURCE_COLOURS` - 1; the same on every page and machine."""
    return hashlib.sha256(source.encode("utf-8", "replace")).digest()[0] % NUM_SOURCE_COLOURS


def duration(seconds: float | None) -> str:
    """A length of time in at most two units, for people."""
    if seconds is None:
        return "none"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {small}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def ago(moment: datetime) -> str:
    """How long ago a moment was, in one unit."""
    seconds = (utc_now() - moment).total_seconds()
    if seconds < 45:
        return "just now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "1 min ago"


def moment_text(moment: datetime) -> str:
    """A moment as people read it, to the second, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def count(number: int, more: bool = False) -> str:  # noqa: FBT001, FBT002 - templates give it by position
    """A count with thin groups of thousands; `more`: counting ended there."""
    return f"{'more than ' if more else ''}{number:,}".replace(",", "\u202f")


def signed(number: float | None, digits: int = 2) -> str:
    """A score with its sign; a dash where it is not known."""
    if number is None:
        return "–"  # noqa: RUF001 - the dash of tables
    text = f"{number:+.{digits}f}"
    return text.replace("-", "\u2212")


def share(part: float, whole: float) -> float:
    """A part of a whole in percent, 0 to 100; 0 where there is no whole."""
    return 100 * min(max(part / whole, 0.0), 1.0) if whole > 0 else 0.0


def percent(value: float) -> str:
    """A percentage for people."""
    return f"{value:.1f}%" if 0 < value < 10 else f"{value:.0f}%"


def chance(value: float, *, equals: bool = False) -> str:
    """A probability for people: three digits, or less than a thousandth; `equals`: with its sign of equality."""
    if value < 0.001:
        return "< .001"
    text = f"{value:.3f}".lstrip("0") if value < 1 else "1"
    return f"= {text}" if equals else text


def age_s(moment: datetime) -> float:
    """How long ago, seconds."""
    return (utc_now() - moment).total_seconds()


#: Filters of the templates by name.
FILTERS: dict[str, Callable[..., object]] = {
    "visible": visible,
    "editable": editable,
    "plain_line": plain_line,
    "duration": duration,
    "ago": ago,
    "age_s": age_s,
    "moment_text": moment_text,
    "count": count,
    "signed": signed,
    "percent": percent,
    "chance": chance,
}
