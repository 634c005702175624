"""A store in a folder of this machine, or of a file server that several machines mount."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wherefrom.atomic import atomic_file, tells_full_disk
from wherefrom.errors import NotStored, StorageRefused, StorageUnavailable
from wherefrom.storage.store import check_name


class FolderStore:
    """Satisfies `Store`; needs no extra."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        """The folder."""
        return str(self._folder)

    def names(self, prefix: str = "") -> Sequence[str]:
        """See `Store`. Hidden files that are still written have none."""
        with self._errors():
            below = (one.relative_to(self._folder) for one in self._folder.rglob("*") if one.is_file())
            names = (one.as_posix() for one in below if not _is_unfinished(one))
            return sorted(name for name in names if name.startswith(prefix))

    def exists(self, name: str) -> bool:
        """See `Store`."""
        with self._errors():
            return self._file(name).is_file()

    def size(self, name: str) -> int:
        """See `Store`."""
        file = self._file(name)
        with self._errors():
            if not file.is_file():
                raise NotStored(f"{self._folder}: there is no file {name}")
            return file.stat().st_size

    def fetch(self, name: str, to: Path) -> None:
        """See `Store`."""
        to.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(to) as unfinished, self._errors():
            try:
                shutil.copyfile(self._file(name), unfinished)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise NotStored(f"{self._folder}: there is no file {name}") from error

    def put(self, path: Path, name: str) -> None:
        """See `Store`."""
        file = self._file(name)
        with path.open("rb") as content, self._errors():
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(file) as unfinished, unfinished.open("wb") as copy:
                shutil.copyfileobj(content, copy)

    def delete(self, name: str) -> None:
        """See `Store`."""
        with self._errors():
            self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._folder / check_name(name)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the file system into those of a store; a full disk passes as it is."""
        try:
            yield
        except PermissionError as error:
            raise StorageRefused(
                f"{self._folder}: {error.filename or 'a file'}: permission denied"
            ) from error
        except OSError as error:
            if tells_full_disk(error):
                raise
            raise StorageUnavailable(f"{self._folder}: {error.strerror or error}") from error


def unfinished_in(folder: Path) -> list[Path]:
    """Files that `atomic_file` is writing there, or that stayed where a writer was killed."""
    return [one for one in folder.glob(".*") if _is_unfinished(one)]


def _is_unfinished(file: Path) -> bool:
    """Whether `atomic_file` is writing it."""
    return file.name.startswith(".") and file.suffix == ".part"
