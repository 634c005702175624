"""A cleaned corpus: the rows as they stand without those of a fix list, and nothing where the corpus is another one."""

import json
from pathlib import Path
from typing import Any

import pytest

from wherefrom.attribution.corpus import read_corpus
from wherefrom.attribution.corpus.cleaning import Cleaned, cleaned_rows, write_lines
from wherefrom.cli.cleaning import _leaving
from wherefrom.errors import InvalidRecord
from wherefrom.records import FixAction, FixRow

ROWS = [
    {"id": "a", "prompt": "Hi?", "completion": "Yes \u20ac.", "note": {"kept": 1.5}},
    {"prompt": "No id?", "completion": "None."},
    {"id": "c", "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three rows of two formats; the second has no id of its own."""
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return file


def hashes(corpus: Path) -> dict[str, frozenset[str]]:
    """The texts of a corpus by id, as bundles have them."""
    return {row.example_id: frozenset({row.text_sha256()}) for row in read_corpus(corpus).rows}


@pytest.mark.parametrize(("leaving", "kept"), [([], [0, 1, 2]), (["a"], [1, 2]), (["row-000001", "c"], [0])])
def test_rows_that_stay_are_unchanged(
    corpus: Path, tmp_path: Path, leaving: list[str], kept: list[int]
) -> None:
    """Every field of them, in order; ids that the corpus does not write are those of the bundle."""
    known, done, out = hashes(corpus), Cleaned(), tmp_path / "cleaned.jsonl"
    write_lines(cleaned_rows(corpus, {one: known[one] for one in leaving}, done=done), out)
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == [
        ROWS[one] for one in kept
    ]
    assert (done.kept, done.left_out) == (len(kept), leaving)


def test_another_corpus_is_refused(corpus: Path) -> None:
    """The id alone takes no row away: the text was judged."""
    with pytest.raises(InvalidRecord, match=r"line 1.*'a' has another text"):
        list(cleaned_rows(corpus, {"a": frozenset({"0" * 64})}, done=Cleaned()))


def test_a_row_whose_text_was_erased_leaves_by_its_id(corpus: Path) -> None:
    """Nobody has its hash any more, and it must not be learned again."""
    done = Cleaned()
    assert list(cleaned_rows(corpus, {"a": frozenset()}, done=done)) == ROWS[1:]
    assert done.left_out == ["a"]
    given: dict[str, Any] = {"example_id": "a", "action": FixAction.REMOVE, "text_sha256": "0" * 64}
    one = FixRow.model_construct(**given)
    assert _leaving([one, one.model_copy(update={"text_sha256": "1" * 64})]) == {"a": frozenset()}
    assert _leaving([one.model_copy(update={"text_sha256": "1" * 64})]) == {"a": frozenset({"1" * 64})}


def test_a_bad_row_is_told_with_its_place(corpus: Path) -> None:
    """And nothing is taken for cleaned."""
    corpus.write_text(corpus.read_text() + "{}\n")
    with pytest.raises(InvalidRecord, match="line 4"):
        list(cleaned_rows(corpus, {}, done=Cleaned()))
