"""`gunicorn.glogging`: the logger behind `logger_class`, on Python's `logging`.

The built-in logs are written by the server itself (`ferricorn._logger`). This class takes over, in every process, when
the configuration has a `logger_class` or one of the `logconfig` settings; subclasses override what they need.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping

from ferricorn._gunicorn import util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import IO, Any

    from ferricorn._gunicorn.config import Config

ERROR_FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
DATE_FORMAT = "[%Y-%m-%d %H:%M:%S %z]"

# What `logconfig_dict` and `logconfig_json` are laid over, key by key.
CONFIG_DEFAULTS: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        name: {"level": "INFO", "handlers": [handler], "propagate": True, "qualname": name}
        for name, handler in (("gunicorn.error", "error_console"), ("gunicorn.access", "console"))
    },
    "handlers": {
        name: {"class": "logging.StreamHandler", "formatter": "generic", "stream": f"ext://sys.{stream}"}
        for name, stream in (("console", "stdout"), ("error_console", "stderr"))
    },
    "formatters": {
        "generic": {"format": ERROR_FORMAT, "datefmt": DATE_FORMAT, "class": "logging.Formatter"},
    },
}

# RFC 5424 section 6.2.1, by the names of syslog(3).
SYSLOG_FACILITIES = {
    "kern": 0,
    "user": 1,
    "mail": 2,
    "daemon": 3,
    "auth": 4,
    # An old name of auth.
    "security": 4,
    "syslog": 5,
    "lpr": 6,
    "news": 7,
    "uucp": 8,
    "cron": 9,
    "authpriv": 10,
    "ftp": 11,
    **{f"local{number}": 16 + number for number in range(8)},
}


def loggers() -> list[logging.Logger]:
    """Every logger that exists, but for the root."""
    return [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]


def parse_syslog_address(address: str) -> tuple[socket.SocketKind | None, Any]:
    """`(socket type, address)` as `SysLogHandler` wants them."""
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in ("unix", "udp", "tcp"):
        raise RuntimeError("invalid syslog address")
    if scheme == "unix":
        path, _, kind = rest.partition("#")
        return (socket.SOCK_DGRAM if kind == "dgram" else None), path
    try:
        host_and_port = util.parse_address(rest or "localhost", "514")
    except RuntimeError:
        port = rest.rpartition(":")[2]
        raise RuntimeError(f"{port!r} is not a valid port number.") from None
    return (socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM), host_and_port


class SafeAtoms(dict[str, "Any"]):
    """The atoms of an access log line: no client can end a quoted value, and what is unknown shows as `-`."""

    def __init__(self, atoms: Mapping[str, Any]) -> None:
        escaped = (
            (key, value.replace('"', '\\"') if isinstance(value, str) else value) for key, value in atoms.items()
        )
        super().__init__(escaped)

    def __getitem__(self, key: str) -> Any:
        # Names of headers and variables are looked up in any case.
        return self.get(key.lower() if key.startswith("{") else key, "-")


class Logger:
    """The error log and the access log. `cfg` is the server's configuration."""

    LOG_LEVELS = {name: getattr(logging, name.upper()) for name in ("critical", "error", "warning", "info", "debug")}
    loglevel = logging.INFO

    error_fmt = ERROR_FORMAT
    datefmt = DATE_FORMAT
    access_fmt = "%(message)s"
    syslog_fmt = "[%(process)d] %(message)s"

    atoms_wrapper_class = SafeAtoms

    def __init__(self, cfg: Config) -> None:
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        self.error_log.propagate = False
        self.access_log.propagate = False
        self.error_handlers: list[logging.Handler] = []
        self.access_handlers: list[logging.Handler] = []
        self.logfile: IO[str] | None = None
        self.lock = threading.Lock()
        self.cfg = cfg
        self.setup(cfg)

    # -- setting up ------------------------------------------------------------------------------

    def setup(self, cfg: Config) -> None:
        """Also called on a reload, with the new configuration."""
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO)
        self.error_log.setLevel(self.loglevel)
        self.access_log.setLevel(logging.INFO)
        for log in (self.error_log, self.access_log):
            for handler in [one for one in log.handlers if getattr(one, "_gunicorn", False)]:
                log.removeHandler(handler)
        if cfg.capture_output and cfg.errorlog != "-":
            self._capture_output()
        self._set_handler(self.error_log, cfg.errorlog, logging.Formatter(self.error_fmt, self.datefmt))
        if cfg.accesslog is not None:
            self._set_handler(self.access_log, cfg.accesslog, logging.Formatter(self.access_fmt), sys.stdout)
        if cfg.syslog:
            self._set_syslog_handler(self.error_log, cfg, self.syslog_fmt, "error")
            if not cfg.disable_redirect_access_to_syslog:
                self._set_syslog_handler(self.access_log, cfg, self.syslog_fmt, "access")
        self._apply_logconfig(cfg)

    def _apply_logconfig(self, cfg: Config) -> None:
        """The first of the three that is set counts."""
        if not (cfg.logconfig_dict or cfg.logconfig_json or cfg.logconfig):
            return
        import json
        import logging.config

        try:
            if cfg.logconfig_dict:
                logging.config.dictConfig({**CONFIG_DEFAULTS, **cfg.logconfig_dict})
            elif cfg.logconfig_json:
                # gunicorn passes over a file that is not there.
                if os.path.exists(cfg.logconfig_json):
                    with open(cfg.logconfig_json) as file:
                        logging.config.dictConfig({**CONFIG_DEFAULTS, **json.load(file)})
            elif cfg.logconfig:
                self._apply_ini(cfg.logconfig)
        except (AttributeError, ImportError, TypeError, ValueError) as error:
            raise RuntimeError(str(error)) from error

    @staticmethod
    def _apply_ini(path: str) -> None:
        import logging.config

        if not os.path.exists(path):
            raise RuntimeError(f"Error: log config '{path}' not found")
        defaults = {"__file__": path, "here": os.path.dirname(path)}
        logging.config.fileConfig(path, defaults=defaults, disable_existing_loggers=False)

    def _capture_output(self) -> None:
        """Whatever the process prints goes to the error log."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        previous, opened = self.logfile, open(self.cfg.errorlog, "a+")  # noqa: SIM115
        self.logfile = opened
        for stream in (sys.stdout, sys.stderr):
            os.dup2(opened.fileno(), stream.fileno())
        if previous is not None:
            previous.close()

    def _set_handler(
        self, log: logging.Logger, output: str | None, fmt: logging.Formatter, stream: IO[str] | None = None
    ) -> None:
        """`-` is `stream`, by default the standard error. The new handler replaces the previous one."""
        previous = self._get_gunicorn_handler(log)
        if previous is not None:
            log.removeHandler(previous)
        if output is None:
            return
        if output == "-":
            self._add_handler(log, logging.StreamHandler(stream), fmt)
        else:
            util.check_is_writable(output)
            handler = logging.FileHandler(output)
            # Workers must be able to reopen it. A device such as /dev/null cannot be given away.
            with contextlib.suppress(OSError):
                os.chown(handler.baseFilename, self.cfg.user, self.cfg.group)
            self._add_handler(log, handler, fmt)

    def _set_syslog_handler(self, log: logging.Logger, cfg: Config, fmt: str, name: str) -> None:
        import logging.handlers

        program = f"gunicorn.{cfg.syslog_prefix or cfg.proc_name.replace(':', '.')}.{name}"
        facility = SYSLOG_FACILITIES.get(cfg.syslog_facility.lower())
        if facility is None:
            raise RuntimeError("unknown facility name")
        kind, address = parse_syslog_address(cfg.syslog_addr)
        handler = logging.handlers.SysLogHandler(address=address, facility=facility, socktype=kind)
        self._add_handler(log, handler, logging.Formatter(f"{program}: {fmt}"))

    def _get_gunicorn_handler(self, log: logging.Logger) -> logging.Handler | None:
        return next((one for one in log.handlers if getattr(one, "_gunicorn", False)), None)

    @staticmethod
    def _add_handler(log: logging.Logger, handler: logging.Handler, formatter: logging.Formatter) -> None:
        handler.setFormatter(formatter)
        handler._gunicorn = True  # type: ignore[attr-defined]
        log.addHandler(handler)

    # -- the error log ---------------------------------------------------------------------------

    def critical(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.error_log.critical(msg, *args, **kwargs)

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.error_log.error(msg, *args, **kwargs)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.error_log.exception(msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: str, *args: Any, **kwargs: Any) -> None:
        if isinstance(lvl, str):
            level = self.LOG_LEVELS.get(lvl.lower(), logging.INFO)
        else:
            level = lvl
        self.error_log.log(level, msg, *args, **kwargs)

    # -- the access log --------------------------------------------------------------------------

    @property
    def access_log_enabled(self) -> bool:
        cfg = self.cfg
        to_syslog = cfg.syslog and not cfg.disable_redirect_access_to_syslog
        return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or to_syslog)

    def access(self, resp: Any, req: Any, environ: Mapping[str, Any], request_time: timedelta) -> None:
        """One finished request; `request_time` is a `timedelta`."""
        if not self.access_log_enabled:
            return
        atoms = self.atoms_wrapper_class(self.atoms(resp, req, environ, request_time))
        try:
            self.access_log.info(self.cfg.access_log_format, atoms)
        except Exception:
            self.error(traceback.format_exc())

    def atoms(self, resp: Any, req: Any, environ: Mapping[str, Any], request_time: timedelta) -> dict[str, Any]:
        """What `access_log_format` may name."""
        status = resp.status
        if isinstance(status, str):
            status = status.split(None, 1)[0]
        sent = getattr(resp, "sent", None)
        seconds, micros = request_time.seconds, request_time.microseconds
        atoms = {
            "h": environ.get("REMOTE_ADDR", "-"),
            "l": "-",
            "u": self._get_user(environ) or "-",
            "t": self.now(),
            "r": " ".join(str(environ[key]) for key in ("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL")),
            "s": status,
            "m": environ.get("REQUEST_METHOD"),
            "U": environ.get("PATH_INFO"),
            "q": environ.get("QUERY_STRING"),
            "H": environ.get("SERVER_PROTOCOL"),
            "b": "-" if sent is None else str(sent),
            "B": sent,
            "f": environ.get("HTTP_REFERER", "-"),
            "a": environ.get("HTTP_USER_AGENT", "-"),
            "T": seconds,
            "D": seconds * 1_000_000 + micros,
            "M": seconds * 1000 + micros // 1000,
            "L": f"{seconds}.{micros:06d}",
            "p": f"<{os.getpid()}>",
        }
        sources: tuple[tuple[str, Any], ...] = (
            ("i", getattr(req, "headers", req)),
            ("o", resp.headers),
            ("e", environ),
        )
        for letter, source in sources:
            pairs = source.items() if hasattr(source, "items") else source
            atoms.update({f"{{{name.lower()}}}{letter}": value for name, value in pairs})
        return atoms

    def now(self) -> str:
        """The time as the Common Log Format writes it."""
        return time.strftime("[%d/%b/%Y:%H:%M:%S %z]")

    def _get_user(self, environ: Mapping[str, Any]) -> str | None:
        """The name of HTTP Basic authentication."""
        scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "basic" or not credentials:
            return None
        import base64
        import binascii

        try:
            return base64.b64decode(credentials.strip()).partition(b":")[0].decode()
        except (binascii.Error, ValueError) as error:
            self.debug("Couldn't get username: %s", error)
            return None

    # -- files -----------------------------------------------------------------------------------

    def reopen_files(self) -> None:
        """After a rotation (SIGUSR1): the files of every logger, the application's too."""
        if self.cfg.capture_output and self.cfg.errorlog != "-":
            with self.lock:
                self._capture_output()
        for handler in self._file_handlers():
            if handler.stream:
                handler.close()
                handler.stream = handler._open()

    def close_on_exec(self) -> None:
        for handler in self._file_handlers():
            if handler.stream:
                util.close_on_exec(handler.stream.fileno())

    @staticmethod
    def _file_handlers() -> Iterator[logging.FileHandler]:
        """Each while its lock is held."""
        for log in loggers():
            for handler in log.handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.acquire()
                    try:
                        yield handler
                    finally:
                        handler.release()
