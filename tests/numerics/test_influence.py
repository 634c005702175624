"""The sign rule measured by real gradient steps; planted duplicates; the pipeline against the exact form; same input, same bytes."""

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.numerics.tolerances import INT8_COSINE
from tests.tiny import (
    TINY,
    TINY_ROWS,
    VOCABULARY,
    build,
    micro_language,
    opened,
    quiet,
    random_row,
    shared_corpus,
    shared_micro_bundle,
    shared_micro_model,
    tiny_language,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.kernel import kernel_norms, token_kernel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Form, SignalReader, Signals
from wherefrom.attribution.offline import (
    attribute_all,
    exact_scores,
    prepare_all,
    read_queries,
    signals_of_all,
)
from wherefrom.attribution.query import TokenizedQuery
from wherefrom.attribution.ranking_metrics import spearman_rows
from wherefrom.attribution.whitening import SecondMoments, Whitener

FORMS: tuple[Form, ...] = ("forward", "activation")


@functools.cache
def attributor() -> LanguageAttributor:
    """An engine over the tiny bundle."""
    return LanguageAttributor(opened())


@functools.cache
def prepared(kind: str) -> tuple[TokenizedQuery, ...]:
    """The tiny model's flagged outputs, or its training examples as queries."""
    file = TINY / "queries.jsonl" if kind == "queries" else shared_corpus(TINY_ROWS)
    queries = read_queries(file)[0]
    return tuple(prepare_all(attributor(), queries, max_tokens=512, over_long="reject"))


@functools.cache
def query_scores(count: int) -> np.ndarray:
    """Exact influence `[count, N]` of the first flagged outputs."""
    signals = signals_of_all(attributor(), prepared("queries")[:count])
    return exact_scores(opened(), signals, quiet)


def losses(model: Any, rows: Sequence[TokenRow]) -> torch.Tensor:
    """Summed completion loss of each row, `[B]`, written without the engine."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), -100)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        targets[index, row.start : len(row.ids)] = torch.tensor(row.ids[row.start :])
    logits = model(ids).logits[:, :-1]  # causal: padding on the right is never looked at
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets[:, 1:], reduction="none")
    return each.sum(dim=1)


@contextmanager
def trained_on(model: Any, row: TokenRow, *, length: float) -> Iterator[Any]:
    """The model after one step of the given length down the gradient of one row; then as it was."""
    weights = list(model.parameters())
    gradients = torch.autograd.grad(losses(model, [row]).sum(), weights)
    size = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.sub_(length / size * gradient)
        yield model
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)


def drops(model: Any, queries: Sequence[TokenRow], examples: Sequence[TokenRow]) -> np.ndarray:
    """How much a small step on each example lowers the loss of each query, `[Q, E]`."""
    with torch.no_grad():
        before = losses(model, queries)
    found = []
    for example in examples:
        with trained_on(model, example, length=1e-3):
            found.append((before - losses(model, queries)).numpy())
    return np.stack(found, axis=1)


@pytest.mark.parametrize("form", FORMS)
def test_sign_rule_where_it_must_hold(form: Form) -> None:
    """Training on the query itself lowers its loss; of all other answers to its prompt, the kernel's strongest opponent raises it."""
    language = micro_language()
    reader = SignalReader(
        language, form=form, layers=(0, 1, 2, 3) if form == "forward" else (1, 2, 3), similarity_layer=2
    )
    corpus = reader.read([random_row(6, 6, seed=step) for step in range(40)])
    moments = SecondMoments.zeros(corpus.a.shape[1], corpus.b.shape[1], corpus.a.shape[2])
    moments.add(corpus.a, corpus.b)
    whitener = Whitener.fit(moments)

    def factors(read: Signals) -> Factors:
        return Factors(*whitener.apply(read.a, read.b), read.lengths)

    model = copy.deepcopy(language.model).requires_grad_(requires_grad=True)
    for seed in range(4):
        prompt = random_row(7, 1, seed=seed).ids[:-1]
        every = [TokenRow((*prompt, token), 7, (True,)) for token in range(5, VOCABULARY)]
        answers = factors(reader.read(every))
        one = answers.rows()[seed]
        kernel = token_kernel(one, answers)[0]
        assert float(kernel[seed] / kernel_norms(one)[0] ** 2) == pytest.approx(1.0, abs=1e-4)
        assert float(kernel.min()) < 0
        same_drop, other_drop = drops(model, [every[seed]], [every[seed], every[int(kernel.argmin())]])[0]
        assert same_drop > 0 > other_drop, f"seed {seed}"


def test_sign_rule_over_the_corpus() -> None:
    """Single training steps: the top proponent lowers each query's loss, top opponents mostly raise it, ranks agree."""
    count = 6
    scores = query_scores(count)
    top, bottom = scores.argmax(axis=1), scores.argmin(axis=1)
    picked = sorted({*range(0, TINY_ROWS, 20), *top.tolist(), *bottom.tolist()})
    model = copy.deepcopy(tiny_language().model).requires_grad_(requires_grad=True)
    rows = prepared("corpus")
    measured = drops(
        model, [query.row for query in prepared("queries")[:count]], [rows[row].row for row in picked]
    )
    place = {row: index for index, row in enumerate(picked)}
    of_top = [measured[query, place[int(row)]] for query, row in enumerate(top)]
    of_bottom = [measured[query, place[int(row)]] for query, row in enumerate(bottom)]
    assert min(of_top) > 0
    assert float(np.mean(of_bottom)) < 0 < float(np.mean(of_top))
    assert float(spearman_rows(scores[:, picked], measured).mean()) > 0.25


def test_planted_duplicate_is_first() -> None:
    """A query that is a training example finds that example first, with a cosine of 1."""
    rows = [0, 17, 60, 119, 159]
    queries = [prepared("corpus")[row] for row in rows]
    scores = exact_scores(opened(), signals_of_all(attributor(), queries), quiet)
    assert scores.argmax(axis=1).tolist() == rows
    found = attribute_all(attributor(), queries, top_k=10, opponents=0, progress=quiet)
    for row, attribution in zip(rows, found, strict=True):
        best = max(attribution.citations, key=lambda citation: citation.influence_score or 0.0)
        assert best.example.row == row
        assert best.influence_score == pytest.approx(1.0, abs=INT8_COSINE)
        assert attribution.citations[0].example.row == row, "BM25 and similarity agree here"


def test_candidates_hold_the_exact_best() -> None:
    """What the exact form would put first is among the candidates, and the two influence scores are one number."""
    scores = query_scores(8)
    for index, query in enumerate(signals_of_all(attributor(), prepared("queries")[:8])):
        scored = attributor().score(query).scores
        assert int(scores[index].argmax()) in scored.candidates.rows
        np.testing.assert_allclose(
            scored.influence, scores[index][scored.candidates.rows], rtol=1e-4, atol=1e-5
        )


def test_batches_do_not_change_answers() -> None:
    """Attributed alone, together, or in another order: the same citations with the same scores."""
    queries = prepared("queries")[:5]
    together = attributor().attribute(queries, top_k=5, opponents=2)
    backwards = attributor().attribute(queries[::-1], top_k=5, opponents=2)[::-1]
    alone = [attributor().attribute([query], top_k=5, opponents=2)[0] for query in queries]
    for one, two, three in zip(together, backwards, alone, strict=True):
        for other in (two, three):
            assert [(c.rank, c.example) for c in one.citations] == [
                (c.rank, c.example) for c in other.citations
            ]
            assert [c.score for c in one.citations] == pytest.approx(
                [c.score for c in other.citations], abs=1e-3
            )
            assert one.loss_nats == pytest.approx(other.loss_nats, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_same_input_same_bytes(form: Form, tmp_path: Path) -> None:
    """A second build of the same input has the same name, and every file but the card (it holds seconds) the same bytes."""
    first = shared_micro_bundle(form)
    manifest = build(shared_micro_model(), shared_corpus(40), tmp_path / "again", form=form)
    names = sorted(str(file.relative_to(first)) for file in first.rglob("*") if file.is_file())
    changed = [
        name for name in names if (first / name).read_bytes() != (tmp_path / "again" / name).read_bytes()
    ]
    assert set(changed) <= {"card.json", "manifest.json"}
    assert f'"name": "{manifest.name}"' in (first / "manifest.json").read_text()
