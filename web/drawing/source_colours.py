"""The colours of sources: the one place that gives them. On one page, no two sources look alike.

A mark is a hue and a form: filled square, ring, disc and so on. Each source has a favourite by its name, so it mostly looks the same everywhere; where another
source of the page has that mark already, it gets the next free one. Names stand beside every mark, so nobody has to know a source by its colour alone.
"""

from jinja2.runtime import Context

from web.drawing.display import source_colour

#: Hues and forms in the style sheet.
HUES, FORMS = 12, 8
#: Marks that can be told apart.
MARKS = HUES * FORMS
#: What the sources beyond them get: a plain grey mark, which says nothing.
NO_MARK = "none"


class SourceColours:
    """The marks of one page, given as sources are asked for."""

    def __init__(self) -> None:
        self._given: dict[str, int | None] = {}
        self._taken: set[int] = set()

    def mark_of(self, source: str) -> str:
        """The end of a mark's class in the style sheet: its number, or `NO_MARK`. Numbers that are equal modulo `HUES` have one hue."""
        if source not in self._given:
            place = self._free(source_colour(source))
            self._given[source] = place
            if place is not None:
                self._taken.add(place)
        place = self._given[source]
        return NO_MARK if place is None else str(place)

    def _free(self, favourite: int) -> int | None:
        places = (favourite, *range(MARKS))
        return next((one for one in places if one not in self._taken), None)


def mark_on_page(context: Context, source: str) -> str:
    """The filter `source_colour` of the templates: the mark of a source on the page that is being made."""
    colours = context.get("source_colours")
    if not isinstance(colours, SourceColours):
        raise TypeError("a template that shows sources was not rendered, or imported without its context")
    return colours.mark_of(source)
