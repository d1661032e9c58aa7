"""The built-in logs as Python sees them: `gunicorn.error` and `gunicorn.access`, with handlers that write where the
server writes.

Applications borrow handlers and level from them, hooks log through them. A line has the server's form; give a handler
another formatter and it has that one.

The server writes its lines without Python as long as these two loggers and their handlers are as it has made them. Code
that changes one, be it at import, in a hook, by `dictConfig` or while requests run, gets Python's logging for all lines
of that log: filters, handlers, formatters, levels, `disabled`, `propagate`, classes and patched methods then count.
Code that is in all of Python's loggers, or that makes their records, gets the lines of the access log too.
"""

from __future__ import annotations

import functools
import logging
import time
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


for _name in (
    "append",
    "extend",
    "insert",
    "remove",
    "pop",
    "clear",
    "__setitem__",
    "__delitem__",
    "__iadd__",
):
    setattr(_List, _name, _announced(_name))


class _Watched:
    """Mixed into the two loggers, their handlers and formatters: the server learns of each change."""

    _watched = frozenset(
        (
            "level",
            "disabled",
            "propagate",
            "handlers",
            "filters",
            "formatter",
            "stream",
            "disable",
            "__class__",
        )
        # A formatter's.
        + ("_style", "_fmt", "datefmt")
    )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("handlers", "filters"):
            value = _List(value)
        is_method = callable(getattr(type(self), name, None))
        super().__setattr__(name, value)
        if is_method or name in self._watched:
            announce()


def _watch(one: Any) -> None:
    """A logger, a formatter, or what all loggers have in common."""
    kind = type(one)
    # A logger or formatter of another class than the standard library's is touched as it is.
    if (
        kind in (logging.Logger, logging.Formatter)
        or isinstance(one, logging.Manager)
        and kind.__bases__[0] is not _Watched
    ):
        one.__class__ = type(kind.__name__, (_Watched, kind), {"__module__": kind.__module__})
        if isinstance(one, logging.Logger):
            one.handlers, one.filters = one.handlers, one.filters


def _is_replaced(one: Any, kind: type) -> bool:
    """Whether an object has another class than `kind`, which is watched or not, or a method of its own."""
    own = type(one)
    is_kind = own is kind or (own.__bases__ == (_Watched, kind))
    return not is_kind or any(callable(getattr(kind, name, None)) for name in vars(one))


def _own_handlers(log: logging.Logger) -> list[Handler]:
    return [one for one in log.handlers if isinstance(one, Handler)]


# The logger object whose logs the server writes.
_current: BuiltIn | None = None


def announce() -> None:
    """Tells the server which of its logs are Python's business. It looks by itself as well, now and then."""
    built_in = _current
    if built_in is not None:
        _core.loggers_changed(*built_in.state())


_SOURCE = logging.addLevelName.__code__.co_filename
# What a record passes through.
_PASSED = (
    "info",
    "error",
    "exception",
    "log",
    "_log",
    "isEnabledFor",
    "makeRecord",
    "handle",
    "filter",
    "callHandlers",
)


def is_logging_patched() -> bool:
    """Whether code has put itself into all loggers, as Sentry's and New Relic's agents do, or makes their records. It
    sees the exceptions of requests and the access log only if Python makes these records."""
    return _is_patched(logging.Logger, _PASSED) or logging.getLogRecordFactory() is not logging.LogRecord


def _is_patched(kind: type, names: tuple[str, ...]) -> bool:
    methods = [getattr(kind, name) for name in names]
    return any(type(one) is not FunctionType or one.__code__.co_filename != _SOURCE for one in methods)


# What turns records into text.
_WRITTEN: tuple[tuple[type, tuple[str, ...]], ...] = (
    (logging.StreamHandler, ("emit", "handle", "format")),
    (logging.Formatter, ("format", "formatTime", "formatException", "formatMessage")),
    (logging.LogRecord, ("getMessage",)),
)
_LEVELS = {getattr(logging, name): name for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
_CONVERTER = time.localtime


def _is_writing_patched() -> bool:
    return any(_is_patched(kind, names) for kind, names in _WRITTEN)


def _are_stamps_changed() -> bool:
    """Whether levels have other names (`logging.addLevelName`), or times are another zone's."""
    has_names = all(logging.getLevelName(level) == name for level, name in _LEVELS.items())
    return not has_names or logging.Formatter.converter is not _CONVERTER


def _watch_record_factory() -> None:
    plain = logging.setLogRecordFactory
    if hasattr(plain, "__wrapped__"):
        return

    @functools.wraps(plain)
    def set_record_factory(factory: Callable[..., logging.LogRecord]) -> None:
        plain(factory)
        announce()

    logging.setLogRecordFactory = set_record_factory


class _Stream:
    """Text for one of the server's logs, as it is."""

    def __init__(self, name: str, write: Callable[[str], int]) -> None:
        self.name = name
        self.write = write

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def _looks(formatter: logging.Formatter) -> dict[str, Any]:
    return {**vars(formatter), "": vars(formatter._style).copy()}


class Handler(_Watched, logging.StreamHandler):  # type: ignore[type-arg]
    """Hands records to the server; those of `gunicorn.error` with their level, so that it sends them everywhere."""

    def __init__(
        self,
        stream: Any,
        formatter: logging.Formatter,
        send: Callable[[int, str], None] | None = None,
    ) -> None:
        super().__init__(stream)
        self._gunicorn = True
        self._send = send
        self._built_in = formatter
        self._built_in_stream = stream
        self._built_in_looks = _looks(formatter)
        self.setFormatter(formatter)
        _watch(formatter)

    def is_untouched(self) -> bool:
        return (
            self._has_built_in_form()
            and self.stream is self._built_in_stream
            and self.level == logging.NOTSET
            and not self.filters
            and not _is_replaced(self, Handler)
        )

    def _has_built_in_form(self) -> bool:
        formatter = self._built_in
        return (
            self.formatter is formatter
            # Lines of the access log have neither.
            and (self._send is None or not _are_stamps_changed())
            and not _is_writing_patched()
            and not _is_replaced(formatter, logging.Formatter)
            and _looks(formatter) == self._built_in_looks
        )

    def emit(self, record: logging.LogRecord) -> None:
        if self._send is None or not self._has_built_in_form():
            super().emit(record)
            return
        try:
            self._send(record.levelno, _MESSAGE.format(record))
        except Exception:
            self.handleError(record)


class BuiltIn(Logger):
    """What hooks get as `.log` when no logger was configured."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _ACCESS or name in _ERROR:
            announce()

    def setup(self, cfg: Config) -> None:
        global _current
        # What happens here is no change.
        _current = None
        super().setup(cfg)
        loggers = (self.error_log, self.access_log)
        self._own = {log.name: (log, _own_handlers(log)) for log in loggers}
        for one in (*loggers, self.error_log.manager):
            _watch(one)
        _watch_record_factory()
        _current = self

    def state(self) -> tuple[bool, bool, bool, int]:
        """Whether the access log, the error log and all of Python's loggers were changed; the error log's level."""
        access = self._is_touched(self.access_log, "gunicorn.access", logging.INFO) or self._is_overridden(_ACCESS)
        log = self.error_log
        is_replaced = _is_replaced(log, logging.Logger) or self._is_overridden(_ERROR)
        error = is_replaced or self._is_touched(log, "gunicorn.error", self.loglevel)
        # Other code decides then.
        level = logging.DEBUG if is_replaced else log.getEffectiveLevel()
        return access, error, is_logging_patched(), level

    def _is_touched(self, log: logging.Logger, name: str, level: int) -> bool:
        built_in, own = self._own[name]
        return (
            log is not built_in
            or _is_replaced(log, logging.Logger)
            or log.disabled
            or log.propagate
            or log.level != level
            or bool(log.filters)
            or list(log.handlers) != own
            or not all(Handler.is_untouched(one) for one in own)
            or log.manager.disable >= level
        )

    def _is_overridden(self, plain: dict[str, Any]) -> bool:
        """Whether the logger object, or its class, has another method than the server's."""
        own = vars(self)
        return any(name in own or getattr(type(self), name) is not method for name, method in plain.items())

    def _set_handler(
        self,
        log: logging.Logger,
        output: str | None,
        fmt: logging.Formatter,
        stream: IO[str] | None = None,
    ) -> None:
        if log is self.error_log:
            handler = Handler(_Stream("<error log>", _core.write_error_log), fmt, _core.write_record)
        else:
            handler = Handler(_Stream("<access log>", _core.write_access_log), fmt)
        log.addHandler(handler)

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self._write_metric(kwargs)
        if msg:
            super().info(msg, *args, **kwargs)

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self._write_metric(kwargs)
        if msg:
            super().debug(msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: str, *args: Any, **kwargs: Any) -> None:
        """With `extra={"metric": name, "value": number, "mtype": kind}` a metric goes to statsd, as in gunicorn; an
        empty message is then not logged."""
        self._write_metric(kwargs)
        if msg:
            super().log(lvl, msg, *args, **kwargs)

    @staticmethod
    def _write_metric(kwargs: dict[str, Any]) -> None:
        extra = kwargs.get("extra") or {}
        metric, value, kind = (extra.get(key) for key in ("metric", "value", "mtype"))
        if metric and value is not None and kind:
            _core.write_metric(str(kind), str(metric), str(value))

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


def _methods(*names: str) -> dict[str, Any]:
    return {name: getattr(BuiltIn, name) for name in names}


# What each log is written with.
_ACCESS = _methods("access", "atoms", "atoms_wrapper_class", "now", "_get_user", "access_log_enabled")
_ERROR = _methods("critical", "error", "warning", "info", "debug", "exception", "log")
