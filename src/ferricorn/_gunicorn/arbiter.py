"""`gunicorn.arbiter`: the `arbiter` (or `server`) that hooks are given, and the way to start one."""

from __future__ import annotations

import os
import signal
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ferricorn._gunicorn.app.base import BaseApplication
    from ferricorn._gunicorn.config import Config
    from ferricorn._gunicorn.sock import Listener
    from ferricorn._gunicorn.workers.base import Worker


class Arbiter:
    """A record of the master process, brought up to date before each hook. `Arbiter(app).run()` serves."""

    WORKER_BOOT_ERROR = 3
    APP_LOAD_ERROR = 4
    SIGNALS = [getattr(signal, f"SIG{name}") for name in "HUP QUIT INT TERM TTIN TTOU USR1 USR2 WINCH".split()]
    SIG_NAMES = {one: one.name[3:].lower() for one in signal.Signals}

    def __init__(self, app: BaseApplication) -> None:
        self.app = app
        self.cfg: Config = app.cfg
        self.log: Any = None
        self.pid = os.getpid()
        self.master_pid = 0
        self.reexec_pid = 0
        self.master_name = "Master"
        self.worker_age = 0
        self.num_workers = self.cfg.workers
        self.timeout = self.cfg.timeout
        self.proc_name = self.cfg.proc_name
        self.address = self.cfg.address
        self.worker_class = self.cfg.worker_class
        self.pidfile: Any = None
        self.systemd = False
        self.START_CTX: dict[str | int, Any] = {
            "args": [sys.executable, *sys.argv],
            "cwd": os.getcwd(),
            0: sys.executable,
        }
        # pid -> Worker, and the listening sockets.
        self.WORKERS: dict[int, Worker] = {}
        self.LISTENERS: list[Listener] = []

    # What the server keeps; nothing would follow from setting it.
    _kept = frozenset(
        "app cfg log pid master_pid reexec_pid master_name worker_age timeout proc_name address worker_class pidfile "
        "systemd WORKERS LISTENERS".split()
    )

    def __setattr__(self, name: str, value: Any) -> None:
        if "_is_made" in self.__dict__:
            if name in self._kept:
                raise AttributeError(f"server.{name} is the server's: setting it would have no effect")
            if name == "num_workers":
                self._change_num_workers(value)
        super().__setattr__(name, value)

    def _change_num_workers(self, wanted: int) -> None:
        if os.getpid() != self.pid:
            raise AttributeError("server.num_workers can be set in the master only")
        if wanted < 1:
            raise ValueError(f"server.num_workers must be at least 1: {wanted}")
        difference = wanted - self.num_workers
        for _ in range(abs(difference)):
            os.kill(self.pid, signal.SIGTTIN if difference > 0 else signal.SIGTTOU)

    def __repr__(self) -> str:
        return f"<Arbiter {self.pid}>"

    def init_signals(self) -> None:
        """gunicorn's handlers: a hook that replaces one may call the one before."""
        if threading.current_thread() is threading.main_thread():
            for one in (*self.SIGNALS, signal.SIGCHLD):
                signal.signal(one, self.signal)

    def _forget_signals(self) -> None:
        for one in (*self.SIGNALS, signal.SIGCHLD):
            if signal.getsignal(one) == self.signal:
                signal.signal(one, signal.SIG_DFL)

    def signal(self, sig: int, frame: Any) -> None:
        from ferricorn import _core

        _core.deliver_signal(sig)

    def run(self) -> NoReturn:
        """Serve until told to stop; then leave the interpreter with the exit code."""
        from ferricorn import _core

        sys.exit(_core.serve(self.app))

    # Requests of hooks to the arbiter are signals, which its loop handles later.

    def wakeup(self) -> None:
        os.kill(self.pid, signal.SIGCHLD)

    def reload(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        if reason is not None:
            self.log.info("Reason: %s", reason)
        os.kill(self.pid, signal.SIGTERM)

    def stop(self, graceful: bool = True) -> None:
        os.kill(self.pid, signal.SIGTERM if graceful else signal.SIGQUIT)

    def kill_worker(self, pid: int, sig: int) -> None:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            self.WORKERS.pop(pid, None)

    def kill_workers(self, sig: int) -> None:
        for pid in list(self.WORKERS):
            self.kill_worker(pid, sig)
