"""`gunicorn.app.base`: an application that brings its own server along.

class Standalone(BaseApplication):
    def load_config(self) -> None:
        self.cfg.set("bind", "127.0.0.1:8000")

    def load(self) -> Callable[..., Any]:
        return wsgi_application

Standalone().run()
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from ferricorn._gunicorn import util
from ferricorn._gunicorn.arbiter import Arbiter
from ferricorn._gunicorn.config import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, NoReturn


class BaseApplication:
    """Subclasses fill `self.cfg` in `load_config` and return the WSGI application from `load`."""

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        self.usage = usage
        self.prog = prog
        self.cfg: Any = None
        self.callable: Callable[..., Any] | None = None
        self.logger: Any = None
        self.do_load_config()

    def do_load_config(self) -> None:
        """Also called on a reload."""
        try:
            self.load_default_config()
            self.load_config()
            self.cfg.validate()
        except Exception as error:
            print(f"\nError: {error}", file=sys.stderr, flush=True)
            sys.exit(1)

    def load_default_config(self) -> None:
        self.cfg = Config(self.usage, prog=self.prog)

    def init(self, parser: argparse.ArgumentParser, opts: argparse.Namespace, args: list[str]) -> dict[str, Any] | None:
        raise NotImplementedError

    def load(self) -> Callable[..., Any]:
        raise NotImplementedError

    def load_config(self) -> None:
        raise NotImplementedError

    def reload(self) -> None:
        self.do_load_config()

    def wsgi(self) -> Callable[..., Any]:
        """The application, loaded once."""
        if self.callable is None:
            self.callable = self.load()
        return self.callable

    def run(self) -> NoReturn:
        """Serve until told to stop; then leave the interpreter with gunicorn's exit codes."""
        Arbiter(self).run()


class Application(BaseApplication):
    """One that reads the command line, `GUNICORN_CMD_ARGS` and a configuration file, in gunicorn's order.

    `init` gets the parser and its result, and may return settings that all of these outrank.
    """

    def chdir(self) -> None:
        os.chdir(self.cfg.chdir)
        if self.cfg.chdir not in sys.path:
            sys.path.insert(0, self.cfg.chdir)

    def load_config(self) -> None:
        parser = self.cfg.parser()
        args = parser.parse_args()
        own = self.init(parser, args, args.args)
        self.chdir()
        self._set_all(own or {})
        from_environment = parser.parse_args(self.cfg.get_cmd_args_from_env())
        location = args.config or from_environment.config
        if not location and os.path.exists("gunicorn.conf.py"):
            location = os.path.join(os.getcwd(), "gunicorn.conf.py")
        if location:
            self.load_config_from_file(location)
        for source in (from_environment, args):
            self._set_all({name: value for name, value in vars(source).items() if value is not None and name != "args"})
        # It may be another one by now.
        self.chdir()

    def _set_all(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.cfg.set(name.lower(), value)

    def load_config_from_file(self, filename: str) -> dict[str, Any]:
        return self.load_config_from_module_name_or_filename(filename)

    def load_config_from_module_name_or_filename(self, location: str) -> dict[str, Any]:
        """`PATH`, `file:PATH` or `python:MODULE`; names that are no settings are the file's own business."""
        if location.startswith("python:"):
            names = self.get_config_from_module_name(location.removeprefix("python:"))
        else:
            names = self.get_config_from_filename(location.removeprefix("file:"))
        for name, value in names.items():
            if name not in self.cfg.settings:
                continue
            try:
                self.cfg.set(name, value)
            except Exception:
                print(f"Invalid value for {name}: {value}\n", file=sys.stderr, flush=True)
                raise
        return names

    def get_config_from_module_name(self, module_name: str) -> dict[str, Any]:
        import importlib

        return vars(importlib.import_module(module_name))

    def get_config_from_filename(self, filename: str) -> dict[str, Any]:
        if not os.path.exists(filename):
            raise RuntimeError(f"{filename!r} doesn't exist")
        import importlib.machinery
        import importlib.util

        loader = None
        if not filename.endswith((".py", ".pyc")):
            util.warn("configuration file should have a valid Python extension.\n")
            loader = importlib.machinery.SourceFileLoader("__config__", filename)
        spec: Any = importlib.util.spec_from_file_location("__config__", filename, loader=loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules["__config__"] = module
        try:
            spec.loader.exec_module(module)
        except Exception:
            import traceback

            print(f"Failed to read config file: {filename}", file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            sys.exit(1)
        return vars(module)

    def run(self) -> NoReturn:
        if self.cfg.print_config:
            print(self.cfg)
        if self.cfg.print_config or self.cfg.check_config:
            self._check()
        super().run()

    def _check(self) -> NoReturn:
        try:
            self.load()
        except Exception:
            import traceback

            print("\nError while loading the application:\n", file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            sys.exit(1)
        sys.exit(0)
