"""Opens the pickle in `training_args.bin` without running anything in it.

A pickle can run any code when it is opened as usual. Here no name in it is looked up: whatever it wants to make becomes an inert record of its arguments
(`Inert`), so nothing runs.

Python hashes a key without looking how deep it goes, so tuples inside tuples by the hundred thousand end the process. A file of settings has few steps and few tuples: what has more is
refused before it is opened.
"""

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from wherefrom.errors import ConfigurationError

#: Larger files of settings are refused.
MOST_BYTES = 16 << 20
#: Steps of a pickle, and how many of them may make something that is hashed part by part; the Trainer's files have a thousand and a hundred.
MOST_STEPS, MOST_HASHED = 100_000, 2_000
_HASHED = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
#: What a file that was made to do harm, or only broken, raises in zipfile and pickle.
_BROKEN = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


class Inert:
    """Stands for whatever a pickle names; keeps what it was called with and given, and does nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments = (*arguments, *named.values())
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.arguments = ()
        self.state = state

    def __hash__(self) -> int:
        return id(self)

    def append(self, _one: Any) -> None:
        """As of a list."""

    extend = append

    def __setitem__(self, _key: Any, _value: Any) -> None:
        """As of a dictionary."""


class _NamesNothing(pickle.Unpickler):
    """Opens a pickle without looking up or running anything that it names."""

    def find_class(self, _module: str, _name: str) -> Any:
        return Inert

    def persistent_load(self, _identifier: Any) -> Any:
        return Inert()


def settings_in(file: Path) -> dict[str, Any]:
    """The attributes of the arguments in `training_args.bin`.

    Raises:
        ConfigurationError: the file is none that the Trainer writes.
    """
    content = bounded_bytes(file)
    try:
        pickled = _pickle_in(content)
        _check_steps(pickled)
        opened = _NamesNothing(io.BytesIO(pickled)).load()
    except _BROKEN as error:
        raise ConfigurationError(
            f"{file}: not written by the Trainer of transformers ({error}); move it away, or write the recipe yourself"
        ) from error
    state = opened.state if isinstance(opened, Inert) else None
    if not isinstance(state, dict):
        raise ConfigurationError(f"{file}: not the arguments of a training")
    return {key: value for key, value in state.items() if isinstance(key, str)}


def _check_steps(pickled: bytes) -> None:
    """Refuse a pickle that is no file of settings by its length or its nesting.

    Raises:
        ValueError: it is none.
    """
    hashed = 0
    for step, (code, _, _) in enumerate(pickletools.genops(pickled)):
        hashed += code.name in _HASHED
        if step >= MOST_STEPS or hashed > MOST_HASHED:
            raise ValueError("too long or too deeply nested for settings")


def bounded_bytes(file: Path) -> bytes:
    """The content of a small file.

    Raises:
        ConfigurationError: it is too large for a file of settings, or cannot be read.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ConfigurationError(f"{file}: larger than {MOST_BYTES >> 20} MiB, so it holds no settings")
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({error.strerror})") from error


def _pickle_in(content: bytes) -> bytes:
    """The one pickle in an archive of torch.save.

    Raises:
        ValueError: there is none, or it is too large.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [one for one in archive.infolist() if one.filename.endswith("/data.pkl")]
        if len(names) != 1 or names[0].file_size > MOST_BYTES:
            raise ValueError("no archive of torch.save")
        return archive.read(names[0])
