"""A child that the application forks: what Python has of the server there, and how the child ends.

`src/fork_guard` does the same for what is not Python's. It runs first.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys

from ferricorn import _core, _hijack
from ferricorn._gunicorn.workers.base import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


# A weak reference to the file that the server has given to the fault handler, and the signal at which it dumps stacks.
fault_file: Any = None
dump_signal: int | None = None
# The descriptor to which the interpreter writes signals for the event loop.
wakeup_fd: int | None = None
# Where requests are greenlets. In a child, a greenlet that another one's fork has copied does not come back from it.
stay_behind: Callable[[], None] | None = None


def install() -> None:
    """Once per process."""
    os.register_at_fork(after_in_child=leave_server)


def leave_server() -> None:
    """Runs in every child that Python forks, and does nothing in those of the server."""
    if not _core.is_forked_child():
        return
    if wakeup_fd is not None:
        current = signal.set_wakeup_fd(-1)
        if current not in (-1, wakeup_fd):
            signal.set_wakeup_fd(current)
    if dump_signal is not None:
        faulthandler.unregister(dump_signal)
        # Not the handler that the server had before.
        signal.signal(dump_signal, signal.SIG_DFL)
    if fault_file is not None and fault_file() is not None:
        faulthandler.disable()
    # Both have put back the handlers that the server had installed before.
    _core.reset_signal_handlers()
    for number in signal.Signals:
        handler = signal.getsignal(number)
        is_the_servers = isinstance(getattr(handler, "__self__", None), Worker)
        if is_the_servers or handler is signal.default_int_handler:
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    _hijack.close_all()


def restore_wakeup() -> None:
    """`asyncio` sets the wake-up descriptor for as long as it handles signals, and then sets it to none."""
    if wakeup_fd is None:
        return
    current = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    if current not in (-1, wakeup_fd):
        signal.set_wakeup_fd(current)


def await_end() -> None:
    """The child has come back to the server's code. What was only copied by the fork stays here."""
    if stay_behind is not None:
        stay_behind()


def end(error: BaseException | None) -> NoReturn:
    """The child has come back to the server's code, by a return or an exception. It ends as a program would, without
    the exit handlers and threads that it has copied."""
    code = 1
    try:
        code = exit_code(error)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    finally:
        os._exit(code)


def exit_code(error: BaseException | None) -> int:
    """As the interpreter's, which prints what `sys.exit` was called with."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1
