"""How a worker leaves: as the interpreter does, but within a time.

The interpreter joins threads that are not daemons without a bound, then runs exit handlers, then frees what there is.
A worker has until its `graceful_timeout`; what is not over by then is named and left behind.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import sys
import threading
import time

# Flushing may wait for a lock that a thread holds which is left behind.
FLUSH_S = 1.0


def join_threads(seconds: float) -> list[str]:
    """Waits for the application's threads that are not daemons; returns the names of those that still run."""
    deadline = time.monotonic() + seconds
    _end_executors()
    main, current = threading.main_thread(), threading.current_thread()
    while True:
        waited = [one for one in threading.enumerate() if not (one.daemon or one is current or one is main)]
        if not waited:
            return []
        left = deadline - time.monotonic()
        if left <= 0:
            return [one.name for one in waited]
        # One thread may start another meanwhile.
        waited[0].join(min(left, 0.05))


def _end_executors() -> None:
    """What waits for the interpreter's end, as the threads of executors do, is told of it now. Such calls join
    threads, so they have a thread of their own."""
    calls = getattr(threading, "_threading_atexits", [])
    waiting = [calls.pop() for _ in range(len(calls))]

    def call_all() -> None:
        for call in waiting:
            with contextlib.suppress(Exception):
                call()

    if waiting:
        threading.Thread(target=call_all, name="ferricorn-leave", daemon=True).start()


def release_frozen() -> None:
    """What was kept from the collector before a fork is freed, so that its files are written."""
    gc.unfreeze()


def finish() -> None:
    """Exit handlers and buffers, although threads run. Freeing objects under a running thread would crash."""
    try:
        atexit._run_exitfuncs()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    writer = threading.Thread(target=_flush_all, name="ferricorn-flush", daemon=True)
    writer.start()
    writer.join(FLUSH_S)


def _flush_all() -> None:
    streams = [sys.stdout, sys.stderr]
    gc.unfreeze()
    streams += [one for one in gc.get_objects() if isinstance(one, (io.TextIOWrapper, io.BufferedWriter))]
    for stream in streams:
        with contextlib.suppress(Exception):
            if stream is not None and not stream.closed:
                stream.flush()
