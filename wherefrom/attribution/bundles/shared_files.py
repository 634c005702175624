"""The files of a build over many machines in its shared folder, each named by the hash of its content.

So a file is never changed, two machines that write the same one do no harm, and whoever fetches one knows whether it is whole.
"""

from collections.abc import Collection
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from wherefrom.attribution.bundles.manifest import hash_file
from wherefrom.errors import NotStored
from wherefrom.storage import Store, is_url
from wherefrom.storage.folder import unfinished_in


class SharedFile(StrEnum):
    """What a file holds; the folder that it lies in."""

    #: The rows of a part as tokens.
    ROWS = "rows"
    #: The signals of one shard.
    SHARDS = "shards"
    #: The second moments of a part.
    MOMENTS = "moments"


def shared_name(kind: SharedFile, sha256: str) -> str:
    """Name of a file."""
    return f"{kind}/{sha256}.npz"


def put_shared(store: Store, kind: SharedFile, file: Path, *, known: Collection[str] = ()) -> str:
    """Store a file unless it is there; its hash.

    Args:
        store: the shared folder.
        kind: what the file holds.
        file: on this machine.
        known: names of files that are there.

    Raises:
        StorageUnavailable, StorageRefused, DiskFull: it could not be stored.
    """
    sha256 = hash_file(file).sha256
    name = shared_name(kind, sha256)
    if name not in known and not store.exists(name):
        store.put(file, name)
    return sha256


def fetch_shared(store: Store, kind: SharedFile, sha256: str, *, to: Path) -> None:
    """Copy a file from the store and check it. One that has changed is deleted, so that it is made again.

    Raises:
        NotStored: it is not there, or was not what its name says.
        StorageUnavailable, StorageRefused, DiskFull: it could not be fetched.
    """
    name = shared_name(kind, sha256)
    store.fetch(name, to)
    if hash_file(to).sha256 != sha256:
        store.delete(name)
        to.unlink()
        raise NotStored(
            f"{store.url}: {name} had changed and was deleted; run `python -m worker build` again"
        )


def delete_shared(store: Store) -> int:
    """Delete the files of a build, and its folder where it is one; how many there were."""
    names = [one for kind in SharedFile for one in store.names(f"{kind}/")]
    for name in names:
        store.delete(name)
    if not is_url(store.url):
        folder = Path(store.url)
        for one in (left for kind in SharedFile for left in unfinished_in(folder / kind)):
            one.unlink(missing_ok=True)
        _remove_empty(folder)
    return len(names)


def _remove_empty(folder: Path) -> None:
    """Remove the folders of a build, and the shared folder, where nothing is left in them and this user may."""
    for one in (*(folder / kind for kind in SharedFile), folder, folder.parent):
        with suppress(OSError):  # it holds something, is gone, is a mount, or lies in another user's folder
            one.rmdir()
