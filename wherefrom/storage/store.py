"""What a store is: files under names. A name is a relative path with `/`, such as `b-1f2e/manifest.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from wherefrom.errors import StorageRefused


class Store(Protocol):
    """Holds files under names. A reader sees a file whole or not at all, whoever writes it meanwhile.

    Every method raises `StorageUnavailable` where the store does not answer and `StorageRefused` where it says no. May be used by several threads.
    """

    @property
    def url(self) -> str:
        """The store's place for people; no secret is in it."""

    def names(self, prefix: str = "") -> Sequence[str]:
        """Names of the files that begin with a prefix, sorted. A store that holds nothing yet has none."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            NotStored: there is no such file.
        """

    def fetch(self, name: str, to: Path) -> None:
        """Copy a file to a path of this machine, whole or not at all. Missing folders are made.

        Raises:
            NotStored: there is no such file.
            DiskFull: `to` is as it was.
        """

    def put(self, path: Path, name: str) -> None:
        """Store a file of this machine; one of the same name is replaced in one step.

        Raises:
            DiskFull: the store is a folder whose disk is full; nothing was stored.
            OSError: `path` cannot be read.
        """

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""


def check_name(name: str) -> str:
    """The name, where it can lie only inside a store.

    Raises:
        StorageRefused: it could name something elsewhere, or no store could hold it.
    """
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in {"", ".", ".."} for part in parts):
        raise StorageRefused(
            f"{name[:200]!r} is no name of a stored file; use a relative path with / and without .."
        )
    return name
