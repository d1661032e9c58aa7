"""The built-in logs as Python sees them: `gunicorn.error` and `gunicorn.access`, with handlers that write where the
server writes.

Applications borrow handlers and level from them, hooks log through them. A line has the server's form; give a handler
another formatter and it has that one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import IO, Any

from ferricorn import _core
from ferricorn._gunicorn.config import Config
from ferricorn._gunicorn.glogging import Logger

_MESSAGE = logging.Formatter("%(message)s")


class _Stream:
    """Text for one of the server's logs, as it is."""

    def __init__(self, name: str, write: Callable[[str], int]) -> None:
        self.name = name
        self.write = write

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


class Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Hands records to the server; those of `gunicorn.error` with their level, so that it sends them everywhere."""

    def __init__(
        self, stream: Any, formatter: logging.Formatter, send: Callable[[int, str], None] | None = None
    ) -> None:
        super().__init__(stream)
        self._gunicorn = True
        self._send = send
        self._built_in = formatter
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        if self._send is None or self.formatter is not self._built_in:
            super().emit(record)
            return
        try:
            self._send(record.levelno, _MESSAGE.format(record))
        except Exception:
            self.handleError(record)


class BuiltIn(Logger):
    """What hooks get as `.log` when no logger was configured."""

    def _set_handler(
        self, log: logging.Logger, output: str | None, fmt: logging.Formatter, stream: IO[str] | None = None
    ) -> None:
        if log is self.error_log:
            handler = Handler(_Stream("<error log>", _core.write_error_log), fmt, _core.write_record)
        else:
            handler = Handler(_Stream("<access log>", _core.write_access_log), fmt)
        log.addHandler(handler)

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.log(logging.INFO, msg, *args, **kwargs)

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.log(logging.DEBUG, msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: str, *args: Any, **kwargs: Any) -> None:
        """With `extra={"metric": name, "value": number, "mtype": kind}` a metric goes to statsd, as in gunicorn; an
        empty message is then not logged."""
        extra = kwargs.get("extra") or {}
        metric, value, kind = (extra.get(key) for key in ("metric", "value", "mtype"))
        if metric and value is not None and kind:
            _core.write_metric(str(kind), str(metric), str(value))
        if msg:
            super().log(lvl, msg, *args, **kwargs)

    def _set_syslog_handler(self, log: logging.Logger, cfg: Config, fmt: str, name: str) -> None:
        """The server sends to syslog what reaches its logs."""

    def _capture_output(self) -> None:
        """The server's own business too."""

    def reopen_files(self) -> None:
        _core.reopen_logs()
        self.reopen_other_files()

    def reopen_other_files(self) -> None:
        """Those of the application's own loggers."""
        super().reopen_files()
