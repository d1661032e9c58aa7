"""`gunicorn.workers.base`: the `worker` that hooks are given."""

import signal
import sys
import time


class Worker:
    """A record of one worker process. The server keeps it up to date before each hook; what a hook hangs on it lasts as
    long as the process, and what `pre_fork` hangs on it is there in the worker too."""

    SIGNALS = [getattr(signal, f"SIG{name}") for name in "ABRT HUP QUIT INT TERM USR1 USR2 WINCH CHLD".split()]
    PIPE = []

    def __init__(self, age, ppid, sockets, app, timeout, cfg, log):
        self.age = age
        self.pid = "[booting]"
        self.ppid = ppid
        self.sockets = sockets
        self.app = app
        self.timeout = timeout
        self.cfg = cfg
        self.log = log
        self.booted = False
        self.aborted = False
        self.alive = True
        self.reloader = None
        self.wsgi = None
        self.nr = 0
        self.max_requests = cfg.max_requests or sys.maxsize
        self.tmp = WorkerTmp(cfg)

    def __str__(self):
        return f"<Worker {self.pid}>"

    def notify(self):
        """The event loop says by itself that it is alive."""
        self.tmp.notify()

    def init_process(self):
        """For subclasses to call; the server does what this is about."""

    def load_wsgi(self):
        self.wsgi = self.app.wsgi()

    def run(self):
        raise NotImplementedError("ferricorn runs its own worker; a worker class cannot be one")


class WorkerTmp:
    """Stands for gunicorn's heartbeat file, which is shared memory here."""

    def __init__(self, cfg=None):
        self._last = time.monotonic()

    def notify(self):
        self._last = time.monotonic()

    def last_update(self):
        return self._last

    def fileno(self):
        raise OSError("the heartbeat is not a file")

    def close(self):
        pass
