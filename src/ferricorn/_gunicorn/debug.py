"""`gunicorn.debug`: `--spew` prints every line of Python that runs."""

from __future__ import annotations

import linecache
import re
import sys
import threading
from types import FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_WORD = re.compile(r"[A-Za-z_]\w*")


class Spew:
    """A trace function: `module:line: source`, and, with `show_values`, the values of the names on it."""

    def __init__(self, trace_names: list[str] | None = None, show_values: bool = True) -> None:
        self.trace_names = trace_names
        self.show_values = show_values

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Spew:
        if event == "line":
            name = frame.f_globals.get("__name__", "[unknown]")
            if self.trace_names is None or name in self.trace_names:
                self._print(frame, name)
        return self

    def _print(self, frame: FrameType, name: str) -> None:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals).rstrip()
        if not line:
            line = f"Unknown code named [{frame.f_code.co_name}].  VM instruction #{frame.f_lasti}"
        print(f"{name}:{frame.f_lineno}: {line}")
        if self.show_values:
            scopes = (frame.f_globals, frame.f_locals)
            values = [f"{word}={scope[word]!r}" for word in _WORD.findall(line) for scope in scopes if word in scope]
            if values:
                print("\t" + " ".join(values))


def spew(trace_names: list[str] | None = None, show_values: bool = False) -> None:
    """Trace this thread and those that are started from now on."""
    tracer = Spew(trace_names, show_values)
    threading.settrace(tracer)
    sys.settrace(tracer)


def unspew() -> None:
    threading.settrace(None)
    sys.settrace(None)
