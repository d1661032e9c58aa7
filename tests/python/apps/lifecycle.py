"""An application that a test can hold, break and watch through its life."""

import atexit
import contextvars
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time

import gate

COUNTER = threading.local()
VARIABLE = contextvars.ContextVar("variable", default=0)

gate.note("import", "main thread" if threading.current_thread() is threading.main_thread() else "other thread")
atexit.register(lambda: gate.note("atexit", os.getpid()))


def on_alarm(number, frame):
    gate.note("alarm", "main thread" if threading.current_thread() is threading.main_thread() else "other thread")


signal.signal(signal.SIGALRM, on_alarm)


def tick():
    """A background thread of the application; it needs the interpreter while no request runs."""
    for number in range(20):
        gate.note("tick", number)
        time.sleep(0.01)


if os.environ.get("TICK"):
    threading.Thread(target=tick, name="ticker", daemon=True).start()


def pid(query):
    return str(os.getpid())


def block(query):
    gate.wait(query)
    return f"unblocked {query}"


def sleep(query):
    time.sleep(float(query))
    return "slept"


def hold_the_interpreter(query):
    """A C call that keeps the GIL, as a badly written extension does: PyDLL does not let go of it."""
    gate.reach("holding")
    ctypes.PyDLL(None).sleep(int(query))
    return "held"


def crash(query):
    os._exit(int(query))


def thread(query):
    current = threading.current_thread()
    COUNTER.value = getattr(COUNTER, "value", 0) + 1
    return json.dumps(
        {
            "name": current.name,
            "ident": current.ident,
            "class": type(current).__name__,
            "daemon": current.daemon,
            "main": current is threading.main_thread(),
            "listed": current in threading.enumerate(),
            "count": COUNTER.value,
            "threads": sorted(one.name for one in threading.enumerate()),
            "limit": sys.getrecursionlimit(),
        }
    )


def run_program(query):
    return subprocess.run(["sh", "-c", "echo out; exit 3"], capture_output=True, text=True, check=False).stdout + "3"


def run_asyncio(query):
    import asyncio

    async def main():
        await asyncio.sleep(0)
        return "asyncio"

    return asyncio.run(main())


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/") or "pid"
    body = globals()[name](environ["QUERY_STRING"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
