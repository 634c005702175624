r"""Folds look-alike writings of a text into one, so that a lexical search cannot be dodged by letters that only look like Latin ones.

Compatibility forms become plain (NFKC: full-width and mathematical letters, ligatures), invisible format characters go (zero-width spaces and joiners, soft
hyphens, direction marks), and Cyrillic, Greek and Armenian letters that common fonts draw like a Latin letter become that letter. The last step
spares real words of these scripts: it is taken only in a word that also holds ASCII letters, or whose every letter looks Latin. Corpus and
queries are folded alike. Accents stay. The table holds what a browser's font does not tell apart; it is no full list of confusables (UTS 39).
"""

import re
import unicodedata

#: Latin letter to the code points that look like it.
_LOOK_ALIKES = {
    "a": (0x430, 0x3B1, 0x251), "c": (0x441,), "d": (0x501,), "e": (0x435,), "g": (0x261,), "h": (0x4BB, 0x570),
    "i": (0x456, 0x3B9, 0x131), "j": (0x458,), "n": (0x578,), "o": (0x43E, 0x3BF, 0x585), "p": (0x440, 0x3C1), "q": (0x51B,),
    "s": (0x455,), "u": (0x57D, 0x3C5), "v": (0x3BD,), "w": (0x51D,), "x": (0x445, 0x3C7), "y": (0x443,),
    "A": (0x410, 0x391), "B": (0x412, 0x392), "C": (0x421,), "E": (0x415, 0x395), "G": (0x50C,), "H": (0x41D, 0x397),
    "I": (0x406, 0x399), "J": (0x408,), "K": (0x41A, 0x39A), "M": (0x41C, 0x39C), "N": (0x39D,), "O": (0x41E, 0x39F),
    "P": (0x420, 0x3A1), "S": (0x405,), "T": (0x422, 0x3A4), "X": (0x425, 0x3A7), "Y": (0x4AE, 0x3A5), "Z": (0x396,),
}  # fmt: skip
_TABLE = {point: letter for letter, points in _LOOK_ALIKES.items() for point in points}
_WORD = re.compile(r"\w+")
_ASCII_LETTER = re.compile("[A-Za-z]")


def fold(text: str) -> str:
    """The text in lower case with look-alike writings in one form."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKC", text)
    seen = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    return _WORD.sub(lambda found: _fold_word(found.group()), seen).lower()


def _fold_word(word: str) -> str:
    if word.isascii():
        return word
    if _ASCII_LETTER.search(word):
        return word.translate(_TABLE)
    for form in (word, word.lower()):
        folded = form.translate(_TABLE)
        if folded.isascii():
            return folded
    return word
