"""`gunicorn.config`: `Config`, the `cfg` of arbiter, worker, loggers and embedding applications.

The rows, their checks and their messages are the server's own table of settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from ferricorn import _core
from ferricorn._gunicorn import __version__, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from ferricorn._core import _Row
    from ferricorn._gunicorn.workers.base import Worker


def _nothing(*arguments: Any) -> None:
    """A hook that was not set."""


class Setting:
    """One row. `value` is in force; `given` is what `set` was called with, if it was."""

    def __init__(self, order: int, row: _Row) -> None:
        self.order = order
        self.name = row["name"]
        self.section = row["section"]
        self.cli = row["flags"]
        self.kind = row["kind"]
        self.const = row["const"]
        self.desc = self.short = row["doc"]
        self.default: Any = _nothing if self.kind == "hook" else row["default"]
        self.value = self.default
        self.is_given = False
        self.given: Any = None

    def get(self) -> Any:
        return self.value

    def set(self, value: Any) -> None:
        checked = _core.check_setting(self.name, value)
        self.value = _nothing if checked is None and self.kind == "hook" else checked
        self.is_given, self.given = True, value

    def add_option(self, parser: argparse.ArgumentParser) -> None:
        if not self.cli:
            return
        options: dict[str, Any] = {"dest": self.name, "default": None, "help": self.short.replace("%", "%%")}
        if self.kind == "switch":
            options.update(action="store_const", const=self.const)
        elif self.kind == "list":
            options["action"] = "append"
        elif self.const is not None:
            options.update(nargs="?", const=self.const)
        parser.add_argument(*self.cli, **options)

    def __lt__(self, other: Setting) -> bool:
        return self.order < other.order

    def __repr__(self) -> str:
        return f"<Setting {self.name} = {self.value!r}>"


class Config:
    """Settings as attributes. `set` checks a value as the server would."""

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        self.settings = {row["name"]: Setting(order, row) for order, row in enumerate(_core.settings())}
        self.usage = usage
        self.prog = prog or os.path.basename(sys.argv[0] if sys.argv else "ferricorn")
        self.env_orig = os.environ.copy()
        # The server runs with it.
        self.is_in_force = False

    @classmethod
    def resolved(cls, values: Mapping[str, Any]) -> Config:
        """Of the server itself: the final value of every row."""
        cfg = cls()
        for name, value in values.items():
            setting = cfg.settings[name]
            setting.value = _nothing if value is None and setting.kind == "hook" else value
        cfg.is_in_force = True
        return cfg

    def __str__(self) -> str:
        width = max(map(len, self.settings))
        lines = []
        for name in sorted(self.settings):
            value = self.settings[name].value
            if callable(value):
                value = f"<{value.__qualname__}()>"
            lines.append(f"{name:{width}} = {value}")
        return "\n".join(lines)

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__.get("settings", {})
        if name not in settings:
            raise AttributeError(f"No configuration setting for: {name}")
        return settings[name].get()

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "settings" and name in self.__dict__.get("settings", ()):
            raise AttributeError("Invalid access!")
        super().__setattr__(name, value)

    def set(self, name: str, value: Any) -> None:
        if name not in self.settings:
            raise AttributeError(f"No configuration setting for: {name}")
        if self.is_in_force and name != "raw_env":
            raise RuntimeError(
                f"{name} cannot be set any more: the server runs. Set it in the configuration file, the environment or "
                "on the command line; a reload (HUP) reads them again."
            )
        self.settings[name].set(value)
        if self.is_in_force:
            os.environ.update(self.env)

    def validate(self) -> None:
        """The server checks the whole when it starts."""

    def get_cmd_args_from_env(self) -> list[str]:
        import shlex

        return shlex.split(self.env_orig.get("GUNICORN_CMD_ARGS", ""))

    def parser(self) -> argparse.ArgumentParser:
        """An `argparse` parser with every flag, for applications that read the command line themselves."""
        import argparse

        parser = argparse.ArgumentParser(usage=self.usage, prog=self.prog)
        version = f"%(prog)s (version {__version__})\n"
        parser.add_argument("-v", "--version", action="version", default=argparse.SUPPRESS, version=version)
        parser.add_argument("args", nargs="*", help=argparse.SUPPRESS)
        for setting in sorted(self.settings.values()):
            setting.add_option(parser)
        return parser

    # -- what is worked out ----------------------------------------------------------------------

    def _value(self, name: str) -> Any:
        return self.settings[name].get()

    @property
    def worker_class_str(self) -> str:
        """`sync` with threads is `gthread`."""
        name = self._value("worker_class")
        if not isinstance(name, str):
            return str(name.__name__)
        is_sync = name == "sync" or name.endswith("SyncWorker")
        return "gthread" if is_sync and self.threads > 1 else name

    @property
    def worker_class(self) -> type[Worker]:
        from ferricorn._gunicorn.workers.base import Worker
        from ferricorn._gunicorn.workers.gthread import ThreadWorker
        from ferricorn._gunicorn.workers.sync import SyncWorker

        value = self._value("worker_class")
        if isinstance(value, type) and issubclass(value, Worker) and not value.__module__.startswith(__package__):
            return value
        name = f"{value.__module__}.{value.__name__}" if isinstance(value, type) else str(value)
        name = name.removeprefix("egg:gunicorn#")
        if name.startswith("gevent") or ".ggevent." in name:
            from ferricorn._gunicorn.workers import ggevent

            kind = name.rpartition(".")[2]
            return getattr(ggevent, kind, ggevent.GeventWorker)
        if name == "eventlet" or ".geventlet." in name:
            from ferricorn._gunicorn.workers.geventlet import EventletWorker

            return EventletWorker
        return SyncWorker if self.worker_class_str == "sync" else ThreadWorker

    @property
    def logger_class(self) -> Any:
        name = self._value("logger_class")
        if name in (None, "simple", "gunicorn.glogging.Logger"):
            from ferricorn._gunicorn.glogging import Logger

            return Logger
        loaded = util.load_class(name, default="gunicorn.glogging.Logger", section="gunicorn.loggers")
        if hasattr(loaded, "install"):
            loaded.install()
        return loaded

    @property
    def threads(self) -> int:
        return max(1, self._value("threads"))

    @property
    def address(self) -> list[tuple[str, int] | str | int]:
        return [util.parse_address(util.bytes_to_str(one)) for one in self._value("bind")]

    @property
    def uid(self) -> int:
        return self._value("user")

    @property
    def gid(self) -> int:
        return self._value("group")

    @property
    def proc_name(self) -> str:
        return self._value("proc_name") or self._value("default_proc_name")

    @property
    def env(self) -> dict[str, str]:
        pairs = {}
        for entry in self._value("raw_env") or ():
            name, separator, value = util.bytes_to_str(entry).partition("=")
            if not separator:
                raise RuntimeError(f"environment setting {entry!r} invalid")
            pairs[name] = value
        return pairs

    @property
    def sendfile(self) -> bool:
        value = self._value("sendfile")
        return True if value is None else value

    @property
    def is_ssl(self) -> bool:
        return bool(self._value("certfile") or self._value("keyfile"))

    @property
    def ssl_options(self) -> dict[str, Any]:
        return {name: one.get() for name, one in self.settings.items() if one.section == "SSL"}
