"""Several web processes on one port: this one keeps them running, and serves nothing itself.

Each of them listens on the port for itself (SO_REUSEPORT), and the kernel hands every new connection to one of them. So they share no lock and no
event loop; what a process keeps in its memory is its own: slots, lines, failed sign-ins, counts of HTTP requests. Keys, their limits and sessions are in the
database or in the state folder, which they share.
"""

import os
import sys
import threading
import time

from wherefrom.access import refuse_keyless_production
from wherefrom.errors import ConfigurationError
from wherefrom.logs import get_logger
from wherefrom.settings import Settings, child_environment
from worker.loop import stop_on_signals
from worker.supervise import POLL_S, Supervisor
from worker.web_address import listen, url_of, web_file

log = get_logger(__name__)

#: How long the processes of one that was killed may hold the port: they look for their parent every second and answer open requests first, seconds.
PORT_WAIT_S = 15.0


def run_web_processes(settings: Settings) -> None:
    """Keep `settings.web_processes` processes serving until SIGTERM or SIGINT; one that ends is started again.

    Raises:
        ConfigurationError: the address cannot be bound, or would be served without API keys.
    """
    refuse_keyless_production(settings)
    stop = stop_on_signals()
    port = _free_address(settings, stop)
    if port is None:
        return
    settings = settings.model_copy(update={"port": port})
    numbers = range(1, settings.web_processes + 1)
    for number in (None, *numbers):
        web_file(settings, number).remove()  # of processes that were killed
    commands = {f"web-{number}": _command(settings, number) for number in numbers}
    supervisor = Supervisor(commands, environment=child_environment(), stop_stages=[tuple(commands)])
    told = False
    try:
        supervisor.start()
        while not stop.wait(POLL_S):
            supervisor.watch()
            if not told and any(web_file(settings, number).age_s() is not None for number in numbers):
                web_file(settings).create(url=url_of(settings))
                log.info("web_processes_started", url=url_of(settings), processes=len(numbers))
                told = True
    finally:
        web_file(settings).remove()
        supervisor.stop()


def _command(settings: Settings, number: int) -> list[str]:
    address = ["--host", settings.host, "--port", str(settings.port)]
    shared = ["--number", str(number), "--exit-with-parent", str(os.getpid())]
    return [sys.executable, "-m", "worker", "web", *address, *shared]


def _free_address(settings: Settings, stop: threading.Event) -> int | None:
    """The port, on which nobody else listens: a service of the same user there would get a share of the connections, and nobody would notice. None where told to stop before it was free.

    Raises:
        ConfigurationError: somebody does, or it cannot be bound.
    """
    deadline = time.monotonic() + PORT_WAIT_S
    while True:
        try:
            with listen(settings) as alone:
                return int(alone.getsockname()[1])
        except ConfigurationError:
            if time.monotonic() > deadline:
                raise
            if stop.wait(POLL_S):
                return None
