"""The hollow bundles of the opening benchmark open as real ones do, with as many rows as were asked for."""

import shutil
from collections.abc import Sized
from pathlib import Path

from benchmarks.opening import hollow
from tests.tiny import shared_micro_bundle, shared_micro_model
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.models.files import ModelFolders


def test_a_hollow_bundle_opens(tmp_path: Path) -> None:
    """Every part has the wanted length, the graphs and the words too; hashes are right."""
    source = tmp_path / "source"
    shutil.copytree(shared_micro_bundle(), source)
    hollow(source, tmp_path / "hollow", 700, words=50)
    bundle = open_bundle(tmp_path / "hollow", ModelFolders(shared_micro_model()))
    lengths: list[Sized] = [
        bundle.store,
        bundle.vectors,
        bundle.pooled,
        bundle.index,
        bundle.similarity,
        bundle.tokens,
        bundle.texts,
    ]
    assert [len(one) for one in lengths] == [700] * 7
    assert bundle.lexical.rarity("word49") < bundle.lexical.rarity("unknown")
