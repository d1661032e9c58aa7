"""A process that takes its time to end: an object whose finalizer waits for the gate `finalizer`."""

import os
import sys
import time
import types


class SlowFinalizer:
    def __init__(self):
        # Its globals may be gone by then.
        gates = os.environ["GATES"]
        self.reached, self.opened = f"{gates}/finalizer.reached", f"{gates}/finalizer.open"
        self.open, self.exists, self.sleep, self.getpid = open, os.path.exists, time.sleep, os.getpid
        self.pid = os.getpid()

    def __del__(self):
        if self.getpid() != self.pid:
            return
        self.open(self.reached, "w").close()
        for _ in range(3000):
            if self.exists(self.opened):
                return
            self.sleep(0.01)


def delay_end():
    """From now on, in this process."""
    kept = types.ModuleType("kept")
    kept.object = SlowFinalizer()
    sys.modules["kept"] = kept


def application(environ, start_response):
    delay_end()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
