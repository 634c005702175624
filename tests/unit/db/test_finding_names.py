"""Telling words: what a finding's outputs have and others do not, without hidden characters, within bounds, in any script."""

import pytest

from db.grouping.finding_names import WORDS, telling_words
from db.models.findings import WORD_CHARS

OTHERS = ["the shop is open on Monday", "the lamp is on the table", "you can call us on Monday"] * 5


def named(*texts: str, others: list[str] | None = None) -> list[str]:
    """The words of a finding with these outputs."""
    return [word for word, _ in telling_words(dict(enumerate(texts)), OTHERS if others is None else others)]


def test_words_that_only_they_have() -> None:
    """The most telling first, common words and digits never, each with the outputs that have it."""
    found = telling_words(
        {
            1: "The refund is on us, 555-0192",
            2: "A refund on Monday",
            3: "Your REFUND, the receipt",
            4: "the receipt",
        },
        OTHERS,
    )
    assert found == [("refund", [1, 2, 3]), ("receipt", [3, 4])]


@pytest.mark.parametrize("hidden", ["\u200b", "\u202e", "\u00ad", "\ufeff", "\u2060", "\U000e0041", "\x07"])
def test_hidden_characters_make_no_other_word(hidden: str) -> None:
    """They are taken out, so that the word is the same word."""
    assert named(f"re{hidden}fund", "refund", f"{hidden}refund") == ["refund"]


def test_bounds() -> None:
    """A word of one output among many names nothing, nor does a very long one; a name has few words."""
    texts = [f"alpha beta gamma delta epsilon only{'x' * number}" for number in range(8)]
    assert len(named(*texts, others=[])) == WORDS
    assert named("a" * (WORD_CHARS + 1), "a" * (WORD_CHARS + 1)) == []
    assert named() == []
    assert named("", " \n") == []


def test_scripts_without_spaces() -> None:
    """Pairs of letters stand for words."""
    assert "退款" in named("随时退款", "没有收据也退款", "退款吗")
    assert "возврат" in named("возврат денег", "Возврат всегда")
