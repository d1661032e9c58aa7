"""`gunicorn.app.wsgiapp`: the application that the command line names."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ferricorn._gunicorn import util
from ferricorn._gunicorn.app.base import Application
from ferricorn._gunicorn.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, NoReturn


class WSGIApplication(Application):
    """`MODULE[:VARIABLE]` from the command line, else `wsgi_app` of the configuration."""

    app_uri: str | None = None

    def init(self, parser: argparse.ArgumentParser, opts: argparse.Namespace, args: list[str]) -> None:
        self.app_uri = None
        if args:
            self.cfg.set("default_proc_name", args[0])
            self.app_uri = args[0]

    def load_config(self) -> None:
        super().load_config()
        if self.app_uri is None:
            self.app_uri = self.cfg.wsgi_app
        if self.app_uri is None:
            raise ConfigError("No application module specified.")

    def load_wsgiapp(self) -> Callable[..., Any]:
        return util.import_app(self.app_uri or "")

    def load(self) -> Callable[..., Any]:
        return self.load_wsgiapp()


def run(prog: str | None = None) -> NoReturn:
    """What the `gunicorn` command does; `sys.argv` is its command line."""
    from ferricorn import _core

    sys.exit(_core.run([prog or sys.argv[0], *sys.argv[1:]]))


if __name__ == "__main__":
    run()
