"""Signs of life of the long-running processes: files in `state_dir` whose age tells whether the process still turns.

Files and not Redis keys: `python -m worker health` asks about the process beside it (in the same container), and that answer
must not depend on Redis being there. A process that waits for Redis is well; starting it again would not help.
"""

import json
import os
import time

from wherefrom.atomic import PRIVATE, atomic_file
from wherefrom.errors import ConfigurationError, DiskFull
from wherefrom.json_text import read_json
from wherefrom.logs import get_logger
from wherefrom.private import own_folder
from wherefrom.settings import Settings

log = get_logger(__name__)

#: A file older than this means that the process hangs. Rounds take seconds; waits for Redis or the database up to 30.
STALE_S = 60.0
#: A model that is loaded for longer than this counts as hung.
LOADING_S = 900.0


def refusal_file(settings: Settings, bundle_id: int) -> "LivenessFile":
    """Says that a process of this machine looked at a bundle and refused it: a pool process writes it, the watchdog reads it."""
    return LivenessFile(settings, f"refused-{bundle_id}")


def loading_file(settings: Settings, bundle_id: int) -> "LivenessFile":
    """Says that a pool process of this machine is loading a bundle's model, which may take longer than the watchdog waits."""
    return LivenessFile(settings, f"loading-{bundle_id}")


def leaving_file(settings: Settings, node: str) -> "LivenessFile":
    """Says that a worker was told to end: its main process writes it, and its pool processes, which are told nothing else, begin nothing new."""
    return LivenessFile(settings, f"leaving-{node}")


def forget_left(settings: Settings) -> None:
    """Remove what workers said when they were told to end, and were killed before they could remove it."""
    for file in settings.state_dir.glob("leaving-*.json"):
        sign = LivenessFile(settings, file.stem)
        if not sign.is_of_a_living():
            sign.remove()


class LivenessFile:
    """The file by which one process of this machine (and `state_dir`) shows that it is alive."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._path = settings.state_dir / f"{name}.json"

    def create(self, **details: str) -> None:
        """Write the file for the first time, replacing an old one in one step. A full or failing disk is only logged: the process works without.

        Raises:
            ConfigurationError: the state folder can never be written to.
        """
        try:
            self._write(details)
        except (NotADirectoryError, FileExistsError, PermissionError) as error:
            raise ConfigurationError(f"WHEREFROM_STATE_DIR: {self._path.parent}: {error.strerror}") from error
        except (OSError, DiskFull) as error:
            self._log_unwritten(error)

    def beat(self, **details: str) -> None:
        """Write the file again; one that cannot be written is a line in the log, for nothing but its age is lost."""
        try:
            self._write(details)
        except (OSError, DiskFull) as error:
            self._log_unwritten(error)

    def age_s(self) -> float | None:
        """Seconds since the file was last written; None when there is none.

        Raises:
            ConfigurationError: the state folder is another user's.
        """
        try:
            return max(0.0, time.time() - self._path.stat().st_mtime)
        except PermissionError as error:
            raise self._foreign() from error
        except OSError:
            return None

    def details(self) -> dict[str, str]:
        """What the process wrote; empty when there is no file.

        Raises:
            ConfigurationError: the state folder is another user's.
        """
        try:
            read = read_json(self._path.read_text(encoding="utf-8"))
        except PermissionError as error:
            raise self._foreign() from error
        except (OSError, ValueError):
            return {}
        return {str(name): str(value) for name, value in read.items()} if isinstance(read, dict) else {}

    def is_of_a_living(self) -> bool:
        """Whether the process that wrote the file is alive.

        Raises:
            ConfigurationError: as for `details`.
        """
        try:
            os.kill(int(self.details().get("pid", "")), 0)
        except PermissionError:
            return True  # another user's, so it is there
        except (ValueError, OSError):
            return False
        return True

    def _foreign(self) -> ConfigurationError:
        return ConfigurationError(
            f"WHEREFROM_STATE_DIR: {self._path.parent} belongs to another user; run the command as the user of the service"
        )

    def is_fresh(self, within_s: float) -> bool:
        """Whether it was written in the last `within_s` seconds."""
        age_s = self.age_s()
        return age_s is not None and age_s <= within_s

    def remove(self) -> None:
        """Remove the file: the process ended in order."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._log_unwritten(error)

    def _write(self, details: dict[str, str]) -> None:
        own_folder(self._path.parent)
        with atomic_file(self._path, mode=PRIVATE, durable=False) as new:
            new.write_text(json.dumps({"pid": os.getpid(), **details}), encoding="utf-8")

    def _log_unwritten(self, error: OSError | DiskFull) -> None:
        log.warning(
            "sign_not_written", sign=self._path.name, folder=str(self._path.parent), reason=str(error)
        )
