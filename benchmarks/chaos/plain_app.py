"""A plain Celery application with the settings that are usually advised for work that must not be lost; each task writes one row.

`STORM_RESULTS` names a SQLite file, which stands for whatever a task of an application writes to.
"""

import os
import signal
import sqlite3
import threading

from celery import Celery

from benchmarks.chaos.outputs import POISON, number_of, seconds_of

TASK = "storm.attribute"
#: Its default is an hour. A message that a dead worker held comes back after this, seconds.
VISIBILITY_S = 30


def make_app(redis_url: str) -> Celery:
    """The application, for workers and producers."""
    app = Celery("storm", broker=redis_url)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_S,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "health_check_interval": 10,
        },
    )
    return app


def open_results(file: str) -> sqlite3.Connection:
    """The table that tasks write to."""
    connection = sqlite3.connect(file, timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS result (key TEXT NOT NULL)")
    return connection


def attribute(key: str, completion: str) -> None:
    """Take an output's time, which is that of `benchmarks.chaos.engine`, then die or write a row."""
    threading.Event().wait(seconds_of(number_of(completion)))
    if POISON in completion:
        os.kill(os.getpid(), signal.SIGKILL)
    results = open_results(os.environ["STORM_RESULTS"])
    results.execute("INSERT INTO result (key) VALUES (?)", (key,))
    results.close()


#: Workers look it up here (`celery -A benchmarks.chaos.plain_app`).
app = make_app(os.environ.get("STORM_REDIS", "redis://127.0.0.1:1/0"))
app.task(name=TASK)(attribute)
