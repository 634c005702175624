"""The engine of the tests, whose process dies with certain outputs; real pool processes load it through the setting `engine`."""

import os
import signal
from collections.abc import Sequence

from tests.overlap_engine import OverlapAttributor, OverlapEngine, PreparedWords
from wherefrom.attribution.interface import PreparedQuery
from wherefrom.records import Attribution, BundleInfo
from wherefrom.settings import Settings

#: The setting `engine` that loads it.
ENGINE = "tests.integration.worker.deadly_engine:make_engine"
#: Words of an output that kill whoever attributes it.
KILLS, EXITS = "sigkill-now", "exit-now"
EXIT_CODE = 7


def make_engine(settings: Settings) -> "DeadlyEngine":
    """The factory that the setting `engine` names."""
    return DeadlyEngine(settings)


class DeadlyEngine(OverlapEngine):
    """Opens deadly attributors."""

    def open_attributor(self, bundle: BundleInfo) -> "DeadlyAttributor":
        """Read the examples."""
        return DeadlyAttributor(bundle.name, self._examples(bundle))


class DeadlyAttributor(OverlapAttributor):
    """Answers like the engine of the tests, but a poison ends its process."""

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """Die or answer."""
        words = {word for one in prepared if isinstance(one, PreparedWords) for word in one.words}
        if KILLS in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if EXITS in words:
            os._exit(EXIT_CODE)
        return super().attribute(prepared, top_k=top_k, opponents=opponents)
