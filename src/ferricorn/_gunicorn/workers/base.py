"""`gunicorn.workers.base`: the `worker` that hooks are given."""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ferricorn._gunicorn.app.base import BaseApplication
    from ferricorn._gunicorn.config import Config
    from ferricorn._gunicorn.sock import Listener


class Worker:
    """A record of one worker process. The server keeps it up to date before each hook; attributes that a hook sets last
    as long as the process, and those that `pre_fork` sets are there in the worker too."""

    # What the server keeps; nothing would follow from setting it.
    _kept = frozenset(
        "age pid ppid sockets app timeout cfg log booted aborted reloader nr tmp "
        "worker_connections max_keepalived nr_conns tpool".split()
    )
    # What counts when the worker begins to serve.
    _initial = frozenset(("max_requests", "wsgi"))

    def __setattr__(self, name: str, value: Any) -> None:
        known = self.__dict__
        if "_is_made" in known:
            if name in self._kept:
                raise AttributeError(f"worker.{name} is the server's: setting it would have no effect")
            if name in self._initial and "_serves" in known:
                raise AttributeError(f"worker.{name} cannot be set any more: the worker serves")
            if name == "alive":
                self._set_alive(value)
                return
        super().__setattr__(name, value)

    def _set_alive(self, value: Any) -> None:
        if value and not self.alive:
            raise AttributeError("worker.alive cannot be set again: the worker stops")
        self.__dict__["alive"] = bool(value)
        if not value and "_serves" in self.__dict__:
            self._deliver(signal.SIGTERM)

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
        """Called before the application is loaded; the rest of what gunicorn's does is done by the server."""
        os.environ.update(self.cfg.env)

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
        from ferricorn import _agents

        self.wsgi = _agents.wsgi(self.app)

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
