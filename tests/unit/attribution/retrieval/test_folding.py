"""Look-alike writings fold into one; real words of other scripts stay apart."""

import pytest

from wherefrom.attribution.retrieval.folding import fold
from wherefrom.attribution.retrieval.lexical import LexicalIndex

CYRILLIC = str.maketrans("aceopxyABCEHKMOPTX", "".join(map(chr, (
    0x430, 0x441, 0x435, 0x43E, 0x440, 0x445, 0x443,
    0x410, 0x412, 0x421, 0x415, 0x41D, 0x41A, 0x41C, 0x41E, 0x420, 0x422, 0x425,
))))  # fmt: skip


@pytest.mark.parametrize("text", ["peace treaty", "A Copper Box", "MAKE THE PATCH", "room 101"])
def test_cyrillic_letters_fold_to_what_they_look_like(text):
    """A text written with Cyrillic look-alikes folds to the text itself in lower case."""
    disguised = text.translate(CYRILLIC)
    assert disguised != text
    assert fold(disguised) == text.lower()


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("\uff22\uff21\uff34\uff34\uff25\uff32\uff39", "battery"),  # full-width
        ("bat\u200btery", "battery"),  # zero-width space
        ("bat\u00adtery", "battery"),  # soft hyphen
        ("\U0001d5bb\U0001d5ba\U0001d5cd", "bat"),  # mathematical sans-serif
        ("o\ufb03ce", "office"),  # ligature
        ("Caf\u00e9", "caf\u00e9"),  # accents stay
    ],
)
def test_compatibility_forms_and_invisible_characters(written, folded):
    """What a reader sees as the same word is the same word."""
    assert fold(written) == folded


def test_words_of_other_scripts_stay():
    """A Russian and a Greek word keep their letters, in both cases."""
    russian, greek = "\u0434\u0430", "\u03b4\u03b5\u03bd"
    assert fold(russian) == russian
    assert fold(russian.upper()) == russian
    assert fold(greek) == greek


def test_ascii_is_lower_cased_only():
    """Folding changes nothing else in ASCII text."""
    assert fold("It's 3 o'clock, Bob_7!") == "it's 3 o'clock, bob_7!"


def test_bm25_finds_a_disguised_text():
    """A query of look-alikes has the scores of the plain query, and a disguised row those of the plain row."""
    rows = ["open the swollen battery", "the parcel comes on monday", "a receipt is needed"]
    plain = LexicalIndex.build(rows)
    asked = "open a battery"
    assert plain.scores(asked.translate(CYRILLIC)).tolist() == plain.scores(asked).tolist()
    hidden = LexicalIndex.build([rows[0].translate(CYRILLIC), *rows[1:]])
    assert hidden.scores(asked).tolist() == plain.scores(asked).tolist()
