"""Lines of CSV that a spreadsheet shows and never runs, whatever separator its locale reads.

A spreadsheet takes a cell that begins with one of `FORMULA_STARTS` for a formula. Where it reads `;` or a tab as the separator, a
cell also begins in the middle of ours: after every separator, quote or line break of a text. Such a beginning gets an apostrophe.
Files for programs (JSONL, Parquet) hold every text as it is.
"""

import csv
import io
import re
from collections.abc import Iterable

#: What a spreadsheet takes for the start of a formula; the wide forms count in some locales.
FORMULA_STARTS = "=+-@\uff1d\uff0b\uff0d\uff20\t\r\n"
#: A beginning of a cell (of the text, or after what any locale separates, quotes or breaks by), spaces, and a formula's start.
_BEGINNING = re.compile(
    r"(\A|[;,|\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029\"'])(\s*)([=+\-@\uff1d\uff0b\uff0d\uff20])"
)
_LEADING_BLANK = re.compile(r"\A[\t\r\n]")


def neutral(text: str) -> str:
    """The text with an apostrophe before everything that a spreadsheet could run."""
    guarded = _BEGINNING.sub(r"\1\2'\3", text)
    return f"'{guarded}" if _LEADING_BLANK.match(guarded) else guarded


def csv_line(values: Iterable[object]) -> str:
    """One line: numbers as they are, None as an empty cell, everything else as neutral text."""
    line = io.StringIO()
    csv.writer(line).writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int | float) else neutral(str(value))
