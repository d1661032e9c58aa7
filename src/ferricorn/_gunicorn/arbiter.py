"""`gunicorn.arbiter`: the `arbiter` (or `server`) that hooks are given, and the way to start one."""

import os
import signal
import sys


class Arbiter:
    """A record of the master process, brought up to date before each hook. `Arbiter(app).run()` serves."""

    WORKER_BOOT_ERROR = 3
    APP_LOAD_ERROR = 4
    SIGNALS = [getattr(signal, f"SIG{name}") for name in "HUP QUIT INT TERM TTIN TTOU USR1 USR2 WINCH".split()]
    SIG_NAMES = {one: one.name[3:].lower() for one in signal.Signals}

    def __init__(self, app):
        self.app = app
        self.cfg = app.cfg
        self.log = None
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
        self.pidfile = None
        self.systemd = False
        self.START_CTX = {"args": [sys.executable, *sys.argv], "cwd": os.getcwd(), 0: sys.executable}
        # pid -> Worker, and the listening sockets.
        self.WORKERS = {}
        self.LISTENERS = []

    def __repr__(self):
        return f"<Arbiter {self.pid}>"

    def run(self):
        """Serve until told to stop; then leave the interpreter with the exit code."""
        from ferricorn import _core

        sys.exit(_core.serve(self.app))

    # What hooks ask of the arbiter goes through signals, which it handles in its own time.

    def wakeup(self):
        os.kill(self.pid, signal.SIGCHLD)

    def reload(self):
        os.kill(self.pid, signal.SIGHUP)

    def halt(self, reason=None, exit_status=0):
        if reason is not None:
            self.log.info("Reason: %s", reason)
        os.kill(self.pid, signal.SIGTERM)

    def stop(self, graceful=True):
        os.kill(self.pid, signal.SIGTERM if graceful else signal.SIGQUIT)

    def kill_worker(self, pid, sig):
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            self.WORKERS.pop(pid, None)

    def kill_workers(self, sig):
        for pid in list(self.WORKERS):
            self.kill_worker(pid, sig)
