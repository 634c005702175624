"""Set-up of structured logs: static event names, data as fields, ids bound for the time of a task.

Every line, tracebacks included, passes `wherefrom.masking` before it is written, whichever library logs it; on a terminal it
passes `wherefrom.terminal.visible` too.
"""

import logging
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import structlog

from wherefrom.masking import MASK, install_masked_tracebacks, is_secret_name, mask
from wherefrom.settings import Settings
from wherefrom.terminal import visible


def configure_logging(settings: Settings) -> None:
    """Send structlog and standard logging to stderr, as readable lines or as JSON. Called once by each process."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    secrets = settings.secrets()
    clean: list[structlog.types.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        # Plain tracebacks: others print local variables, and with them the text of flagged outputs.
        structlog.processors.format_exc_info,
        partial(_masked_event, secrets=secrets),
    ]
    renderer: structlog.types.Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        clean.append(_visible_event)
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[*clean, renderer],
        )
    )
    install_masked_tracebacks(partial(mask, secrets=secrets), in_threads=True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in (
        "httpx",
        "httpcore",
        "kombu",
        "amqp",
        "alembic",
        "celery.worker.strategy",
        "celery.app.trace",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _masked_event(
    _logger: object, _method: str, event: structlog.types.EventDict, *, secrets: frozenset[str]
) -> structlog.types.EventDict:
    return {
        name: MASK if is_secret_name(name) else _masked_value(value, secrets) for name, value in event.items()
    }


def _masked_value(value: Any, secrets: frozenset[str]) -> Any:
    """The value without secrets; what JSON does not know becomes its `repr`."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {
            name: MASK if is_secret_name(str(name)) else _masked_value(one, secrets)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked_value(one, secrets) for one in value]
    return mask(value if isinstance(value, str) else repr(value), secrets)


def _visible_event(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """What a terminal would obey is written out; line breaks stay in the event and in tracebacks only, and no line of them begins as an event does."""
    with_lines = {"event", "exception", "stack"}
    return {
        name: _visible_lines(value)
        if name in with_lines
        else visible(value)
        if isinstance(value, str)
        else value
        for name, value in event.items()
    }


def _visible_lines(value: Any) -> Any:
    """Lines after the first are indented: whoever gets a line break into a message forges no line of the log."""
    if not isinstance(value, str):
        return value
    first, *others = visible(value, keep="\n\t").split("\n")
    return "\n".join([first, *(f"    {line}" for line in others)])


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose first argument is a static event name and whose data are keyword fields."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
