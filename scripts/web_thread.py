"""One web process in a thread of this one, for pictures, benchmarks and tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from wherefrom.errors import ConfigurationError

#: Time between two looks at a server that starts, and most that open requests get at the end, seconds.
_LOOK_S, _END_S = 0.01, 10.0


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free loopback port, with nothing that `worker.web_server` runs beside it; its address.

    The application's services are closed in the end; the database is the caller's.

    Raises:
        ConfigurationError: the server ended before it served.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(_LOOK_S)
            if not thread.is_alive():
                raise ConfigurationError("the web service ended before it served")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_END_S)
        app.state.services.close()
