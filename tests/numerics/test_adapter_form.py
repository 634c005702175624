"""A bundle of the form `adapter` from end to end: built, opened, attributed, explained."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.numerics.tolerances import FLOAT32, INT8_COSINE
from tests.tiny import (
    build,
    quiet,
    shared_corpus,
    shared_micro_model,
    tiny_queries,
    tiny_rows,
    write_adapter,
    write_jsonl,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles import options
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.manifest import MANIFEST, hash_folder, read_card, read_manifest
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.calibration.fitted import Calibration, EffectCurve
from wherefrom.attribution.cores import CoreStore, cores_of
from wherefrom.attribution.corpus import ReadAs, Turns
from wherefrom.attribution.explanation.modules import USUAL_SHARES
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.fusion import HALF_WAY_WEIGHTS, FusionWeights, ShownParts, fuse
from wherefrom.attribution.groups import read_groups
from wherefrom.attribution.kernel import kernel_norms, segment_sum, token_kernel
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.final_gradients import PROMPT_TOKENS, FinalGradientReader
from wherefrom.attribution.models.lora import read_lora
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.offline import (
    attribute_all,
    exact_scores,
    prepare_all,
    read_queries,
    signals_of_all,
)
from wherefrom.attribution.query import ReadQuery
from wherefrom.attribution.row_curvature import RowCurvature
from wherefrom.attribution.whitening import ADAPTER_DAMPING, SecondMoments, Whitener
from wherefrom.errors import BundleCorrupt, ConfigurationError
from wherefrom.records import Span, carried_by

ROWS = 40


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of unequal ranks."""
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    kinds = ["q_proj", "v_proj", "down_proj"]
    return write_adapter(folder, shared_micro_model(), target_modules=kinds, rank_pattern={"q_proj": 2})


@pytest.fixture(scope="module")
def path(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle over 40 rows."""
    out = tmp_path_factory.mktemp("bundle") / "adapter"
    build(shared_micro_model(), shared_corpus(ROWS), out, adapter=adapter, form="adapter")
    return out


@pytest.fixture(scope="module")
def bundle(path: Path, adapter: Path) -> Bundle:
    """The bundle, opened."""
    return open_bundle(path, ModelFolders(shared_micro_model(), adapter))


@pytest.fixture(scope="module")
def signals(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[ReadQuery]:
    """Three outputs and the first three training examples as queries."""
    file = write_jsonl(tmp_path_factory.mktemp("queries") / "queries.jsonl", tiny_queries(3))
    engine = LanguageAttributor(bundle)
    asked = read_queries(file)[0] + read_queries(shared_corpus(ROWS))[0][:3]
    return signals_of_all(engine, prepare_all(engine, asked, max_tokens=256, over_long="reject"))


def whitened(bundle: Bundle) -> Factors:
    """Factors of the whole corpus by one pass and an unpadded whitening of each layer, without the builder."""
    rows = bundle.tokens.read(range(ROWS))
    read = bundle.reader.read(rows)
    layers = []
    for group in range(read.a.shape[1]):
        rank = 2 if not read.a[:, group, 2:].any() else read.a.shape[2]
        a, b = read.a[:, group : group + 1, :rank], read.b[:, group : group + 1, :rank]
        moments = SecondMoments.zeros(1, 1, rank)
        moments.add(a, b)
        layers.append(Whitener.fit(moments, ADAPTER_DAMPING).apply(a, b))
    a, b = (
        torch.cat(
            [torch.nn.functional.pad(one[side], (0, read.a.shape[2] - one[side].shape[2])) for one in layers],
            dim=1,
        )
        for side in (0, 1)
    )
    return Factors(a, b, read.lengths)


def test_exact_scores_are_the_kernel_of_the_read_signals(bundle: Bundle, signals: list[ReadQuery]) -> None:
    """Cosines of the stored int8 cores against a token kernel over freshly read and whitened signals, layers of lower rank by themselves."""
    corpus = whitened(bundle)
    norms = kernel_norms(corpus)
    found = exact_scores(bundle, signals, quiet)
    for query, scores in zip(signals, found, strict=True):
        kernel = segment_sum(token_kernel(query.signals.factors, corpus).sum(dim=0)[:, None], corpus.lengths)[
            :, 0
        ]
        np.testing.assert_allclose(scores, kernel / (query.signals.norm * norms), atol=2 * INT8_COSINE)
    for row in range(3):
        assert int(found[3 + row].argmax()) == row
        assert found[3 + row, row] == pytest.approx(1.0, abs=INT8_COSINE)


def test_citations_carry_the_exact_score_and_spans(bundle: Bundle, signals: list[ReadQuery]) -> None:
    """What is cited has the score of every pair, an opponent a negative one, and stretches that carry it."""
    engine = LanguageAttributor(bundle)
    exact = exact_scores(bundle, signals, quiet)
    answers = attribute_all(engine, signals, top_k=5, opponents=2, progress=quiet)
    for row, answer in enumerate(answers):
        assert [one.rank for one in answer.citations][:5] == [1, 2, 3, 4, 5]
        for one in answer.citations:
            assert one.influence_score == pytest.approx(exact[row, one.example.row], abs=1e-5)
            assert one.rank > 0 or (one.influence_score or 0.0) < 0
        assert any(one.spans for one in answer.citations)
    own = answers[3].citations[0]
    assert own.example.row == 0
    assert sum(span.share for span in own.spans) > 0.2


def test_the_order_shown_takes_out_what_rows_share(bundle: Bundle, signals: list[ReadQuery]) -> None:
    """The net score of every candidate by the curvature that the build wrote; order and effect follow it, sign and influence do not."""
    engine = LanguageAttributor(bundle)
    norms = np.asarray(bundle.store.norms)
    size = bundle.manifest.projection
    curvature = RowCurvature.fit(
        np.asarray(bundle.vectors), norms, numbers=size.groups * size.rank_a * size.rank_b
    )
    alone = FusionWeights(influence=1.0, bm25=0.0, similarity=0.0, length=0.0)
    for query in signals:
        scores = engine.score(query).scores
        rows = scores.candidates.rows
        net = curvature.net(scores.influence, query.signals.projected, np.asarray(bundle.vectors[rows]))
        expected = net * norms[rows] * float(query.signals.norm)
        np.testing.assert_allclose(scores.net, expected, rtol=1e-4, atol=1e-5 * float(query.signals.norm))
        assert not np.allclose(scores.net, scores.magnitude)
        assert bundle.final is not None
        assert query.signals.final is not None
        final = bundle.final.scores(query.signals.final, rows)
        assert scores.final is not None
        np.testing.assert_allclose(scores.final, final, rtol=1e-5)
        parts = ShownParts(
            scores.net, scores.candidates.bm25, scores.similarity, bundle.store.lengths(rows), final=final
        )
        np.testing.assert_allclose(scores.shown, fuse(parts, bundle.weights), atol=1e-4)
        assert fuse(parts, alone).argmax() == expected.argmax()


def test_a_bundle_from_before_the_curvature_orders_by_influence(
    bundle: Bundle, signals: list[ReadQuery]
) -> None:
    """Without the file, everything is as it was."""
    engine = LanguageAttributor(replace(bundle, curvature=None))
    scores = engine.score(signals[0]).scores
    np.testing.assert_allclose(scores.net, scores.magnitude, rtol=1e-5)


def test_a_bundle_without_gradients_at_the_final_weights_orders_as_before(
    adapter: Path, tmp_path: Path
) -> None:
    """--no-final: one pass over the model, the weights of before, and nothing of it in the bundle."""
    plain = build(
        shared_micro_model(),
        shared_corpus(ROWS),
        tmp_path / "b",
        adapter=adapter,
        form="adapter",
        final=False,
    )
    assert plain.parameters.weight_final is None
    assert "weight_final" not in plain.to_bytes().decode()
    opened = open_bundle(tmp_path / "b", ModelFolders(shared_micro_model(), adapter))
    assert opened.final is None
    assert opened.weights == HALF_WAY_WEIGHTS
    assert not list((tmp_path / "b").rglob("final*"))
    asked = prepare_all(
        LanguageAttributor(opened),
        read_queries(shared_corpus(ROWS))[0][:1],
        max_tokens=256,
        over_long="reject",
    )
    (query,) = signals_of_all(LanguageAttributor(opened), asked)
    assert query.signals.final is None
    assert LanguageAttributor(opened).score(query).scores.final is None


def test_a_bundle_of_whole_rows_reads_outputs_as_its_corpus(
    adapter: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the number of prompt tokens in the manifest, as before there was one, the whole prompt counts: of an output as of a row."""
    assert bundle.manifest.parameters.final_prompt_tokens == PROMPT_TOKENS
    monkeypatch.setattr(options, "PROMPT_TOKENS", None)
    old = build(shared_micro_model(), shared_corpus(ROWS), tmp_path / "b", adapter=adapter, form="adapter")
    assert "final_prompt_tokens" not in old.to_bytes().decode()
    opened = open_bundle(tmp_path / "b", ModelFolders(shared_micro_model(), adapter))
    assert opened.final is not None
    row = TokenRow(tuple(range(3, 43)), 30, (True,) * 10)
    whole = FinalGradientReader(
        opened.language,
        read_lora(opened.language.model, adapter),
        similarity_layer=1,
        prompt_tokens=None,
    ).sketches([row])
    found, narrow = (one.reader.read([row]).final for one in (opened, bundle))
    assert found is not None
    assert narrow is not None
    torch.testing.assert_close(found, whole)
    assert not torch.allclose(narrow, whole, rtol=0.1)


def test_parts_of_the_model_add_up_to_the_influence(bundle: Bundle, signals: list[ReadQuery]) -> None:
    """Over blocks and over kinds of layers, each part by a loop over the cores of its layers."""
    engine = LanguageAttributor(bundle)
    (answer,) = attribute_all(engine, [signals[0]], top_k=4, opponents=2, progress=quiet)
    store, query = bundle.store, cores_of(signals[0].signals.factors)[0].view(9, -1)
    assert isinstance(store, CoreStore)
    for one in answer.citations:
        row = np.array([one.example.row])
        held = store.cores(row)[0].view(9, -1)
        scale = float(signals[0].signals.norm) * float(store.norms[row[0]])
        each = ((query * held).sum(dim=1) / scale).tolist()  # q, v and down of blocks 0, 1, 2
        expected = {("block", str(block)): sum(each[3 * block : 3 * block + 3]) for block in range(3)}
        kinds = ("q_proj", "v_proj", "down_proj")
        expected |= {("linear", kind): sum(each[place::3]) for place, kind in enumerate(kinds)}
        assert {(part.by, part.name): part.influence for part in one.modules} == pytest.approx(
            expected, abs=1e-4
        )
        for by in ("block", "linear"):
            total = sum(part.influence for part in one.modules if part.by == by)
            assert total == pytest.approx(one.influence_score, abs=1e-3)
            assert sum(part.usual_share or 0 for part in one.modules if part.by == by) == pytest.approx(
                1, abs=1e-3
            )
        assert one.carried_by == carried_by(one.modules, one.influence_score)


def test_usual_shares_are_those_of_alike_training_examples(bundle: Bundle) -> None:
    """By a loop: sums of the parts over each example's five nearest others of positive influence, over the sum of their influence."""
    evidence = bundle.modules
    assert evidence is not None
    store = bundle.store
    assert isinstance(store, CoreStore)
    cores = store.cores(np.arange(ROWS)).view(ROWS, 9, -1)
    groups, vectors = read_groups(bundle.path, ROWS), np.asarray(bundle.vectors)
    total, pairs = torch.zeros(9), 0
    for row in range(ROWS):
        alike = [(-float(vectors[row] @ vectors[other]), other) for other in range(ROWS)]
        nearest = [other for _, other in sorted(alike) if groups[other] != groups[row]][:5]
        for other in nearest:
            each = (cores[row] * cores[other]).sum(dim=1) / float(store.norms[row] * store.norms[other])
            if each.sum() > 0:
                total, pairs = total + each, pairs + 1
    assert evidence.usual.pairs == pairs > ROWS
    shares = total / total.sum()
    expected = {("block", str(block)): float(shares[3 * block : 3 * block + 3].sum()) for block in range(3)}
    expected |= {
        ("linear", kind): float(shares[place::3].sum())
        for place, kind in enumerate(("q_proj", "v_proj", "down_proj"))
    }
    assert evidence.usual.shares == pytest.approx(expected, abs=2e-4)


def test_a_bundle_without_usual_shares_opens(
    path: Path, adapter: Path, signals: list[ReadQuery], tmp_path: Path
) -> None:
    """As one of the release before: parts are there, what is usual is not known; and a broken file is named."""
    old = Path(shutil.copytree(path, tmp_path / "old"))
    (old / USUAL_SHARES).unlink()
    _seal_again(old)
    opened = open_bundle(old, ModelFolders(shared_micro_model(), adapter))
    (answer,) = attribute_all(LanguageAttributor(opened), [signals[0]], top_k=2, opponents=0, progress=quiet)
    assert {part.usual_share for one in answer.citations for part in one.modules} == {None}
    (old / USUAL_SHARES).write_text('{"pairs": 3}', encoding="utf-8")
    _seal_again(old)
    with pytest.raises(BundleCorrupt, match=USUAL_SHARES):
        open_bundle(old, ModelFolders(shared_micro_model(), adapter))


def _seal_again(bundle: Path) -> None:
    """Name and seal a bundle whose files were changed."""
    manifest = read_manifest(bundle, verify=False).model_copy(update={"files": hash_folder(bundle)})
    (bundle / MANIFEST).write_bytes(manifest.sealed().to_bytes())


def test_spans_and_preferred_restrict_the_loss_and_not_the_tokens(
    bundle: Bundle, signals: list[ReadQuery]
) -> None:
    """The core of a query is the sum over all of its completion's tokens of the loss that was asked for; one with an acceptable answer is the difference."""
    engine = LanguageAttributor(bundle)
    plain = signals[0].asked
    answer = "No, that is not so."
    asked = [
        plain,
        plain.model_copy(update={"spans": (Span(start=4, end=12),)}),
        plain.model_copy(update={"preferred": answer}),
        plain.model_copy(update={"completion": answer}),
    ]
    whole, span, both, other = signals_of_all(
        engine, prepare_all(engine, asked, max_tokens=256, over_long="reject")
    )
    assert 0 < span.signals.tokens < whole.signals.tokens
    assert span.signals.read_tokens == whole.signals.read_tokens == whole.signals.tokens
    rows = [one.row for one in (whole, span)]
    read = [bundle.reader.read([row]) for row in rows]
    for one, expected in zip((whole, span), read, strict=True):
        u, v = bundle.whitener.apply(expected.a, expected.b)
        core = torch.einsum("tgi,tgj->gij", v, u).flatten()
        torch.testing.assert_close(cores_of(one.signals.factors)[0], core, **FLOAT32)
    difference = cores_of(whole.signals.factors) - cores_of(other.signals.factors)
    torch.testing.assert_close(cores_of(both.signals.factors), difference, rtol=1e-4, atol=1e-4)
    (cited,) = attribute_all(engine, [span], top_k=2, opponents=0, progress=quiet)
    assert cited.tokens == span.signals.tokens
    assert cited.citations[0].spans


def test_conversations_are_read_at_every_token(adapter: Path, tmp_path: Path) -> None:
    """Tokens of a user's turn between two trained answers have no loss of their own and carry the second one's; evidence stays inside of the shown text."""
    polite = [{"role": "user", "content": "Thank you."}, {"role": "assistant", "content": "You are welcome."}]
    rows = [{**row, "messages": [*row["messages"], *polite]} for row in tiny_rows(8)]
    out = tmp_path / "conversations"
    corpus = write_jsonl(tmp_path / "rows.jsonl", rows)
    build(shared_micro_model(), corpus, out, adapter=adapter, form="adapter", read=ReadAs(turns=Turns.ALL))
    opened = open_bundle(out, ModelFolders(shared_micro_model(), adapter))
    tokens = opened.tokens.read(range(8))
    assert [len(row.explained) for row in tokens] == opened.store.lengths(np.arange(8)).tolist()
    assert all(row.explained_tokens < len(row.explained) for row in tokens)
    engine = LanguageAttributor(opened)
    asked = prepare_all(
        engine,
        read_queries(write_jsonl(tmp_path / "q.jsonl", tiny_queries(1)))[0],
        max_tokens=256,
        over_long="reject",
    )
    (answer,) = attribute_all(engine, asked, top_k=4, opponents=0, progress=quiet)
    for one in answer.citations:
        ranges = opened.shown.of(one.example.row)
        assert len(ranges) == len(tokens[one.example.row].explained)
        assert all(span.example.end <= len(one.example.completion) for span in one.spans)
    assert any(one.spans for one in answer.citations)


def test_a_calibration_of_another_form_is_refused(path: Path, adapter: Path, tmp_path: Path) -> None:
    """Its p-values and effects belong to other scores, so no attributor opens over it."""
    other = Path(shutil.copytree(path, tmp_path / "other"))
    effects = EffectCurve("bank", 0.5, np.array([0.0, 1.0]), np.array([0.0, 0.1]))
    Calibration(effects=effects, fitted_on={"form": "activation"}).save(other)
    _seal_again(other)
    opened = open_bundle(other, ModelFolders(shared_micro_model(), adapter))
    with pytest.raises(ConfigurationError, match="fitted on scores of the form `activation`"):
        LanguageAttributor(opened)
    Calibration(effects=effects, fitted_on={"form": "adapter"}).save(other)
    _seal_again(other)
    opened = open_bundle(other, ModelFolders(shared_micro_model(), adapter))
    assert LanguageAttributor(opened).bundle_name == opened.manifest.name


def test_contributions_add_up_to_the_score(bundle: Bundle, signals: list[ReadQuery]) -> None:
    """Over the pairs of tokens, and per output token as the stored cores have it."""
    rows = np.array([3, 0, 7])
    pairs, lengths = bundle.store.contributions(signals[0].signals.factors, rows)
    assert lengths == tuple(bundle.store.lengths(rows).tolist())
    totals = segment_sum(pairs.sum(dim=0)[:, None], lengths)[:, 0]
    torch.testing.assert_close(
        totals, bundle.store.scores(signals[0].signals.factors, rows)[0], rtol=1e-3, atol=1e-2
    )


def test_the_bundle_says_what_it_is(bundle: Bundle) -> None:
    """Form, no hidden states, size of the cores: 9 layers of 4 x 4 numbers, their scales, and 128 or fewer numbers a token."""
    parameters, projection = bundle.manifest.parameters, bundle.manifest.projection
    assert (parameters.form, parameters.layers, parameters.damping) == ("adapter", (), ADAPTER_DAMPING)
    assert (projection.groups, projection.rank_a, projection.rank_b) == (9, 4, 4)
    tokens = float(bundle.store.offsets[-1]) / ROWS
    expected = 9 * 16 + 9 * 4 + 4 + 8 * (ROWS + 1) / ROWS + tokens * (projection.dimensions + 4)
    assert bundle.store.bytes_per_example == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"modules_to_save": ["lm_head"]}, "it sets modules_to_save"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "embed_tokens"),
        ({"peft": "IA3"}, "it is of kind IA3"),
    ],
)
def test_other_adapters_are_read_in_another_form_with_a_word(
    more: dict[str, Any], word: str, tmp_path: Path
) -> None:
    """One line when the bundle is built, and the same in its manifest and its card; the bundle opens and says its form."""
    model, folder = shared_micro_model(), tmp_path / "lora"
    if "peft" in more:
        _write_ia3(folder)
    else:
        write_adapter(folder, model, **more)
    said: list[str] = []
    out = tmp_path / "bundle"
    manifest = build_bundle(
        folders=ModelFolders(model, folder),
        corpus_path=shared_corpus(12),
        out=out,
        options=BuildOptions(form="adapter", similarity="adapter", check_learning=False),
        progress=quiet,
        on_note=said.append,
    )
    assert manifest.parameters.form == "forward"
    assert [
        word in line and line.endswith("The form is `forward` instead") for line in said if "NOTE" in line
    ] == [True]
    assert word in (manifest.parameters.instead or "")
    assert word in read_card(out)["coverage"]["form"]
    assert open_bundle(out, ModelFolders(model, folder)).modules is None


def _write_ia3(folder: Path) -> None:
    from peft import IA3Config, get_peft_model

    base = transformers.AutoModelForCausalLM.from_pretrained(str(shared_micro_model()))
    config = IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        init_ia3_weights=False,
    )
    get_peft_model(base, config).save_pretrained(str(folder))


@pytest.mark.parametrize("more", [{"midpoint": True}, {"full_tier": True}])
def test_what_the_form_lacks_is_refused(more: dict[str, Any], adapter: Path, tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigurationError, match="remove --midpoint and --full-tier"):
        build(
            shared_micro_model(),
            shared_corpus(ROWS),
            tmp_path / "out",
            adapter=adapter,
            form="adapter",
            **more,
        )


def test_the_form_needs_an_adapter(tmp_path: Path) -> None:
    """The error names the option and the other forms."""
    with pytest.raises(ConfigurationError, match="--adapter"):
        build(shared_micro_model(), shared_corpus(ROWS), tmp_path / "out", form="adapter")
