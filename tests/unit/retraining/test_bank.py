from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import micro_language, shared_corpus, shared_micro_model, tiny_rows, write_jsonl
from wherefrom.attribution.corpus import read_corpus
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.attribution.offline import read_queries
from wherefrom.errors import ConfigurationError, InvalidRecord
from wherefrom.records import Query
from wherefrom.retraining.bank import Bank, load_bank, make_bank, subset, train_model
from wherefrom.retraining.bank_content import UNTIED, BankContent, queries_sha256
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.training import fine_tune, mean_losses, token_rows
from wherefrom.retraining.workers import BankJob, run_job


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    """One epoch."""
    return recipe.model_copy(update={"epochs": 1})


def _make(
    folder: Path, rows: list[TokenRow], queries: list[TokenRow], recipe: Recipe, *, models: int = 3
) -> Bank:
    return make_bank(
        micro_language(), rows, queries={"asked": queries}, recipe=recipe, folder=folder, models=models
    )


def test_a_bank_holds_losses_of_models_trained_on_their_subsets(
    tmp_path: Path, rows: list[TokenRow], queries: list[TokenRow], short: Recipe
) -> None:
    """Each model's losses are those of a fine-tune on the kept rows alone; folder and result agree."""
    bank = _make(tmp_path, rows, queries, short)
    assert len(bank) == 3
    assert bank.kept.sum(axis=1).tolist() == [12, 12, 12]
    chosen = [rows[index] for index in np.flatnonzero(bank.kept[1])]
    model = fine_tune(micro_language(), chosen, short, seed=1)
    assert np.array_equal(bank.losses("asked")[1], mean_losses(model, queries))
    assert np.array_equal(bank.corpus_losses[1], mean_losses(model, rows))
    assert (bank.seconds > 0).all()


def test_a_stopped_bank_goes_on_with_the_same_bytes(
    tmp_path: Path, rows: list[TokenRow], queries: list[TokenRow], short: Recipe
) -> None:
    """Models that are there are kept, the others come out as if nothing had happened."""
    first = _make(tmp_path, rows, queries, short)
    (tmp_path / "model-001.npz").unlink()
    (tmp_path / "model-001.npz.tmp").write_bytes(b"half")
    kept = (tmp_path / "model-000.npz").stat().st_mtime_ns
    again = _make(tmp_path, rows, queries, short)
    assert (tmp_path / "model-000.npz").stat().st_mtime_ns == kept
    assert np.array_equal(first.losses("asked"), again.losses("asked"))
    assert np.array_equal(first.corpus_losses, again.corpus_losses)


def test_a_folder_of_another_bank_is_refused(
    tmp_path: Path, rows: list[TokenRow], queries: list[TokenRow], short: Recipe
) -> None:
    """Other queries are another bank."""
    _make(tmp_path, rows, queries, short, models=1)
    with pytest.raises(ConfigurationError, match="another queries;"):
        _make(tmp_path, rows, queries[:-1], short, models=1)


def test_subsets_are_random_and_never_empty() -> None:
    """The share is exact, seeds differ, and alpha 0 or 1 is refused."""
    assert subset(10, 0.3, seed=0).sum() == 3
    assert not np.array_equal(subset(100, 0.5, seed=0), subset(100, 0.5, seed=1))
    for share in (0.0, 1.0, 0.01):
        with pytest.raises(ConfigurationError, match="between none and all"):
            subset(10, share, seed=0)


def test_a_bank_in_one_file_is_read_too(tmp_path: Path) -> None:
    """`query_loss` is named `queries`, `teacher_query_loss` is named `teacher_queries`."""
    kept = np.eye(4, dtype=bool)
    np.savez(
        tmp_path / "bank.npz",
        kept=kept,
        corpus_loss=np.ones((4, 4)),
        query_loss=np.full((4, 2), 2.0),
        teacher_query_loss=np.full((4, 3), 3.0),
    )
    bank = load_bank(tmp_path / "bank.npz")
    assert np.array_equal(bank.kept, kept)
    assert bank.losses("queries").shape == (4, 2)
    assert bank.losses("teacher_queries").shape == (4, 3)
    assert np.isnan(bank.seconds).all()
    with pytest.raises(ConfigurationError, match="only of queries, teacher_queries"):
        bank.losses("others")


def test_what_is_no_bank_is_refused(tmp_path: Path) -> None:
    """A missing path, a file without its arrays, arrays that do not fit, and no pickles."""
    with pytest.raises(InvalidRecord, match="not a bank"):
        load_bank(tmp_path)
    np.savez(tmp_path / "empty.npz", query_loss=np.ones((2, 2)))
    with pytest.raises(InvalidRecord, match="lacks kept, corpus_loss"):
        load_bank(tmp_path / "empty.npz")
    np.savez(tmp_path / "odd.npz", kept=np.eye(2), corpus_loss=np.ones((2, 2)), query_loss=np.ones((3, 2)))
    with pytest.raises(InvalidRecord, match="do not fit"):
        load_bank(tmp_path / "odd.npz")
    np.savez(tmp_path / "pickle.npz", kept=np.array([object()], dtype=object), corpus_loss=np.ones(1))
    with pytest.raises(InvalidRecord, match="not readable"):
        load_bank(tmp_path / "pickle.npz")


def _content(rows: str = "a", queries: str = "b") -> BankContent:
    return BankContent(rows * 64, {"asked": queries * 64})


def test_a_bank_says_what_it_was_made_with(
    tmp_path: Path, rows: list[TokenRow], queries: list[TokenRow], short: Recipe
) -> None:
    """Digests of corpus and queries stand in each file; a file of another bank is refused, and one of before makes the bank say nothing."""
    for number in range(2):
        train_model(
            micro_language(),
            rows,
            queries={"asked": queries},
            recipe=short,
            folder=tmp_path,
            number=number,
            share=0.5,
            content=_content(),
        )
    assert load_bank(tmp_path).content == _content()
    for foreign in (_content(rows="c"), _content(queries="c")):
        file = tmp_path / "model-001.npz"
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
        np.savez(file, **arrays | foreign.arrays())
        with pytest.raises(InvalidRecord, match=r"model-001.npz: made with another corpus or other queries"):
            load_bank(tmp_path)
    np.savez(file, **{name: one for name, one in arrays.items() if "sha256" not in name})
    assert load_bank(tmp_path).content == BankContent()


def test_a_bank_of_as_many_other_rows_or_queries_is_refused() -> None:
    """Content is compared, not numbers: other words, or the same in another order. What a bank of before does not say is told."""
    asked = [Query(key=str(place), turns=(), completion=f"answer {place}") for place in range(3)]
    bank = BankContent("a" * 64, {"asked": queries_sha256(asked)})
    renamed = [one.model_copy(update={"key": "other"}) for one in asked]
    assert bank.check(corpus_sha256="a" * 64, name="asked", queries=renamed) is None
    with pytest.raises(ConfigurationError, match="made with another corpus than this"):
        bank.check(corpus_sha256="b" * 64, name="asked", queries=asked)
    with pytest.raises(ConfigurationError, match="another queries 'asked' than this"):
        bank.check(corpus_sha256="a" * 64, name="asked", queries=asked[::-1])
    assert BankContent().check(corpus_sha256="b" * 64, name="asked", queries=asked) == UNTIED


@pytest.mark.slow  # two processes import torch
def test_two_processes_make_the_same_bank_as_one(tmp_path: Path, short: Recipe) -> None:
    """From files, with the names of the query files; the number of workers changes no byte."""
    queries = write_jsonl(tmp_path / "held_out.jsonl", tiny_rows(3))
    job = BankJob(
        model_dir=shared_micro_model(),
        adapter_dir=None,
        corpus=shared_corpus(16),
        queries=(queries,),
        recipe=short,
        out=tmp_path / "one",
        models=2,
        threads=1,
    )
    steps: list[tuple[int, int]] = []
    one = run_job(job, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    two = run_job(BankJob(**(vars(job) | {"out": tmp_path / "two"})), workers=2, progress=lambda *_: None)
    assert np.array_equal(one.losses("held_out"), two.losses("held_out"))
    assert np.array_equal(one.kept, two.kept)


def test_a_bank_is_rendered_as_its_bundle(tmp_path: Path, short: Recipe) -> None:
    """By the chat template and the variables given; corpus and queries alike."""
    template = "{% for message in messages %}[{{ mood }} {{ message['role'] }}] {{ message['content'] }}<|end|>{% endfor %}"
    template += "{% if add_generation_prompt %}[{{ mood }} assistant] {% endif %}"
    rule = RenderingRule(chat_template=template, template_args={"mood": "calm"})
    queries = write_jsonl(tmp_path / "held_out.jsonl", tiny_rows(3))
    job = BankJob(
        model_dir=shared_micro_model(),
        adapter_dir=None,
        corpus=shared_corpus(16),
        queries=(queries,),
        recipe=short,
        out=tmp_path / "job",
        models=1,
        rendering=rule,
    )
    made = run_job(job, progress=lambda *_: None)
    language = micro_language().with_rule(rule)
    tokens = partial(token_rows, language, max_tokens=short.max_tokens)
    asked = {"held_out": tokens(read_queries(queries)[0])}
    rows = tokens(read_corpus(shared_corpus(16)).rows)
    assert made.content.corpus_sha256 == read_corpus(shared_corpus(16)).sha256
    assert made.content.queries_sha256 == {"held_out": queries_sha256(read_queries(queries)[0])}
    expected = make_bank(language, rows, queries=asked, recipe=short, folder=tmp_path / "own", models=1)
    assert np.array_equal(made.corpus_losses, expected.corpus_losses)
    assert np.array_equal(made.losses("held_out"), expected.losses("held_out"))
    with pytest.raises(ConfigurationError, match="another corpus"):
        run_job(replace(job, rendering=RenderingRule()), progress=lambda *_: None)


def test_query_files_of_one_name_are_refused(tmp_path: Path, short: Recipe) -> None:
    """Before the model is loaded."""
    job = BankJob(
        model_dir=tmp_path,
        adapter_dir=None,
        corpus=tmp_path,
        queries=(tmp_path / "a" / "q.jsonl", tmp_path / "b" / "q.jsonl"),
        recipe=short,
        out=tmp_path / "bank",
    )
    with pytest.raises(ConfigurationError, match="different names"):
        run_job(job, progress=lambda *_: None)
