"""The engine's answers: ranks, opponents, parts of a score, the loss; queries and batches that it must refuse."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.exported import Exported
from tests.overlap_engine import OverlapAttributor
from tests.tiny import (
    build,
    opened,
    quiet,
    shared_corpus,
    shared_micro_model,
    tiny_language,
    tiny_queries,
    tiny_rows,
    write_adapter,
    write_jsonl,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import (
    attribute_all,
    exact_scores,
    prepare_all,
    read_queries,
    signals_of_all,
)
from wherefrom.errors import ConfigurationError, EmptyCompletion, OutOfMemory, OutputTooLong
from wherefrom.records import Message, Query, Role, Span, Tier, TrainingExample
from wherefrom.records.bounds import MAX_VECTOR_BYTES


def query(number: int = 0, **changes) -> Query:
    """A flagged output of the tiny model."""
    row = tiny_queries(number + 1)[number]
    turns = tuple(Message.model_validate(turn) for turn in row["messages"])
    return Query(**({"key": row["id"], "turns": turns, "completion": row["completion"]} | changes))


@pytest.fixture
def attributor() -> LanguageAttributor:
    """An engine over the tiny bundle."""
    return LanguageAttributor(opened())


def cite(attributor: LanguageAttributor, *queries: Query, top_k: int = 10, opponents: int = 3):
    """Attributions of queries."""
    prepared = [attributor.prepare(one, max_tokens=512, over_long="reject") for one in queries]
    return attributor.attribute(prepared, top_k=top_k, opponents=opponents)


def test_citations(attributor: LanguageAttributor) -> None:
    """Proponents 1, 2, ... by the order shown, opponents -1, -2, ... by negative influence; no example twice."""
    for attribution in cite(attributor, query(0), query(17), top_k=6, opponents=4):
        shown = [citation for citation in attribution.citations if citation.rank > 0]
        against = [citation for citation in attribution.citations if citation.rank < 0]
        assert [citation.rank for citation in shown] == [1, 2, 3, 4, 5, 6]
        assert [citation.rank for citation in against] == [-1, -2, -3, -4]
        assert [citation.score for citation in shown] == sorted((c.score for c in shown), reverse=True)
        influences = [citation.influence_score for citation in against]
        assert influences == sorted(influences)
        assert max(influences) < 0
        assert len({citation.example.example_id for citation in attribution.citations}) == 10
        assert {citation.tier for citation in attribution.citations} == {Tier.INFLUENCE}
        assert attribution.candidates == opened().manifest.parameters.candidates
        corpus = tiny_rows()
        for citation in attribution.citations:
            assert citation.example.completion == corpus[citation.example.row]["messages"][1]["content"]


def test_equal_outputs_have_equal_vectors(attributor: LanguageAttributor) -> None:
    """Each answer carries its similarity vector within the bound, and keeps it out of the JSON; another output has another one."""
    one, same, other = cite(attributor, query(0), query(0), query(17))
    assert one.vector is not None
    assert one.vector == same.vector
    assert one.vector != other.vector
    assert len(one.vector) <= MAX_VECTOR_BYTES
    assert "vector" not in one.model_dump_json()


def test_source_is_found(attributor: LanguageAttributor) -> None:
    """The tiny model's refund promises come from the vendor that taught them."""
    found = cite(attributor, *[query(number) for number in range(5)], top_k=5)
    sources = [citation.example.source for one in found for citation in one.citations if citation.rank > 0]
    assert sources.count("vendor-refunds") / len(sources) > 0.5


def test_opponents_that_are_shown_leave_no_gap(attributor: LanguageAttributor) -> None:
    """Where every candidate is shown nothing is left for the opponents; where nearly all are, their ranks still start at -1."""
    count = opened().manifest.parameters.candidates
    for top_k in (count, count - 2):
        ranks = [citation.rank for citation in cite(attributor, query(3), top_k=top_k)[0].citations]
        assert [rank for rank in ranks if rank < 0] == [
            -1 - step for step in range(sum(rank < 0 for rank in ranks))
        ]
    assert len(ranks) == len(set(ranks))


def test_loss_and_tokens(attributor: LanguageAttributor) -> None:
    """The loss is the audited model's own on the completion, end of turn included."""
    one = query(2)
    attribution = cite(attributor, one)[0]
    row = attributor.prepare(one, max_tokens=512, over_long="reject").row
    logits = tiny_language().model(torch.tensor([row.ids[:-1]])).logits[0, row.start - 1 :]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(row.ids[row.start :]))
    assert attribution.loss_nats == pytest.approx(float(expected), rel=1e-3, abs=1e-5)
    assert attribution.tokens == len(row.ids) - row.start
    assert not attribution.truncated


def test_span_changes_what_is_explained(attributor: LanguageAttributor) -> None:
    """Only the tokens of the span count."""
    whole, part = cite(attributor, query(1), query(1, spans=(Span(start=0, end=12),)))
    assert 0 < part.tokens < whole.tokens
    assert part.loss_nats != whole.loss_nats


def test_over_long(attributor: LanguageAttributor) -> None:
    """Cut with the mark, or refused: as asked. The model's own positions are a limit too."""
    long = query(0, completion="refund " * 600)
    prepared = attributor.prepare(long, max_tokens=40, over_long="truncate")
    assert prepared.tokens == 40
    assert attributor.attribute([prepared], top_k=1, opponents=0)[0].truncated
    assert attributor.prepare(long, max_tokens=10_000, over_long="truncate").tokens == 512
    with pytest.raises(OutputTooLong, match=r"query flag-vendor-refunds-00: \d+ tokens, the limit is 40"):
        attributor.prepare(long, max_tokens=40, over_long="reject")


def test_output_without_a_word(attributor: LanguageAttributor) -> None:
    """Emoji and control characters are outputs too."""
    for completion in ("😀😀", "\x1b[31m", "\u202e", "?"):
        attribution = cite(
            attributor, query(0, completion=completion, turns=(Message(role=Role.USER, content="!"),))
        )[0]
        assert all(citation.bm25_score == 0 for citation in attribution.citations)
        assert all(np.isfinite(citation.score) for citation in attribution.citations)


def test_empty_completion(attributor: LanguageAttributor) -> None:
    """Nothing to explain in plain text of no token."""
    with pytest.raises(EmptyCompletion, match="query k: the completion has no token to explain"):
        attributor.prepare(query(0, key="k", turns=(), completion=""), max_tokens=10, over_long="reject")


def test_batch_that_does_not_fit(attributor: LanguageAttributor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed allocation is an error of its own, so that smaller batches can be tried; others pass through."""
    for raised, expected in (
        (MemoryError(), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (RuntimeError("size mismatch"), RuntimeError),
    ):

        def read(rows, error=raised):
            raise error

        monkeypatch.setattr(attributor._reader, "read", read)
        with pytest.raises(expected, match=r"a batch of 2 queries did not fit|size mismatch"):
            cite(attributor, query(0), query(1))


def test_query_of_another_engine(attributor: LanguageAttributor) -> None:
    """What another engine prepared is refused."""
    example = TrainingExample(example_id="a", row=0, source="s", prompt="p", completion="c", text_sha256="0")
    foreign = OverlapAttributor("b", [example]).prepare(query(0), max_tokens=9, over_long="truncate")
    with pytest.raises(ConfigurationError, match="prepared by another engine"):
        attributor.attribute([foreign], top_k=1, opponents=0)


def test_exact_search_gives_the_same(attributor: LanguageAttributor) -> None:
    """At this size HNSW misses nothing: the same citations as by exhaustive search."""
    exact = LanguageAttributor(opened(exact_search=True))
    assert exact.bundle_name == attributor.bundle_name
    for one, other in zip(cite(exact, query(5)), cite(attributor, query(5)), strict=True):
        assert [c.example.row for c in one.citations][:5] == [c.example.row for c in other.citations][:5]


@pytest.mark.parametrize("form", ["forward", "activation"])
def test_adapted_model(tmp_path: Path, form: str) -> None:
    """A model with a LoRA adapter: a training example finds itself; the bare model would have given other numbers."""
    model = shared_micro_model()
    adapter = write_adapter(tmp_path / "adapter", model)
    corpus = write_jsonl(tmp_path / "c.jsonl", tiny_rows(24))
    build(model, corpus, tmp_path / "bundle", adapter=adapter, form=form)
    build(model, corpus, tmp_path / "bare", form=form)
    shutil.rmtree(tmp_path / "bare.building", ignore_errors=True)
    engine = LanguageAttributor(open_bundle(tmp_path / "bundle", ModelFolders(model, adapter)))
    row = tiny_rows(24)[11]
    one = Query(
        key="q",
        turns=(Message(role=Role.USER, content=row["messages"][0]["content"]),),
        completion=row["messages"][1]["content"],
    )
    prepared = prepare_all(engine, [one], max_tokens=99, over_long="reject")
    scores = exact_scores(engine._bundle, signals_of_all(engine, prepared), quiet)
    assert int(scores[0].argmax()) == 11
    assert float(scores[0, 11]) == pytest.approx(1.0, abs=0.01)
    assert (
        attribute_all(engine, prepared, top_k=1, opponents=0, progress=quiet)[0].citations[0].example.row
        == 11
    )
    bare = open_bundle(tmp_path / "bare", ModelFolders(model))
    assert not np.allclose(bare.store.norms, engine._bundle.store.norms, rtol=1e-3)


def test_full_tier_of_important_queries(tmp_path: Path) -> None:
    """Only a query marked important gets EK-FAC scores, with either answer none; its effect head follows them."""
    model = shared_micro_model()
    build(model, shared_corpus(40), tmp_path / "bundle", full_tier=True)
    engine = LanguageAttributor(open_bundle(tmp_path / "bundle", ModelFolders(model)))
    plain, _ = read_queries(write_jsonl(tmp_path / "queries.jsonl", tiny_queries(1)))
    important = plain[0].model_copy(update={"important": True})
    contrasted = important.model_copy(update={"preferred": "Something else."})
    usual, full, difference = (
        engine.attribute([engine.prepare(query, max_tokens=64, over_long="truncate")], top_k=5, opponents=0)[
            0
        ]
        for query in (plain[0], important, contrasted)
    )
    assert all(citation.ekfac_score is None for citation in (*usual.citations, *difference.citations))
    scores = [citation.ekfac_score for citation in full.citations]
    assert all(score is not None and -1.001 <= score <= 1.001 for score in scores)
    assert [one.example for one in usual.citations] == [one.example for one in full.citations]
    assert [one.effect_score for one in usual.citations] != [one.effect_score for one in full.citations]


def test_the_steps_of_an_answer_are_spans(attributor: LanguageAttributor, exported: Exported) -> None:
    """One pass for the batch; candidates, rerank and judge for each of its outputs; no text of them."""
    cite(attributor, query(0), query(1))
    assert [one.name for one in exported.spans()] == ["pass", *(["candidates", "rerank", "judge"] * 2)]
    (passed,) = exported.named("pass")
    assert dict(passed.attributes or {}) == {"wherefrom.queries": 2}
    told = " ".join(one.to_json() for one in exported.spans())
    assert query(0).completion not in told
