r"""Which characters of a text each token stands for.

A range is `(start, end)`, `end` excluded, in characters of the completion. Tokens that hold parts of one character (bytes of an emoji) all have that
character's range; tokens that show nothing (the end of a turn, what a template writes) have an empty one. Fast tokenizers
tell the ranges themselves (`render`); `decoded_ranges` is for ids that come from elsewhere and for tokenizers that do not.
"""

from collections.abc import Callable, Sequence

Range = tuple[int, int]

#: A character has at most four bytes in UTF-8, so at most four tokens are read together to find it.
_CHARACTER_TOKENS = 4
_UNFINISHED = "\ufffd"


def decoded_ranges(
    decode: Callable[[list[int]], str], ids: Sequence[int], *, lead: Sequence[int], limit: int
) -> list[Range]:
    """Ranges by decoding, in time linear in the number of tokens.

    What a token adds is the growth of a decoded window that begins one finished token earlier, so that tokenizers which drop the
    white space at the beginning of a text drop it on both sides of the comparison.

    Args:
        decode: ids to text, special tokens left out.
        ids: tokens of the completion.
        lead: tokens of the same text that stand before `ids`.
        limit: length of the text in characters; ranges end there.
    """
    every = [*lead, *ids]
    ranges: list[Range] = []
    window, settled = 0, 0  # tokens `window` to `settled` are context, the ones behind are being read
    position, start = 0, 0  # characters up to `settled`, and up to the next token
    for index in range(len(every)):
        after = decode(every[window : index + 1])
        end = position + max(0, len(after) - len(decode(every[window:settled])))
        ranges.append((min(start, end, limit), min(end, limit)))
        unfinished = after.endswith(_UNFINISHED) and end > position
        start = end - unfinished
        if not unfinished or index + 1 - settled >= _CHARACTER_TOKENS:
            window, settled, position = settled, index + 1, end
    return ranges[len(lead) :]


def clipped_ranges(offsets: Sequence[Range], *, start: int, length: int) -> list[Range]:
    """Ranges in a completion of `length` characters that begins at character `start` of the text that `offsets` count in."""
    return [
        (min(max(first - start, 0), length), min(max(last - start, 0), length)) for first, last in offsets
    ]
