"""`gunicorn.workers.base`: the `worker` that hooks are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ferricorn._gunicorn.app.base import BaseApplication
    from ferricorn._gunicorn.config import Config
    from ferricorn._gunicorn.sock import Listener

import os
import signal
import sys
import time


class Worker:
    """A record of one worker process. The server keeps it up to date before each hook; attributes that a hook sets last
    as long as the process, and those that `pre_fork` sets are there in the worker too."""

    SIGNALS = [getattr(signal, f"SIG{name}") for name in "ABRT HUP QUIT INT TERM USR1 USR2 WINCH CHLD".split()]
    PIPE: list[int] = []

    def __init__(
        self,
        age: int,
        ppid: int,
        sockets: list[Listener],
        app: BaseApplication,
        timeout: float,
        cfg: Config,
        log: Any,
    ) -> None:
        self.age = age
        self.pid: int | str = "[booting]"
        self.ppid = ppid
        self.sockets = sockets
        self.app = app
        self.timeout = timeout
        self.cfg = cfg
        self.log = log
        self.booted = False
        self.aborted = False
        self.alive = True
        self.reloader: Any = None
        self.wsgi: Any = None
        self.nr = 0
        self.max_requests = cfg.max_requests or sys.maxsize
        self.tmp = WorkerTmp(cfg)

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"

    def notify(self) -> None:
        """Changes nothing: the event loop reports its heartbeat itself."""
        self.tmp.notify()

    def init_process(self) -> None:
        """For subclasses to call; the server does what this is about."""

    def init_signals(self) -> None:
        """gunicorn's handlers, before the application is imported: code that replaces one may call the one before."""
        for one, handler in (
            (signal.SIGQUIT, self.handle_quit),
            (signal.SIGTERM, self.handle_exit),
            (signal.SIGINT, self.handle_quit),
            (signal.SIGWINCH, self.handle_winch),
            (signal.SIGUSR1, self.handle_usr1),
            (signal.SIGABRT, self.handle_abort),
        ):
            signal.signal(one, handler)
        # They do not disturb what a request waits for.
        signal.siginterrupt(signal.SIGTERM, False)
        signal.siginterrupt(signal.SIGUSR1, False)

    def _deliver(self, number: int) -> bool:
        """Hands a signal to the event loop. False while there is none yet."""
        from ferricorn import _core

        if self.pid not in ("[booting]", os.getpid()):
            # A child of the application's: what the signal means to it is the system's to say.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return True
        return _core.deliver_signal(number)

    def _call_hook(self, name: str) -> None:
        hook = getattr(self.cfg, name, None)
        if callable(hook):
            hook(self)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if not self._deliver(signal.SIGTERM):
            sys.exit(0)

    def handle_quit(self, sig: int, frame: Any) -> None:
        if not self._deliver(sig if sig == signal.SIGINT else signal.SIGQUIT):
            self._call_hook("worker_int")
            sys.exit(0)

    def handle_abort(self, sig: int, frame: Any) -> None:
        if not self._deliver(signal.SIGABRT):
            self._call_hook("worker_abort")
            sys.exit(1)

    def handle_usr1(self, sig: int, frame: Any) -> None:
        if not self._deliver(signal.SIGUSR1):
            self.log.reopen_files()

    def handle_winch(self, sig: int, frame: Any) -> None:
        self.log.debug("worker: SIGWINCH ignored.")

    def load_wsgi(self) -> None:
        self.wsgi = self.app.wsgi()

    def run(self) -> None:
        raise NotImplementedError("ferricorn runs its own worker; a worker class cannot be one")


class WorkerTmp:
    """Stands for gunicorn's heartbeat file, which is shared memory here."""

    def __init__(self, cfg: Config | None = None) -> None:
        self._last = time.monotonic()

    def notify(self) -> None:
        self._last = time.monotonic()

    def last_update(self) -> float:
        return self._last

    def fileno(self) -> int:
        raise OSError("the heartbeat is not a file")

    def close(self) -> None:
        pass
