"""What packing promises, whatever the lengths."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wherefrom.attribution.batching import pack_by_length

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
