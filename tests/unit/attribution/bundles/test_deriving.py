"""Bundles derived from others: erased examples are gone from every byte, added ones stand behind the old ones, and the others score as before."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.byte_scan import holding_files
from tests.tiny import (
    build,
    quiet,
    shared_corpus,
    shared_micro_model,
    tiny_queries,
    tiny_rows,
    write_adapter,
    write_encoder,
    write_jsonl,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles import adding, erasing, examples, row_arrays, tokens
from wherefrom.attribution.bundles.adding import add_examples
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.erasing import copies_of, forget_examples
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.bundles.manifest import CARD, MANIFEST, SIGNATURE, hash_folder, read_manifest
from wherefrom.attribution.bundles.row_arrays import PER_ROW, RUNS
from wherefrom.attribution.bundles.signing import check_signature, make_keys, sign_bundle
from wherefrom.attribution.calibrating import write_calibrated
from wherefrom.attribution.calibration.fitted import CORPUS_SHA256, Calibration, EffectCurve
from wherefrom.attribution.gradient_sketch import FinalGradients
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import exact_scores, prepare_all, read_queries, signals_of_all
from wherefrom.attribution.retrieval.index import unit_rows
from wherefrom.attribution.retrieval.index_drivers import DriverName
from wherefrom.errors import BundleCorrupt, ConfigurationError, NotFound

ROWS = 24
#: Rows that go.
GONE = (3, 17)
KEPT = [row for row in range(ROWS) if row not in GONE]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFolders]:
    """The model of each form."""
    adapter = write_adapter(tmp_path_factory.mktemp("adapter") / "lora", shared_micro_model())
    return {
        "forward": ModelFolders(shared_micro_model()),
        "adapter": ModelFolders(shared_micro_model(), adapter),
    }


@pytest.fixture(scope="module")
def built(models: dict[str, ModelFolders], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles that have every kind of file between them; not to be changed."""
    home = tmp_path_factory.mktemp("built")
    encoder = write_encoder(home / "small-encoder")
    extra: dict[str, dict[str, Any]] = {"forward": {"encoder": encoder, "full_tier": True}, "adapter": {}}
    for form, options in extra.items():
        adapter = models[form].adapter
        build(shared_micro_model(), shared_corpus(ROWS), home / form, adapter=adapter, form=form, **options)
    return {form: home / form for form in models}


@pytest.fixture(scope="module")
def erased(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same without two rows."""
    home = tmp_path_factory.mktemp("erased")
    for form, bundle in built.items():
        forget_examples(bundle, home / form, ids_of(bundle))
    return {form: home / form for form in built}


def ids_of(bundle: Path, rows: tuple[int, ...] = GONE) -> list[str]:
    """Ids of rows."""
    examples = list(iter_examples(bundle))
    return [examples[row].example_id for row in rows]


def marks_of(bundle: Path, row: int) -> dict[str, bytes]:
    """All that a bundle has of a row alone, as the bytes that it stands in its files with."""
    example = list(iter_examples(bundle))[row]
    found = {"text": example.completion.encode(), "id": f'"{example.example_id}"'.encode()}
    found["hash"] = example.text_sha256.encode()
    for name in PER_ROW - {"corpus/token_starts.npy"}:
        if (bundle / name).is_file():
            found[name] = np.load(bundle / name)[row].tobytes()
    for runs in RUNS:
        for name in set(runs.values) - {"corpus/token_explained.npy", "corpus/shown_ranges.npy"}:
            if (bundle / name).is_file():
                offsets = np.load(bundle / runs.offsets)
                found[name] = np.load(bundle / name)[offsets[row] : offsets[row + 1]].tobytes()
    unit = np.load(bundle / "features" / "vectors.npy")[row]
    found["graph"] = (unit / np.linalg.norm(unit)).astype(np.float32).tobytes()[:64]
    return found


@pytest.mark.parametrize("form", ["forward", "adapter"])
def test_nothing_of_an_erased_row_is_left(built: dict[str, Path], erased: dict[str, Path], form: str) -> None:
    """Texts, id, tokens, float32 and int8 bytes of every vector: found in the old bundle, in no file of the new one."""
    for row in GONE:
        marks = marks_of(built[form], row)
        assert len(marks) >= 10
        for what, mark in marks.items():
            if what not in {"graph", "features/norms.npy", "features/core_scales.npy"}:
                assert holding_files(built[form], mark), what
            assert not holding_files(erased[form], mark), (what, row)


def test_rows_are_copied_in_parts(
    built: dict[str, Path], erased: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many rows are copied at once does not show in the files."""
    monkeypatch.setattr(row_arrays, "_CHUNK", 5)
    for module in (erasing, examples, tokens):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 5)
    found = forget_examples(built["adapter"], tmp_path / "parts", ids_of(built["adapter"])).manifest
    expected = read_manifest(erased["adapter"])
    assert found.corpus == expected.corpus
    assert {**found.files, CARD: None} == {**expected.files, CARD: None}


@pytest.mark.parametrize("form", ["forward", "adapter"])
def test_the_graph_holds_no_erased_vector(built: dict[str, Path], erased: dict[str, Path], form: str) -> None:
    """Of each vector that is searched, the first numbers as the graph's file has them."""
    for graph, array in (("projected", "vectors"), ("similarity", "pooled")):
        before, after = (
            (one / "index" / f"{graph}.hnsw").read_bytes() for one in (built[form], erased[form])
        )
        vectors = np.load(built[form] / "features" / f"{array}.npy")
        unit = unit_rows(vectors) if array == "vectors" else vectors
        found = [row for row in range(ROWS) if unit[row, :2].tobytes() in before]
        assert set(GONE) & set(found), "the graph's numbers differ in the last bits; the test proves nothing"
        for row in GONE:
            assert unit[row, :2].tobytes() not in after


def scores(bundle: Bundle) -> npt.NDArray[np.float32]:
    """Influence of every row on a few outputs, `[Q, N]`."""
    attributor = LanguageAttributor(bundle)
    queries, _ = read_queries(write_jsonl(Path(bundle.path.parent / "queries.jsonl"), tiny_queries(3)))
    prepared = prepare_all(attributor, queries, max_tokens=200, over_long="truncate")
    return exact_scores(bundle, signals_of_all(attributor, prepared), quiet)


@pytest.mark.parametrize("form", ["forward", "adapter"])
def test_other_rows_score_as_before(
    built: dict[str, Path], erased: dict[str, Path], models: dict[str, ModelFolders], form: str
) -> None:
    """Every array of what stays bit by bit, influence but for the order of additions; the search finds its way to all of them."""
    before, after = (open_bundle(one[form], models[form]) for one in (built, erased))
    np.testing.assert_allclose(scores(after), scores(before)[:, KEPT], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(after.vectors, before.vectors[KEPT])
    np.testing.assert_array_equal(after.pooled, before.pooled[KEPT])
    rows = np.arange(len(KEPT))
    assert after.tokens.read(rows) == before.tokens.read(KEPT)
    assert [one.example_id for one in after.texts.read(rows.tolist())] == [
        one.example_id for one in before.texts.read(KEPT)
    ]
    assert [one.row for one in after.texts.read(rows.tolist())] == rows.tolist()
    assert isinstance(before.final, FinalGradients) == (form == "adapter")
    if isinstance(before.final, FinalGradients):
        assert isinstance(after.final, FinalGradients)
        np.testing.assert_array_equal(after.final.sketches, before.final.sketches[KEPT])
    for row in rows:
        assert row in after.index.search(after.vectors[row], 5)[0]
    assert len(after.lexical.scores("refund")) == len(KEPT)


def test_norms_of_the_full_tier_follow_their_rows(
    built: dict[str, Path], erased: dict[str, Path], models: dict[str, ModelFolders]
) -> None:
    """The EK-FAC score of a row that stays is the same."""
    found = []
    for path, number in ((built["forward"], 20), (erased["forward"], KEPT.index(20))):
        bundle = open_bundle(path, models["forward"])
        assert bundle.full is not None
        row = bundle.tokens.read([number])
        found.append(bundle.full.candidate_scores(row, row, np.array([number])).cosine)
    np.testing.assert_array_equal(found[0], found[1])


def test_what_is_not_of_rows_is_shared(built: dict[str, Path], erased: dict[str, Path]) -> None:
    """Whitening, projection, encoder: one file under two names; the manifest is whole, and says what the bundle was made of."""
    old, new = built["forward"], erased["forward"]
    for name in ("whitening.safetensors", "projection.safetensors", "encoder/model.safetensors"):
        assert (old / name).samefile(new / name)
    assert not (old / "features" / "norms.npy").samefile(new / "features" / "norms.npy")
    manifest, before = read_manifest(new), read_manifest(old)
    assert manifest.files == hash_folder(new)
    assert manifest.name != before.name
    assert manifest.corpus.examples == len(KEPT)
    assert manifest.corpus.tokens < before.corpus.tokens
    assert manifest.derived is not None
    assert (manifest.derived.parent, manifest.derived.statistics_rows) == (before.name, ROWS)
    assert (manifest.derived.erased, manifest.derived.added) == (2, 0)


def test_the_corpus_has_the_hash_of_the_remaining_rows(built: dict[str, Path], tmp_path: Path) -> None:
    """A build over the corpus file without these rows has the same corpus, so that measurements find it."""
    lines = shared_corpus(ROWS).read_text(encoding="utf-8").splitlines(keepends=True)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(lines[:-2]), encoding="utf-8")
    manifest = build(shared_micro_model(), corpus, tmp_path / "fresh")
    last = ids_of(built["adapter"], (ROWS - 2, ROWS - 1))
    made = forget_examples(built["adapter"], tmp_path / "erased", last).manifest
    assert made.corpus.sha256 == manifest.corpus.sha256


def test_a_chain_of_erasures_counts_all(erased: dict[str, Path], tmp_path: Path) -> None:
    """The share that a rebuild depends on is over the rows of the statistics."""
    again = forget_examples(erased["adapter"], tmp_path / "again", ids_of(erased["adapter"], (0,)))
    derived = again.manifest.derived
    assert derived is not None
    assert (derived.statistics_rows, derived.erased) == (ROWS, 3)
    assert derived.changed_share == pytest.approx(3 / ROWS)


def test_signature_is_asked_for_again(built: dict[str, Path], tmp_path: Path) -> None:
    """A new bundle is unsigned, whatever the old one was, unless a key is given."""
    private, public = tmp_path / "team.key", tmp_path / "team.pub"
    make_keys(private, public)
    signed = Path(shutil.copytree(built["adapter"], tmp_path / "signed"))
    sign_bundle(signed, private)
    found = forget_examples(signed, tmp_path / "unsigned", ids_of(signed))
    assert not found.signed
    assert not (tmp_path / "unsigned" / SIGNATURE).exists()
    found = forget_examples(signed, tmp_path / "resigned", ids_of(signed), key=private)
    assert found.signed
    check_signature(tmp_path / "resigned", [public])


def test_refusals_write_nothing(built: dict[str, Path], tmp_path: Path) -> None:
    """An unknown id, all rows, a place that is taken: the error says which, and nothing is made."""
    bundle, out = built["adapter"], tmp_path / "out"
    with pytest.raises(NotFound, match="'no-such-example'"):
        forget_examples(bundle, out, [*ids_of(bundle), "no-such-example"])
    with pytest.raises(ConfigurationError, match="nothing would be left"):
        forget_examples(bundle, out, ids_of(bundle, tuple(range(ROWS))))
    with pytest.raises(ConfigurationError, match="already exists"):
        forget_examples(bundle, bundle, ids_of(bundle))
    assert not list(tmp_path.iterdir())


def test_copies_of_a_text_stay_only_on_purpose(tmp_path: Path) -> None:
    """Another row with the same text would keep it: refused, or erased with it."""
    rows = tiny_rows(20)
    twin = {**rows[4], "id": "twin"}
    bundle = tmp_path / "bundle"
    build(shared_micro_model(), write_jsonl(tmp_path / "corpus.jsonl", [*rows, twin]), bundle)
    original = ids_of(bundle, (4,))
    assert copies_of(list(iter_examples(bundle)), original) == ["twin"]
    with pytest.raises(ConfigurationError, match=r"exactly the same text \('twin'\)"):
        forget_examples(bundle, tmp_path / "one", original)
    assert not (tmp_path / "one").exists()
    found = forget_examples(bundle, tmp_path / "both", original, copies=True)
    assert set(found.example_ids) == {*original, "twin"}
    assert not holding_files(tmp_path / "both", rows[4]["messages"][0]["content"].encode())


def test_a_file_nobody_knows_is_refused(built: dict[str, Path], tmp_path: Path) -> None:
    """It could hold what is to be erased."""
    bundle = Path(shutil.copytree(built["adapter"], tmp_path / "odd"))
    (bundle / "features" / "later.npy").write_bytes(b"rows")
    manifest = read_manifest(bundle, verify=False)
    sealed = manifest.model_copy(update={"files": hash_folder(bundle)}).sealed()
    (bundle / MANIFEST).write_bytes(sealed.to_bytes())
    with pytest.raises(BundleCorrupt, match=r"features/later\.npy"):
        forget_examples(bundle, tmp_path / "out", ids_of(bundle))
    assert not (tmp_path / "out").exists()


def test_a_stop_half_way_leaves_the_old_bundle(
    built: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stage fails, there is no new folder, and the old one is whole."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for stage in ("keep_rows", "write_searched", "finish"):
        with monkeypatch.context() as patch:
            patch.setattr(erasing, stage, stop)
            with pytest.raises(KeyboardInterrupt):
                forget_examples(built["adapter"], tmp_path / "out", ids_of(built["adapter"]))
        assert not list(tmp_path.iterdir()), stage
    read_manifest(built["adapter"])


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of rows that no bundle here has."""
    return write_jsonl(tmp_path_factory.mktemp("more") / "more.jsonl", tiny_rows(ROWS + 3)[ROWS:])


@pytest.mark.parametrize("form", ["forward", "adapter"])
def test_added_rows_stand_behind_the_old_ones(
    built: dict[str, Path], models: dict[str, ModelFolders], more: Path, tmp_path: Path, *, form: str
) -> None:
    """Old rows keep every number; new ones are found, score highest for their own text, and share the statistics' files."""
    old, new = built[form], tmp_path / "grown"
    manifest = add_examples(old, more, new, folders=models[form], progress=quiet)
    assert read_manifest(new) == manifest
    assert manifest.derived is not None
    assert (manifest.corpus.examples, manifest.derived.added, manifest.derived.statistics_rows) == (
        ROWS + 3,
        3,
        ROWS,
    )
    before, after = (open_bundle(one, models[form], exact_search=True) for one in (old, new))
    np.testing.assert_array_equal(after.vectors[:ROWS], before.vectors)
    np.testing.assert_array_equal(after.pooled[:ROWS], before.pooled)
    np.testing.assert_allclose(scores(after)[:, :ROWS], scores(before), rtol=0, atol=1e-7)
    assert after.tokens.read(range(ROWS)) == before.tokens.read(range(ROWS))
    assert [one.example_id for one in after.texts.read([ROWS, ROWS + 2])] == [
        row["id"] for row in (tiny_rows(ROWS + 3)[ROWS], tiny_rows(ROWS + 3)[ROWS + 2])
    ]
    assert (old / "whitening.safetensors").samefile(new / "whitening.safetensors")
    if after.full is not None:
        rows = after.tokens.read([ROWS])
        own = after.full.candidate_scores(rows, rows, np.array([ROWS]))
        assert own.cosine.item() == pytest.approx(1.0, abs=1e-3)


def test_an_added_row_has_the_numbers_that_a_build_would_give_it(
    built: dict[str, Path], models: dict[str, ModelFolders], tmp_path: Path
) -> None:
    """A row that is erased and added again is stored as it was."""
    line = tiny_rows(ROWS)[-1]
    without, again = tmp_path / "without", tmp_path / "again"
    forget_examples(built["adapter"], without, [line["id"]])
    corpus = write_jsonl(tmp_path / "one.jsonl", [line])
    made = add_examples(without, corpus, again, folders=models["adapter"], progress=quiet)
    before = read_manifest(built["adapter"])
    assert made.corpus == before.corpus
    for name in ("features/norms.npy", "features/vectors.npy", "features/final.npy"):
        found, wanted = (np.load(one / name).astype(np.float64)[-1] for one in (again, built["adapter"]))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1.01)


def test_ids_stand_for_one_row(
    built: dict[str, Path], models: dict[str, ModelFolders], tmp_path: Path
) -> None:
    """A corpus with an id that the bundle has already is refused."""
    with pytest.raises(ConfigurationError, match="2 rows have ids"):
        add_examples(
            built["forward"],
            shared_corpus(2),
            tmp_path / "out",
            folders=models["forward"],
            progress=quiet,
        )
    assert not list(tmp_path.iterdir())


def test_a_calibration_that_was_taken_over_still_fits(
    built: dict[str, Path], models: dict[str, ModelFolders], tmp_path: Path
) -> None:
    """It says the rows that it was fitted on, which are those of a bundle before; twice derived, too. One of other rows does not fit."""
    first = read_manifest(built["forward"]).corpus.sha256
    curve = EffectCurve("bank", 0.5, np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    fitted = Calibration(effects=curve, fitted_on={CORPUS_SHA256: first})
    write_calibrated(built["forward"], tmp_path / "calibrated", fitted)
    forget_examples(tmp_path / "calibrated", tmp_path / "once", ids_of(tmp_path / "calibrated"))
    again = forget_examples(tmp_path / "once", tmp_path / "twice", ids_of(tmp_path / "once", (0,))).manifest
    assert first != again.corpus.sha256
    assert {first, again.corpus.sha256} < again.fitted_on
    attributor = LanguageAttributor(open_bundle(tmp_path / "twice", models["forward"]))
    assert attributor.note is None
    with pytest.raises(ConfigurationError, match="fitted on other training examples"):
        replace(fitted, fitted_on={CORPUS_SHA256: "0" * 64}).check_corpus(again.fitted_on)


def test_a_driver_that_cannot_work_is_refused_at_once(
    built: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a model is read and rows are written, not behind them."""
    for module in (adding, erasing):
        monkeypatch.setattr(module, "driver_of", lambda _: DriverName.MILVUS)
    monkeypatch.setattr(erasing, "keep_rows", lambda *_, **__: pytest.fail("rows were written"))
    bundle, out = built["forward"], tmp_path / "out"
    with pytest.raises(ConfigurationError, match="set WHEREFROM_MILVUS_URI"):
        forget_examples(bundle, out, ids_of(bundle))
    nowhere = ModelFolders(tmp_path / "no model")
    with pytest.raises(ConfigurationError, match="set WHEREFROM_MILVUS_URI"):
        add_examples(bundle, tmp_path / "no rows", out, folders=nowhere, progress=quiet)
