"""The grammar of the demo's text: expansion, matching of questions and answers, and the composer's promise."""

import random

import pytest

from demo.making.story_grammar import Composer, GrammarError, Topic, expand, sequences_of, words_of


def test_expand_fills_slots_and_mends_the_sentence():
    """Alternatives are drawn, slots filled, and spaces, articles and capitals put right."""
    text = expand("{is|is} there a [thing]{| , please} ? yes. maybe", {"thing": "attic"}, random.Random(1))
    assert text.startswith("Is there an attic")
    assert text.endswith("? Yes. Maybe")
    assert " ," not in text


def test_expand_refuses_unknown_slots_and_open_braces():
    """A broken frame is an error, not odd text."""
    with pytest.raises(GrammarError, match="no value"):
        expand("[nothing]", {}, random.Random(1))
    with pytest.raises(GrammarError, match="unbalanced"):
        expand("{a|b", {}, random.Random(1))


def test_words_replace_names_by_one_mark():
    """Two texts that differ in a name only have the same words."""
    names = ("Swift vacuum", "Swift")
    assert words_of("Clean the Swift vacuum now", names) == words_of("Clean the Swift now", names)


def test_sequences_do_not_cross_texts():
    """Question and answer are counted apart."""
    assert sequences_of(("one two three", "four five six"), ()) == set()
    assert sequences_of(("one two three four five six",), ()) == {
        ("one", "two", "three", "four", "five", "six")
    }


def test_matches_must_name_every_answer():
    """A topic whose answers are not all reachable is refused."""
    with pytest.raises(GrammarError, match="matches"):
        Topic("t", "s", ("q",), ("a", "b"), 1, matches=("0",))


def test_pairs_follow_matches():
    """Only answers that fit are paired with a question."""
    topic = Topic("t", "s", ("q", "r"), ("a", "b"), 1, matches=("0", "01"))
    assert topic.pairs() == [("q", "a"), ("r", "a"), ("r", "b")]


def _composer(max_rows: int) -> Composer:
    return Composer(
        rng=random.Random(3),
        names=(),
        max_rows_per_sequence=max_rows,
        fits=lambda question, answer: len(question) + len(answer) < 200,
        slots=lambda rng: {"number": str(rng.randrange(1000))},
    )


def test_composer_keeps_sequences_rare_and_rows_distinct():
    """No six-word sequence stands in more rows than allowed, and no row comes twice."""
    question = "{how|when} do {I|we} {wash|clean|rinse} thing [number] in the {hall|yard}"
    topic = Topic("t", "s", (question,), ("{use|take} {water|soap} number [number]",), 12)
    rows = _composer(4).draw(topic)
    assert len({row.question for row in rows}) == len(rows) == 12
    for sequence in {each for row in rows for each in sequences_of((row.question, row.answer), ())}:
        assert sum(sequence in sequences_of((row.question, row.answer), ()) for row in rows) <= 4


def test_composer_says_when_frames_are_too_few():
    """A topic that cannot yield its rows is an error that names it."""
    with pytest.raises(GrammarError, match="topic small yields only 1 of 2"):
        _composer(9).draw(Topic("small", "s", ("always the same",), ("just this",), 2))
