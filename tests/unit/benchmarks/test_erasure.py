"""The floor that the benchmark of erasure is for, on fewer vectors than it takes."""

from benchmarks.erasure import clustered_recall


def test_a_graph_finds_its_neighbours_after_a_fifth_was_erased() -> None:
    """recall@100 of the new graph against exact search over what stays."""
    assert clustered_recall(2_000)["after"] >= 0.98
