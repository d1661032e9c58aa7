"""Requests that end their worker, and a worker that ends at its import while a file says so."""

import ctypes
import os
import signal
import time
from pathlib import Path

import gate

if Path(os.environ.get("BROKEN", "/nonexistent")).exists():
    gate.note("broken", os.getpid())
    os._exit(5)
if os.environ.get("HOLD_ALL_BUT_ONE"):
    try:
        gate._path("first").touch(exist_ok=False)
    except FileExistsError:
        gate.wait("import")
gate.note("imported", os.getpid())


def segv():
    ctypes.string_at(0)


def exits():
    os._exit(7)


def exits_3():
    os._exit(3)


def exits_4():
    os._exit(4)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(30)


def abort():
    os.kill(os.getpid(), signal.SIGABRT)
    time.sleep(30)


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").rpartition("/")[2]
    if name in ("segv", "exits", "exits_3", "exits_4", "kill", "abort"):
        globals()[name]()
    body = f"{environ['QUERY_STRING']} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
