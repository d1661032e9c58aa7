"""`gunicorn.workers.base`: the `worker` that hooks are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ferricorn._gunicorn.app.base import BaseApplication
    from ferricorn._gunicorn.config import Config
    from ferricorn._gunicorn.sock import Listener

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
