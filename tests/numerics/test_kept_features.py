"""Bundles that keep less of each training example to score it with, beside the exact one of the same model and corpus."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.numerics.tolerances import FLOAT32, INT8_COSINE
from tests.tiny import (
    build,
    quiet,
    shared_corpus,
    shared_micro_model,
    tiny_queries,
    write_adapter,
    write_jsonl,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles import corpus_pass
from wherefrom.attribution.bundles.adding import add_examples
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.erasing import forget_examples
from wherefrom.attribution.bundles.from_text import Rereader, TextStore
from wherefrom.attribution.bundles.manifest import read_card
from wherefrom.attribution.bundles.options import COMPACT_UP_TO, EXACT_UP_TO, features_kept
from wherefrom.attribution.bundles.shards import RawShard, read_rows
from wherefrom.attribution.cores import CoreStore
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.kernel import kernel_norms, segment_sum, token_kernel
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.trajectory import ReadsSignals
from wherefrom.attribution.offline import exact_scores, prepare_all, read_queries, signals_of_all
from wherefrom.attribution.query import ReadQuery
from wherefrom.errors import BundleCorrupt

ROWS = 40
EVERY = np.arange(ROWS)


@dataclass(frozen=True)
class Made:
    """A bundle of one form, with what it was built of."""

    path: Path
    folders: ModelFolders

    def open(self) -> Bundle:
        """The bundle, opened anew: nothing of it was read yet."""
        return open_bundle(self.path, self.folders, exact_search=True)


class Workshop:
    """Builds each kind of bundle once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._adapter = write_adapter(folder / "lora", shared_micro_model())

    def bundle(self, form: str, features: str) -> Made:
        """The bundle of a form that keeps such features."""
        out = self._folder / f"{form}-{features}"
        folders = ModelFolders(shared_micro_model(), self._adapter if form.startswith("adapter") else None)
        if not out.exists():
            build(
                folders.model, shared_corpus(ROWS), out, adapter=folders.adapter, form=form, features=features
            )
        return Made(out, folders)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """One for all tests."""
    return Workshop(tmp_path_factory.mktemp("kept"))


def asked(bundle: Bundle, folder: Path) -> list[ReadQuery]:
    """Two outputs and a training example, read."""
    engine = LanguageAttributor(bundle)
    file = write_jsonl(folder / "queries.jsonl", tiny_queries(2))
    queries = read_queries(file)[0] + read_queries(shared_corpus(ROWS))[0][:1]
    return signals_of_all(engine, prepare_all(engine, queries, max_tokens=256, over_long="reject"))


def store_of(bundle: Bundle) -> tuple[TextStore, Rereader]:
    """The store that reads texts, and what reads them."""
    assert isinstance(bundle.store, TextStore)
    return bundle.store, bundle.store.rereader


@pytest.mark.parametrize("form", ["adapter", "adapter-forward", "activation"])
def test_scores_from_texts_are_the_stored_ones(workshop: Workshop, form: str, tmp_path: Path) -> None:
    """Without any stored feature: the same scores but for int8's rounding, the same candidates and order, and shares of tokens that add up to the score exactly."""
    exact, bare = workshop.bundle(form, "exact").open(), workshop.bundle(form, "none").open()
    left = {one.name for one in (bare.path / "features").iterdir()}
    assert not left & {f"{name}.npy" for name in ("a", "b", "cores", "sketches", "final", "final_scales")}
    assert {"norms.npy", "offsets.npy", "vectors.npy", "pooled.npy"} <= left
    queries, again = asked(exact, tmp_path), asked(bare, tmp_path)
    np.testing.assert_allclose(
        exact_scores(bare, again, quiet), exact_scores(exact, queries, quiet), atol=INT8_COSINE
    )
    for old, new in zip(queries, again, strict=True):
        one, other = (LanguageAttributor(of).score(read).scores for of, read in ((exact, old), (bare, new)))
        assert sorted(one.candidates.rows) == sorted(other.candidates.rows)
        assert one.candidates.rows[one.shown.argmax()] == other.candidates.rows[other.shown.argmax()]
        assert (one.final is None) == (other.final is None) == (form != "adapter")
        if one.final is not None and other.final is not None:
            np.testing.assert_allclose(other.final, one.final, atol=0.02 * float(np.abs(one.final).max()))
        pairs, lengths = bare.store.contributions(new.signals.factors, EVERY[3:6])
        assert lengths == tuple(exact.store.lengths(EVERY[3:6]).tolist())
        totals = segment_sum(pairs.sum(dim=0)[:, None], lengths)[:, 0]
        torch.testing.assert_close(
            totals,
            bare.store.scores(new.signals.factors, EVERY[3:6])[0],
            rtol=2e-2,
            atol=1e-3 * float(new.signals.norm),
        )
    assert (bare.modules is None) == (form == "activation")


def test_rows_are_read_as_the_build_read_them(workshop: Workshop, tmp_path: Path) -> None:
    """By a plain pass over the corpus and the token kernel, to float32; each layer's part adds up to the whole."""
    bare = workshop.bundle("adapter", "none").open()
    (query, *_) = asked(bare, tmp_path)
    read = bare.reader.read(bare.tokens.read(EVERY))
    factors = Factors(*bare.whitener.apply(read.a, read.b), read.lengths)
    expected = segment_sum(token_kernel(query.signals.factors, factors).sum(dim=0)[:, None], read.lengths)[
        :, 0
    ]
    scale = float(query.signals.norm) * float(kernel_norms(factors).max())
    found = bare.store.scores(query.signals.factors, EVERY)[0]
    torch.testing.assert_close(found / scale, expected / scale, **FLOAT32)
    store, _ = store_of(bare)
    parts = store.layer_scores(query.signals.factors, EVERY).sum(dim=1)
    torch.testing.assert_close(parts / scale, found / scale, **FLOAT32)


def test_a_query_reads_its_candidates_once(workshop: Workshop, tmp_path: Path) -> None:
    """Scores, final gradients, parts of the model and spans of one answer take one pass; what does not fit into the kept memory is read again, and gives the same."""
    bare = workshop.bundle("adapter", "none").open()
    engine = LanguageAttributor(bare)
    _, rereader = store_of(bare)
    (prepared, *_) = asked(bare, tmp_path)
    answer = engine.attribute([prepared], top_k=5, opponents=2)[0]
    assert any(one.spans for one in answer.citations)
    assert all(one.modules for one in answer.citations)
    assert rereader.passes == answer.candidates
    first = bare.store.scores(prepared.signals.factors, EVERY[:4])
    store, small = store_of(workshop.bundle("adapter", "none").open())
    small._kept_bytes = 1
    for reads in (4, 8):
        torch.testing.assert_close(
            store.scores(prepared.signals.factors, EVERY[:4]), first, rtol=1e-4, atol=1e-3
        )
        assert (small.passes, len(small._kept), small._bytes) == (reads, 0, 0)


def test_kept_rows_take_no_more_than_they_say(workshop: Workshop) -> None:
    """A row that stays behind does not hold the batch that it was read with."""
    _, rereader = store_of(workshop.bundle("adapter", "none").open())
    rereader.read(EVERY[:8])
    rereader._kept_bytes = rereader._bytes // 2
    rereader.read(EVERY[3:4])
    rereader.read(EVERY[20:21])
    assert 3 in rereader._kept
    assert 0 not in rereader._kept
    tensors = [
        part for one in rereader._kept.values() for part in (one.factors.a, one.factors.b, one.final) if part is not None
    ]  # fmt: skip
    held = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    assert sum(held.values()) == rereader._bytes


def test_what_was_erased_is_never_read_again(workshop: Workshop, tmp_path: Path) -> None:
    """The bundle without some rows has neither their tokens nor their texts; rows that come later are read as those of before."""
    made = workshop.bundle("adapter", "none")
    before = made.open()
    gone = [before.texts.read([row])[0].example_id for row in (0, 7)]
    forget_examples(made.path, tmp_path / "less", gone)
    less = Made(tmp_path / "less", made.folders).open()
    assert len(less.store) == len(less.tokens) == ROWS - 2
    kept = np.delete(EVERY, [0, 7])
    assert [one.ids for one in less.tokens.read(range(ROWS - 2))] == [
        one.ids for one in before.tokens.read(kept)
    ]
    (query, *_) = asked(before, tmp_path)
    torch.testing.assert_close(
        less.store.scores(query.signals.factors, EVERY[: ROWS - 2]),
        before.store.scores(query.signals.factors, kept),
        rtol=1e-4,
        atol=1e-3,
    )
    rows = tiny_queries(3)
    added = write_jsonl(tmp_path / "more.jsonl", [row | {"id": f"new-{at}"} for at, row in enumerate(rows)])
    add_examples(tmp_path / "less", added, tmp_path / "more", folders=made.folders, progress=quiet)
    more = Made(tmp_path / "more", made.folders).open()
    assert len(more.store) == ROWS + 1
    found = exact_scores(more, asked(more, tmp_path), quiet)
    assert int(found[0].argmax()) == ROWS - 2  # the output itself is a row now
    assert found[0, ROWS - 2] == pytest.approx(1.0, abs=INT8_COSINE)


def test_compact_features_rank_as_the_exact_ones(workshop: Workshop, tmp_path: Path) -> None:
    """One bit for each number that is left, and final gradients of s B alone: scores near the exact ones, every training example first for itself, parts and spans as ever."""
    exact, compact = workshop.bundle("adapter", "exact").open(), workshop.bundle("adapter", "compact").open()
    queries, again = asked(exact, tmp_path), asked(compact, tmp_path)
    whole, few = exact_scores(exact, queries, quiet), exact_scores(compact, again, quiet)
    assert float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(whole, few, strict=True)])) > 0.98
    assert int(few[2].argmax()) == 0
    assert few[2, 0] == pytest.approx(1.0, abs=0.02)  # a scale keeps the inner product with itself
    assert compact.store.bytes_per_example < 0.45 * exact.store.bytes_per_example
    engine = LanguageAttributor(compact)
    answer = engine.attribute([again[2]], top_k=5, opponents=1)[0]
    assert answer.citations[0].example.row == 0
    assert all(one.modules for one in answer.citations)
    parts = [one.influence for one in answer.citations[0].modules if one.by == "block"]
    assert sum(parts) == pytest.approx(answer.citations[0].influence_score, abs=1e-3)
    pairs, lengths = compact.store.contributions(again[2].signals.factors, EVERY[:3])
    totals = segment_sum(pairs.sum(dim=0)[:, None], lengths)[:, 0]
    torch.testing.assert_close(
        totals, compact.store.scores(again[2].signals.factors, EVERY[:3])[0], rtol=1e-3, atol=1e-2
    )
    assert exact.final is not None
    assert compact.final is not None
    one, other = (
        np.asarray(of.final.scores(read.signals.final, EVERY))
        for of, read in ((exact, queries[2]), (compact, again[2]))
        if of.final is not None and read.signals.final is not None
    )
    assert np.corrcoef(one, other)[0, 1] > 0.9


def test_compact_factors_of_tokens_rank_as_the_whole_ones(workshop: Workshop, tmp_path: Path) -> None:
    """Two bits for each number of a token's a and four for its b, in the forms that read the residual stream; shares of tokens add up to the score."""
    exact, compact = (workshop.bundle("activation", kind).open() for kind in ("exact", "compact"))
    queries, again = asked(exact, tmp_path), asked(compact, tmp_path)
    whole, few = exact_scores(exact, queries, quiet), exact_scores(compact, again, quiet)
    assert float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(whole, few, strict=True)])) > 0.95
    assert int(few[2].argmax()) == 0
    assert compact.store.bytes_per_example < 0.45 * exact.store.bytes_per_example
    signals = again[0].signals
    pairs, lengths = compact.store.contributions(signals.factors, EVERY[2:6])
    totals = segment_sum(pairs.sum(dim=0)[:, None], lengths)[:, 0]
    torch.testing.assert_close(
        totals, compact.store.scores(signals.factors, EVERY[2:6])[0], rtol=1e-3, atol=1e-2
    )


def test_rows_come_and_go_in_compact_bundles(workshop: Workshop, tmp_path: Path) -> None:
    """What stays scores bit for bit as before; what comes is made compact as a build would."""
    made = workshop.bundle("adapter", "compact")
    before = made.open()
    (query, *_) = asked(before, tmp_path)
    forget_examples(made.path, tmp_path / "less", [before.texts.read([7])[0].example_id])
    added = write_jsonl(tmp_path / "more.jsonl", [tiny_queries(1)[0] | {"id": "new"}])
    add_examples(tmp_path / "less", added, tmp_path / "more", folders=made.folders, progress=quiet)
    more = Made(tmp_path / "more", made.folders).open()
    assert len(more.store) == ROWS
    expected = before.store.scores(query.signals.factors, np.delete(EVERY, 7))
    torch.testing.assert_close(more.store.scores(query.signals.factors, EVERY[: ROWS - 1]), expected)
    found = exact_scores(more, asked(more, tmp_path), quiet)
    assert int(found[0].argmax()) == ROWS - 1
    assert more.final is not None


def test_compact_cores_need_their_rank(workshop: Workshop) -> None:
    """Their files do not tell it."""
    with pytest.raises(BundleCorrupt, match="rank"):
        CoreStore(workshop.bundle("adapter", "compact").path / "features")


def test_the_card_says_what_is_not_kept(workshop: Workshop) -> None:
    """And what an audit pays for it; a bundle that keeps everything says nothing new, and neither does its manifest."""
    bare, exact = (workshop.bundle("adapter", kind) for kind in ("none", "exact"))
    cost = read_card(bare.path)["cost"]
    assert cost["features"].startswith("none")
    assert cost["seconds_of_candidates"] > 0
    assert "features" not in read_card(exact.path)["cost"]
    assert '"features": "none"' in (bare.path / "manifest.json").read_text()
    assert '"features":' not in (exact.path / "manifest.json").read_text()


def test_the_cost_of_candidates_is_measured_where_the_bundle_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By reading as many rows as an audit has candidates, whoever ran the corpus through the model before; a bundle that keeps features reads none."""
    read: list[int] = []

    def counted(rows: Sequence[TokenRow], reader: ReadsSignals) -> RawShard:
        read.append(len(rows))
        return read_rows(rows, reader)

    monkeypatch.setattr(corpus_pass, "read_rows", counted)
    for kind, expected in (("none", [5]), ("exact", [])):
        read.clear()
        build(shared_micro_model(), shared_corpus(20), tmp_path / kind, features=kind, candidates=5)
        assert read == expected


def test_what_is_kept_goes_by_the_size_of_the_corpus() -> None:
    """Where nobody chose."""
    sizes = (1, EXACT_UP_TO, EXACT_UP_TO + 1, COMPACT_UP_TO, COMPACT_UP_TO + 1)
    assert [features_kept("auto", size) for size in sizes] == [None, None, "compact", "compact", "none"]
    assert [features_kept(one, 5) for one in ("exact", "compact", "none")] == [None, "compact", "none"]


def test_lengths_that_are_missing(workshop: Workshop, tmp_path: Path) -> None:
    """A folder without them is a corrupt bundle."""
    _, rereader = store_of(workshop.bundle("adapter", "none").open())
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        TextStore(tmp_path, rereader)
