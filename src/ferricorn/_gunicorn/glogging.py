"""`gunicorn.glogging`: the logger behind `logger_class`, on Python's `logging`.

The built-in logs are written by the server itself (`ferricorn._logger`). This class takes over, in every process, when
the configuration has a `logger_class` or one of the `logconfig` settings; subclasses override what they need.
"""

import base64
import binascii
import contextlib
import json
import logging
import logging.config
import logging.handlers
import os
import socket
import sys
import threading
import time
import traceback

from ferricorn._gunicorn import util

ERROR_FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
DATE_FORMAT = "[%Y-%m-%d %H:%M:%S %z]"

# What `logconfig_dict` and `logconfig_json` are laid over, key by key.
CONFIG_DEFAULTS = {
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

_FACILITIES = "auth authpriv cron daemon ftp kern lpr mail news syslog user uucp".split()
SYSLOG_FACILITIES = {
    name: logging.handlers.SysLogHandler.facility_names[name]
    for name in _FACILITIES + [f"local{number}" for number in range(8)]
}
# An old name of auth.
SYSLOG_FACILITIES["security"] = SYSLOG_FACILITIES["auth"]


def loggers():
    """Every logger that exists, but for the root."""
    return [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]


def parse_syslog_address(address):
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


class SafeAtoms(dict):
    """The atoms of an access log line: no client can end a quoted value, and what is unknown shows as `-`."""

    def __init__(self, atoms):
        escaped = (
            (key, value.replace('"', '\\"') if isinstance(value, str) else value) for key, value in atoms.items()
        )
        super().__init__(escaped)

    def __getitem__(self, key):
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

    def __init__(self, cfg):
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        self.error_log.propagate = False
        self.access_log.propagate = False
        self.error_handlers = []
        self.access_handlers = []
        self.logfile = None
        self.lock = threading.Lock()
        self.cfg = cfg
        self.setup(cfg)

    # -- setting up ------------------------------------------------------------------------------

    def setup(self, cfg):
        """Also called on a reload, with the configuration of then."""
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

    def _apply_logconfig(self, cfg):
        """The first of the three that is set counts."""
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
    def _apply_ini(path):
        if not os.path.exists(path):
            raise RuntimeError(f"Error: log config '{path}' not found")
        defaults = {"__file__": path, "here": os.path.dirname(path)}
        logging.config.fileConfig(path, defaults=defaults, disable_existing_loggers=False)

    def _capture_output(self):
        """Whatever the process prints goes to the error log."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        previous, self.logfile = self.logfile, open(self.cfg.errorlog, "a+")  # noqa: SIM115
        for stream in (sys.stdout, sys.stderr):
            os.dup2(self.logfile.fileno(), stream.fileno())
        if previous is not None:
            previous.close()

    def _set_handler(self, log, output, fmt, stream=None):
        """`-` is `stream`, by default the standard error. It takes the place of the handler of before."""
        previous = self._get_gunicorn_handler(log)
        if previous is not None:
            log.removeHandler(previous)
        if output is None:
            return
        if output == "-":
            handler = logging.StreamHandler(stream)
        else:
            util.check_is_writable(output)
            handler = logging.FileHandler(output)
            # Workers must be able to open it anew; a device such as /dev/null is nobody's to give away.
            with contextlib.suppress(OSError):
                os.chown(handler.baseFilename, self.cfg.user, self.cfg.group)
        self._add_handler(log, handler, fmt)

    def _set_syslog_handler(self, log, cfg, fmt, name):
        program = f"gunicorn.{cfg.syslog_prefix or cfg.proc_name.replace(':', '.')}.{name}"
        facility = SYSLOG_FACILITIES.get(cfg.syslog_facility.lower())
        if facility is None:
            raise RuntimeError("unknown facility name")
        kind, address = parse_syslog_address(cfg.syslog_addr)
        handler = logging.handlers.SysLogHandler(address=address, facility=facility, socktype=kind)
        self._add_handler(log, handler, logging.Formatter(f"{program}: {fmt}"))

    def _get_gunicorn_handler(self, log):
        return next((one for one in log.handlers if getattr(one, "_gunicorn", False)), None)

    @staticmethod
    def _add_handler(log, handler, formatter):
        handler.setFormatter(formatter)
        handler._gunicorn = True
        log.addHandler(handler)

    # -- the error log ---------------------------------------------------------------------------

    def critical(self, msg, *args, **kwargs):
        self.error_log.critical(msg, *args, **kwargs)

    def error(self, msg, *args, **kwargs):
        self.error_log.error(msg, *args, **kwargs)

    def warning(self, msg, *args, **kwargs):
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg, *args, **kwargs):
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg, *args, **kwargs):
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg, *args, **kwargs):
        self.error_log.exception(msg, *args, **kwargs)

    def log(self, lvl, msg, *args, **kwargs):
        if isinstance(lvl, str):
            lvl = self.LOG_LEVELS.get(lvl.lower(), logging.INFO)
        self.error_log.log(lvl, msg, *args, **kwargs)

    # -- the access log --------------------------------------------------------------------------

    @property
    def access_log_enabled(self):
        cfg = self.cfg
        to_syslog = cfg.syslog and not cfg.disable_redirect_access_to_syslog
        return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or to_syslog)

    def access(self, resp, req, environ, request_time):
        """One finished request; `request_time` is a `timedelta`."""
        if not self.access_log_enabled:
            return
        atoms = self.atoms_wrapper_class(self.atoms(resp, req, environ, request_time))
        try:
            self.access_log.info(self.cfg.access_log_format, atoms)
        except Exception:
            self.error(traceback.format_exc())

    def atoms(self, resp, req, environ, request_time):
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
        for letter, pairs in (("i", getattr(req, "headers", req)), ("o", resp.headers), ("e", environ)):
            pairs = pairs.items() if hasattr(pairs, "items") else pairs
            atoms.update({f"{{{name.lower()}}}{letter}": value for name, value in pairs})
        return atoms

    def now(self):
        """The time as the Common Log Format writes it."""
        return time.strftime("[%d/%b/%Y:%H:%M:%S %z]")

    def _get_user(self, environ):
        """The name of HTTP Basic authentication."""
        scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "basic" or not credentials:
            return None
        try:
            return base64.b64decode(credentials.strip()).partition(b":")[0].decode()
        except (binascii.Error, ValueError) as error:
            self.debug("Couldn't get username: %s", error)
            return None

    # -- files -----------------------------------------------------------------------------------

    def reopen_files(self):
        """After a rotation (SIGUSR1): the files of every logger, the application's too."""
        if self.cfg.capture_output and self.cfg.errorlog != "-":
            with self.lock:
                self._capture_output()
        for handler in self._file_handlers():
            if handler.stream:
                handler.close()
                handler.stream = handler._open()

    def close_on_exec(self):
        for handler in self._file_handlers():
            if handler.stream:
                util.close_on_exec(handler.stream.fileno())

    @staticmethod
    def _file_handlers():
        """Each while its lock is held."""
        for log in loggers():
            for handler in log.handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.acquire()
                    try:
                        yield handler
                    finally:
                        handler.release()
