"""A group of outputs is one query: its score is the mean of its members' kernels minus that of acceptable answers, in every form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.numerics.test_kernel import random_factors
from tests.tiny import build, quiet, shared_corpus, shared_micro_model, tiny_queries, write_adapter
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.interface import PreparedQuery
from wherefrom.attribution.kernel import kernel_norms, token_kernel
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.reading import BundleForm
from wherefrom.attribution.offline import exact_scores
from wherefrom.attribution.output_group import mean_factors
from wherefrom.errors import InvalidRecord, OutputTooLong
from wherefrom.records import Message, Query, QueryGroup

ROWS = 40
#: All that can be one question: the forms of every model, and those of an adapter.
FORMS: tuple[BundleForm, ...] = ("forward", "activation", "adapter", "adapter-forward")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bundles of this module lie."""
    return tmp_path_factory.mktemp("groups")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Callable[[BundleForm], tuple[Bundle, LanguageAttributor]]:
    """An engine over a bundle of a form, built once."""
    adapter = write_adapter(folder / "lora", shared_micro_model(), target_modules=["q_proj", "down_proj"])

    def open_form(form: BundleForm) -> tuple[Bundle, LanguageAttributor]:
        out = folder / form
        if not out.exists():
            build(shared_micro_model(), shared_corpus(ROWS), out, adapter=adapter, form=form)
        bundle = open_bundle(out, ModelFolders(shared_micro_model(), adapter))
        return bundle, LanguageAttributor(bundle)

    return open_form


def outputs(*numbers: int, **changes: str) -> tuple[Query, ...]:
    """Flagged outputs of the tiny model."""
    rows = tiny_queries()
    return tuple(
        Query(
            key=f"output-{number}",
            turns=tuple(Message.model_validate(turn) for turn in rows[number]["messages"]),
            completion=changes.get("completion", rows[number]["completion"]),
        )
        for number in numbers
    )


@pytest.mark.parametrize("form", FORMS)
def test_score_is_the_mean_of_the_members_kernels(
    form: BundleForm, engine: Callable[[BundleForm], tuple[Bundle, LanguageAttributor]]
) -> None:
    """By loops over members, acceptable answers and training examples: exact scores, candidates, citations and each member's own score."""
    bundle, attributor = engine(form)
    members, against = outputs(0, 4, 9), outputs(1, 2, completion="Please ask our support team first.")
    group = QueryGroup(key="refunds", members=members, against=against)
    prepared = attributor.prepare_group(group, max_tokens=256, over_long="reject")
    alone = [
        attributor.signals([attributor.prepare(one, max_tokens=256, over_long="reject")])[0].signals
        for one in (*members, *against)
    ]
    kernel = np.zeros((5, ROWS))
    for place, one in enumerate(alone):
        for row in range(ROWS):
            kernel[place, row] = float(bundle.store.scores(one.factors, np.array([row]))[0, 0])
    expected = kernel[:3].mean(axis=0) - kernel[3:].mean(axis=0)
    (answer,) = attributor.attribute([prepared], top_k=12, opponents=3)
    read = attributor.read_group(prepared)
    exact = exact_scores(bundle, [read], quiet)[0]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        exact * float(read.signals.norm) * bundle.store.norms, expected, atol=1e-3 * scale
    )
    assert answer.key == "refunds"
    assert [one.key for one in answer.members] == ["output-0", "output-4", "output-9"]
    assert answer.against == 2
    assert answer.loss_nats == pytest.approx(np.mean([one.loss for one in alone[:3]]), rel=1e-4)
    assert answer.tokens == sum(one.tokens for one in alone[:3])
    for cited in answer.citations:
        row = cited.example.row
        assert cited.influence_magnitude == pytest.approx(expected[row], abs=1e-3 * scale)
        assert cited.influence_score == pytest.approx(exact[row], abs=1e-5)
        own = [kernel[place, row] / float(alone[place].norm) / bundle.store.norms[row] for place in range(3)]
        assert cited.member_influence == pytest.approx(own, abs=1e-3)
        assert cited.rank > 0 or (cited.influence_score or 0.0) < 0
    projected = bundle.vectors @ read.signals.projected
    assert answer.citations[0].retrieval_score == pytest.approx(
        float(projected[answer.citations[0].example.row]), abs=1e-4
    )


def test_a_group_of_one_is_its_output(
    engine: Callable[[BundleForm], tuple[Bundle, LanguageAttributor]],
) -> None:
    """The same citations in the same order with the same scores as the output by itself, in a batch with other queries."""
    _, attributor = engine("adapter")
    one, other = outputs(3, 5)
    prepared: list[PreparedQuery] = [
        attributor.prepare(other, max_tokens=256, over_long="reject"),
        attributor.prepare_group(QueryGroup(key="one", members=(one,)), max_tokens=256, over_long="reject"),
        attributor.prepare(one, max_tokens=256, over_long="reject"),
    ]
    first, group, single = attributor.attribute(prepared, top_k=6, opponents=2)
    assert [answer.key for answer in (first, group, single)] == ["output-5", "one", "output-3"]
    assert [(each.rank, each.example.row) for each in group.citations] == [
        (each.rank, each.example.row) for each in single.citations
    ]
    for ours, theirs in zip(group.citations, single.citations, strict=True):
        for name in ("score", "influence_score", "influence_magnitude", "bm25_score", "similarity_score"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-3, abs=1e-4)
        assert ours.member_influence == pytest.approx([theirs.influence_score], abs=1e-4)
        assert ours.modules
    assert (group.conformal_p, group.novelty_p) == (None, None)


def test_norm_in_parts() -> None:
    """The norm of a long row is that of all its tokens at once, and a mean of equal rows is the row."""
    for width in (4, 96):  # by small matrices, and token by token
        row = random_factors((3000,), widths=(width, width), seed=4)
        at_once = token_kernel(row, row).sum().sqrt()
        torch.testing.assert_close(kernel_norms(row)[0], at_once, rtol=1e-4, atol=1e-3)
        same = mean_factors([row, row, row], [])
        torch.testing.assert_close(kernel_norms(same)[0], at_once, rtol=1e-4, atol=1e-3)


def test_what_cannot_be_one_question(
    engine: Callable[[BundleForm], tuple[Bundle, LanguageAttributor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acceptable answer that is one of the outputs, and more tokens than can be held, are refused by name."""
    _, attributor = engine("adapter")
    members = outputs(0, 1)
    with pytest.raises(InvalidRecord, match="the acceptable answer output-1 is the output output-1 itself"):
        attributor.prepare_group(
            QueryGroup(key="g", members=members, against=members[1:]), max_tokens=256, over_long="reject"
        )
    monkeypatch.setattr("wherefrom.attribution.output_group.MAX_GROUP_TOKENS", 5)
    with pytest.raises(OutputTooLong, match=r"group g: its 2 completions have \d+ tokens together"):
        attributor.prepare_group(QueryGroup(key="g", members=members), max_tokens=256, over_long="reject")
