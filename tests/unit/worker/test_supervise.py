"""Which processes the supervisor starts, and that each of them is stopped."""

import os
from pathlib import Path

from wherefrom.settings import Settings
from worker.supervise import AFTER_S, STOP_STAGES, command_of, processes_of


def test_a_measurer_runs_only_where_a_recipe_is_set():
    """It trains models: nobody gets it unasked. An empty variable, as compose makes it, is not set."""
    assert processes_of(Settings()) == ("run", "sweep", "intake", "web")
    assert processes_of(Settings(recipe="")) == ("run", "sweep", "intake", "web")
    assert processes_of(Settings(recipe=Path("recipe.json"))) == ("run", "sweep", "intake", "web", "measure")


def test_every_process_is_stopped():
    """A process without a stage would be left behind."""
    stopped = [name for stage in STOP_STAGES for name in stage]
    assert sorted(stopped) == sorted(processes_of(Settings(recipe=Path("recipe.json"))))


def test_the_worker_and_the_page_start_first():
    """The others wait before they import anything, as told on their command line."""
    assert AFTER_S.keys().isdisjoint({"run", "web", "measure"})
    for name in processes_of(Settings()):
        command = command_of(name)
        assert command[2:6] == ["worker", name, "--exit-with-parent", str(os.getpid())]
        assert command[6:] == (["--after", str(AFTER_S[name])] if name in AFTER_S else [])
