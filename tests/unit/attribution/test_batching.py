"""What packing promises, whatever the lengths."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.attribution.batching import GPU_TIMES, pack_by_length, pass_tokens

lengths = st.lists(st.integers(min_value=1, max_value=300), max_size=80)
budgets = st.integers(min_value=1, max_value=1000)


@given(lengths, budgets)
def test_every_item_is_in_exactly_one_pack(sizes, budget):
    """Packing loses and doubles nothing."""
    items = list(enumerate(sizes))
    packs = pack_by_length(items, length=lambda item: item[1], budget_tokens=budget)
    assert sorted(item for pack in packs for item in pack) == items
    assert all(packs)


@given(lengths, budgets)
def test_no_pack_exceeds_the_budget_unless_it_is_one_item(sizes, budget):
    """Padding counts: a pack costs its longest member times its size."""
    for pack in pack_by_length(sizes, length=int, budget_tokens=budget):
        assert len(pack) == 1 or len(pack) * max(pack) <= budget


@given(lengths, budgets)
def test_no_item_would_have_fitted_into_the_pack_before(sizes, budget):
    """Packs are as full as their order allows."""
    packs = pack_by_length(sizes, length=int, budget_tokens=budget)
    for full, following in pairwise(packs):
        assert (len(full) + 1) * following[0] > budget


@given(st.lists(st.tuples(st.integers(1, 80), st.integers(0, 80)), max_size=60), budgets)
def test_like_completions_are_packed(rows, budget):
    """With completions given: each item once, within the budget, completions in order and not torn apart by prompts."""
    items = [(completion, completion + prompt) for completion, prompt in rows]
    packs = pack_by_length(
        items, length=lambda one: one[1], completion=lambda one: one[0], budget_tokens=budget
    )
    assert [one for pack in packs for one in pack] == sorted(items)
    assert all(len(pack) == 1 or len(pack) * max(one[1] for one in pack) <= budget for pack in packs)


def test_a_pass_on_a_gpu_takes_more():
    """Below that it waits for its kernels to be launched."""
    assert pass_tokens(torch.device("cpu"), 2048) == 2048
    assert pass_tokens(torch.device("cuda", 1), 2048) == 2048 * GPU_TIMES
