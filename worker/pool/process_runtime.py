"""What a pool process holds whatever it works off; `worker.pool.runtime` and `worker.pool.measurer_runtime` say what is theirs.

Nothing is made at import. A pool process builds its runtime when it has started (`worker.app`), so no connection and no
model ever crosses a process boundary.
"""

import time
from typing import NotRequired, TypedDict, Unpack

from db.session import Database
from tasks.attribute import Clock
from wherefrom.attribution.interface import Engine
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.broker.hints import HintSender
from worker.pool.owners import owner_name
from worker.vitals.liveness import LivenessFile


class ProcessParts(TypedDict):
    """What a runtime is made from beside the settings."""

    database: Database
    hints: HintSender
    metrics: Metrics
    engine: Engine
    #: Name under which the process claims; default: one of its own.
    owner: NotRequired[str]
    #: The file that is there once the worker was told to end; default: nobody says so.
    leaving: NotRequired[LivenessFile]


class ProcessRuntime:
    """Settings, metrics, database, engine and the way to send hints; satisfies `tasks.runtime.TaskRuntime`."""

    def __init__(self, settings: Settings, **parts: Unpack[ProcessParts]) -> None:
        self.settings = settings
        self.metrics = parts["metrics"]
        self.owner = parts.get("owner") or owner_name()
        self.clock: Clock = time.monotonic
        self._leaving = parts.get("leaving")
        self._database = parts["database"]
        self._hints = parts["hints"]
        self._engine = parts["engine"]

    def loaded_bundles(self) -> tuple[int, ...]:
        """Ids of the bundles whose engines are loaded; none where a process serves whichever is asked for."""
        return ()

    def is_ending(self) -> bool:
        """Whether the worker was told to end."""
        return self._leaving is not None and self._leaving.age_s() is not None

    def send_hint(self, bundle_id: int) -> None:
        """Pass the hint on."""
        self._hints.pass_on(bundle_id)

    def close(self) -> None:
        """Let go of the database's connections."""
        self._database.dispose()
