"""The files of a build that many machines share, and what is left of them at its end."""

from pathlib import Path

from wherefrom.attribution.bundles.shared_files import SharedFile, delete_shared
from wherefrom.storage import open_store


def test_nothing_is_left_of_a_killed_writer(tmp_path: Path) -> None:
    """A worker that is killed while it hands a file over leaves a hidden one, which has no name in the store."""
    home = tmp_path / "builds" / "ours"
    store = open_store(str(home))
    kind = next(iter(SharedFile))
    (tmp_path / "file").write_bytes(b"whole")
    store.put(tmp_path / "file", f"{kind}/one")
    (home / kind / ".two.0a1b2c3d.part").write_bytes(b"ha")
    assert delete_shared(store) == 1
    assert not home.exists()
