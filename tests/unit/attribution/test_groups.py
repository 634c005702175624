"""Near-duplicate groups: against all pairs, on edges, on templates, and as a file."""

import random
import re
from pathlib import Path

import numpy as np
import pytest

from wherefrom.attribution import groups
from wherefrom.attribution.groups import GROUPS, near_duplicate_groups, read_groups
from wherefrom.errors import BundleCorrupt


def variants(seed: int = 1) -> list[str]:
    """Sixty texts of 30 words and near and far variants of them."""
    draw = random.Random(seed)
    words = [f"w{number}" for number in range(400)]
    texts = [draw.choices(words, k=30) for _ in range(60)]
    for text in texts[:40]:
        changed = list(text)
        for place in draw.sample(range(30), draw.choice([0, 1, 1, 2, 4])):
            changed[place] = draw.choice(words)
        texts.append(changed)
    draw.shuffle(texts)
    return [" ".join(text) for text in texts]


def brute_force(texts: list[str], threshold: float) -> list[int]:
    """Connected components over all pairs of sets of five-word runs, named by their first member."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    sets = [runs(text) for text in texts]
    group = list(range(len(texts)))
    changed = True
    while changed:
        changed = False
        for one in range(len(texts)):
            for other in range(one):
                near = len(sets[one] & sets[other]) / len(sets[one] | sets[other]) >= threshold
                if near and group[one] != group[other]:
                    low = min(group[one], group[other])
                    group[one] = group[other] = low
                    changed = True
    return group


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_same_groups_as_by_all_pairs(threshold: float) -> None:
    """MinHash misses nothing here, and nothing that is below the threshold is joined."""
    texts = variants()
    found = near_duplicate_groups(texts, threshold=threshold)
    assert found.dtype == np.int32
    assert found.tolist() == brute_force(texts, threshold)
    assert 60 <= len(set(found.tolist())) < 95
    assert (near_duplicate_groups(texts, threshold=threshold) == found).all()


def test_as_many_rows_at_once_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows are hashed and sorted at once does not show; a band's rows come by their minima, copies together."""
    texts = [*variants(), *["thank you for calling us today"] * 20]
    expected = near_duplicate_groups(texts).tolist()
    for name, size in {"_ROWS": 7, "_HASHES": 3, "_SORTED": 5, "_SAMPLE": 16}.items():
        monkeypatch.setattr(groups, name, size)
    assert near_duplicate_groups(iter(texts)).tolist() == expected
    columns = np.array([[9, 1, 1], [2, 3, 4], [9, 0, 1], [9, 1, 1], [2**32 - 1, 0, 0], [2, 3, 4]], np.uint32)
    monkeypatch.setattr(groups, "_SORTED", 2)
    columns = np.concatenate([columns, columns[4:5]])
    assert [one.tolist() for one in groups._buckets(columns)] == [[1, 5], [0, 3], [4, 6]]


def test_short_empty_and_punctuated_texts() -> None:
    """Case and punctuation do not count; short texts are compared whole; texts without a word by their characters."""
    found = near_duplicate_groups(["Yes, we do.", "yes we do", "no", "", "", "😀", "🎈", "No!"])
    assert found.tolist() == [0, 0, 2, 3, 3, 5, 6, 2]


def test_thousands_of_copies_take_no_square_of_their_number() -> None:
    """One group, in seconds."""
    found = near_duplicate_groups(["thank you for calling us today how can we help"] * 3000)
    assert set(found.tolist()) == {0}


def test_file_of_a_bundle(tmp_path: Path) -> None:
    """No file: each alone. A file that does not fit the corpus is refused."""
    assert read_groups(tmp_path, 3).tolist() == [0, 1, 2]
    (tmp_path / "corpus").mkdir()
    np.save(tmp_path / GROUPS, np.array([0, 0, 2], dtype=np.int32))
    assert read_groups(tmp_path, 3).tolist() == [0, 0, 2]
    with pytest.raises(BundleCorrupt, match="the corpus has 4 examples"):
        read_groups(tmp_path, 4)
    (tmp_path / GROUPS).write_bytes(b"no array")
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        read_groups(tmp_path, 3)
