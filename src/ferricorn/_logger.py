"""The built-in logs as Python sees them: `gunicorn.error` and `gunicorn.access`, with handlers that write where the
server writes.

Applications borrow handlers and level from them, hooks log through them. A line has the server's form; give a handler
another formatter and it has that one.

The server writes its lines without Python as long as these two loggers and their handlers are as it has made them. Code
that changes one, be it at import, in a hook, by `dictConfig` or while requests run, gets Python's logging for all lines
of that log: filters, handlers, formatters, levels, `disabled` and `propagate` then count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import FunctionType

from ferricorn import _core
from ferricorn._gunicorn.config import Config
from ferricorn._gunicorn.glogging import Logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any


_MESSAGE = logging.Formatter("%(message)s")


class _List(list):  # type: ignore[type-arg]
    """The handlers or filters of a logger: the server learns of each change."""


def _announced(name: str) -> Callable[..., Any]:
    change = getattr(list, name)

    def changed(self: _List, *args: Any) -> Any:
        result = change(self, *args)
        announce()
        return result

    changed.__name__ = name
    return changed


for _name in ("append", "extend", "insert", "remove", "pop", "clear", "__setitem__", "__delitem__", "__iadd__"):
    setattr(_List, _name, _announced(_name))


class _Watched:
    """Mixed into the two loggers and their handlers: the server learns of each change."""

    _watched = ("level", "disabled", "propagate", "handlers", "filters", "formatter", "stream", "disable")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("handlers", "filters"):
            value = _List(value)
        super().__setattr__(name, value)
        if name in self._watched:
            announce()


def _watch(one: Any) -> None:
    """A logger, or what all loggers have in common."""
    kind = type(one)
    if not issubclass(kind, _Watched):
        one.__class__ = type(kind.__name__, (_Watched, kind), {"__module__": kind.__module__})
        if isinstance(one, logging.Logger):
            one.handlers, one.filters = one.handlers, one.filters


def _own_handlers(log: logging.Logger) -> list[Handler]:
    return [one for one in log.handlers if isinstance(one, Handler)]


# The logger object whose logs the server writes.
_current: BuiltIn | None = None


def announce() -> None:
    """Tells the server which of its logs are Python's business."""
    built_in = _current
    if built_in is not None:
        _core.loggers_changed(*built_in.state())


def is_logging_patched() -> bool:
    """Whether code has put itself into all loggers, as Sentry's and New Relic's agents do. It sees the exceptions of
    requests only if their records are made by Python."""
    source = logging.addLevelName.__code__.co_filename
    for name in ("exception", "error", "_log", "makeRecord", "handle", "callHandlers"):
        method = getattr(logging.Logger, name)
        if type(method) is not FunctionType or method.__code__.co_filename != source:
            return True
    return logging.getLogRecordFactory() is not logging.LogRecord


class _Stream:
    """Text for one of the server's logs, as it is."""

    def __init__(self, name: str, write: Callable[[str], int]) -> None:
        self.name = name
        self.write = write

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


class Handler(_Watched, logging.StreamHandler):  # type: ignore[type-arg]
    """Hands records to the server; those of `gunicorn.error` with their level, so that it sends them everywhere."""

    def __init__(
        self, stream: Any, formatter: logging.Formatter, send: Callable[[int, str], None] | None = None
    ) -> None:
        super().__init__(stream)
        self._gunicorn = True
        self._send = send
        self._built_in = formatter
        self._built_in_stream = stream
        self.setFormatter(formatter)

    def is_untouched(self) -> bool:
        return (
            self.formatter is self._built_in
            and self.stream is self._built_in_stream
            and self.level == logging.NOTSET
            and not self.filters
        )

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

    def setup(self, cfg: Config) -> None:
        global _current
        # What happens here is no change.
        _current = None
        super().setup(cfg)
        self._own = {log.name: _own_handlers(log) for log in (self.error_log, self.access_log)}
        for one in (self.error_log, self.access_log, self.error_log.manager):
            _watch(one)
        _current = self

    def state(self) -> tuple[bool, bool, int]:
        """Whether the access log and the error log were changed, and the level of the latter."""
        access = self._is_touched(self.access_log, logging.INFO)
        error = self._is_touched(self.error_log, self.loglevel)
        return access, error, self.error_log.getEffectiveLevel()

    def _is_touched(self, log: logging.Logger, level: int) -> bool:
        own = self._own[log.name]
        return (
            log.disabled
            or log.propagate
            or log.level != level
            or bool(log.filters)
            or list(log.handlers) != own
            or not all(one.is_untouched() for one in own)
            or log.manager.disable >= level
        )

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
