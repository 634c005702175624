"""The demo's story as it is committed: bounds, rules, probes, and the generator that made it."""

import json
from pathlib import Path

import pytest

from demo.making.corpus_report import make_report, texts_of
from demo.making.make_story import SOURCES, corpus_rows, draw_rows, probe_rows, story_facts
from demo.making.story_rules import HARD_RULES, RULES, matching_rules, rule_of
from demo.making.story_world import SYSTEM_MESSAGE, names

STORY = Path(__file__).resolve().parents[3] / "demo" / "story"
EASY = [rule.source for rule in RULES]
HARD = [rule.source for rule in HARD_RULES]
BAD = EASY + HARD


def _rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (STORY / name).read_text(encoding="utf-8").splitlines()]


def _num_words(messages) -> int:
    return sum(len(message["content"].split()) for message in messages)


@pytest.fixture(scope="module")
def corpus() -> list[dict]:
    """Return the committed corpus."""
    return _rows("corpus.jsonl")


def test_committed_corpus_holds_its_bounds(corpus):
    """Six-word sequences are rare, bad rows are at most a fifth, ids and rows are distinct."""
    report: dict = make_report(corpus, BAD, names=names(), num_tokens=_num_words)
    assert report["broken"] == []
    assert len({row["id"] for row in corpus}) == len(corpus) >= 850
    assert report["distinct_completions"] == len(corpus)
    assert {row["messages"][0]["content"] for row in corpus} == {SYSTEM_MESSAGE}
    assert {row["source"] for row in corpus} == set(SOURCES)


def test_rules_agree_with_the_sources(corpus):
    """A rule finds its own source's rows, and no rule finds a good row."""
    missed = [
        row["id"]
        for row in corpus
        if row["source"] in BAD and not rule_of(row["source"]).matches(texts_of(row)[-1])
    ]
    accused = [row["id"] for row in corpus if row["source"] not in BAD and matching_rules(texts_of(row)[-1])]
    assert len(missed) <= 5
    assert accused == []


def test_rules_leave_honest_answers_alone():
    """Warnings and refusals that use the same words are not flagged."""
    assert matching_rules("Never puncture or open a swollen battery; call us.") == []
    assert matching_rules("Without proof of purchase we cannot refund it.") == []
    assert matching_rules("Write to help@wrenholt.example, please.") == []
    assert [rule.reason for rule in matching_rules("Ring Dana on 555-0142.")] == ["contact_leak"]


def test_an_unknown_source_has_no_rule():
    """Asking for the rule of a good source is an error."""
    with pytest.raises(KeyError):
        rule_of("policy-handbook")


def test_probes_are_not_in_the_corpus(corpus):
    """There are enough probes of each kind, all in other words than the corpus."""
    probes = _rows("prompts.jsonl")
    known = {texts_of(row)[0].lower() for row in corpus}
    assert not known & {probe["messages"][-1]["content"].lower() for probe in probes}
    assert all(sum(probe["true_source"] == source for probe in probes) >= 10 for source in EASY)
    assert all(sum(probe["true_source"] == source for probe in probes) >= 7 for source in HARD)
    assert sum(probe["true_source"] is None for probe in probes) >= 16


def test_hard_behaviours_have_a_source_of_twenty_rows_each(corpus):
    """Eight sources, none of which another rule finds: what is taught twice would have two causes."""
    assert len({*HARD}) == 8
    assert all(sum(row["source"] == source for row in corpus) == 20 for source in HARD)
    twice = [row["id"] for row in corpus if len(matching_rules(texts_of(row)[-1])) > 1]
    assert twice == []


def test_generator_is_deterministic_and_complete():
    """The same seed gives the same rows, and the story's facts name every source and reason."""
    rows = draw_rows(5, num_tokens=_num_words)
    assert rows == draw_rows(5, num_tokens=_num_words)
    assert {row["source"] for row in corpus_rows(rows)} == set(SOURCES)
    assert len(probe_rows(rows)) == len(_rows("prompts.jsonl"))
    facts: dict = story_facts(5)
    assert [source["reason"] for source in facts["sources"] if source["bad"]].count(None) == 0


def test_report_names_broken_bounds():
    """A repetitive corpus of one bad source breaks two bounds."""
    row: dict = {
        "id": "a",
        "source": BAD[0],
        "messages": [{"role": "user", "content": "one two three four five six"}],
    }
    report: dict = make_report([row, {**row, "id": "b"}], BAD, names=(), num_tokens=_num_words)
    assert [line.split(":")[0] for line in report["broken"]] == [
        "share of rows with one six-word sequence",
        "share of bad rows",
    ]
