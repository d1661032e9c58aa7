"""The terminal that a program draws on: taken, kept while it is resized or stopped, and given back as it was."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
from collections.abc import Callable
from types import FrameType
from typing import Any


class Screen:
    """Its alternate screen, without a cursor, keys without Enter. It is as before afterwards."""

    ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
    LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"

    def __init__(self) -> None:
        self.paints = "NO_COLOR" not in os.environ
        self._has_keys = sys.stdin.isatty()
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._wakeup: tuple[int, int] = (-1, -1)

    def __enter__(self) -> Screen:
        read, write = os.pipe()
        self._wakeup = (read, write)
        for end in self._wakeup:
            os.set_blocking(end, False)
        # A resize ends the wait for the next sample.
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        wanted: dict[int, Callable[[int, FrameType | None], object]]
        wanted = {signal.SIGWINCH: _nothing, signal.SIGTSTP: self._stop, signal.SIGTERM: _end, signal.SIGHUP: _end}
        for number, handler in wanted.items():
            self._handlers[number] = signal.signal(number, handler)
        try:
            self._enter()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not leave half of it.
        self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._leave()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for end in self._wakeup:
            os.close(end)

    def _enter(self) -> None:
        if self._has_keys:
            self._before = termios.tcgetattr(0)
            new = termios.tcgetattr(0)
            new[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(0, termios.TCSADRAIN, new)
        self._write(self.ENTER)

    def _leave(self) -> None:
        # The terminal may be gone.
        with contextlib.suppress(OSError, termios.error):
            self._write(self.LEAVE)
            if self._before is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, self._before)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its terminal, and this program its screen when it goes on."""
        self._leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._enter()

    def show(self, lines: list[str]) -> None:
        self._write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")

    def _write(self, text: str) -> None:
        data = text.encode(sys.stdout.encoding or "utf-8", "replace")
        while data:
            data = data[os.write(1, data) :]

    def wait(self, seconds: float) -> set[str]:
        """The keys that were pressed; none after `seconds`, or when the terminal has another size."""
        waited = [self._wakeup[0], *([0] if self._has_keys else [])]
        ready, _, _ = select.select(waited, [], [], seconds)
        if self._wakeup[0] in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup[0], 512)
        if 0 in ready:
            keys = os.read(0, 64)
            self._has_keys = bool(keys)
            return set(keys.decode("ascii", "replace"))
        return set()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The wait ends, and the size is read anew."""


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
