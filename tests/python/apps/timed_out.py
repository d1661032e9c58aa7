"""Requests that take too long, in Python, in C and while streaming."""

import json
import os
import threading
import time

import gate

try:
    from ferricorn import RequestTimeout
except ImportError:

    class RequestTimeout(BaseException):
        pass


def spin(query):
    """Python code: the exception arrives between two instructions."""
    gate.reach(query or "spinning")
    try:
        while True:
            time.sleep(0.01)
    except RequestTimeout as error:
        gate.note("raised", f"{type(error).__name__} {isinstance(error, Exception)} {threading.current_thread().name}")
        raise
    finally:
        gate.note("finally", query)


def stubborn(query):
    """One that swallows everything it can, and then answers."""
    gate.reach("stubborn")
    while True:
        try:
            while True:
                time.sleep(0.01)
        except Exception:
            gate.note("swallowed", "")
        except BaseException:
            return "late"


def stuck(query):
    """C code: no exception can arrive."""
    gate.reach("stuck")
    time.sleep(float(query))
    return "slept"


def pid(query):
    return json.dumps([os.getpid(), threading.current_thread().name])


def pieces():
    try:
        yield b"one"
        while True:
            time.sleep(0.01)
    finally:
        gate.note("generator", "closed")


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/stream":
        return pieces()
    return [{"/spin": spin, "/stubborn": stubborn, "/stuck": stuck, "/pid": pid}[path](query).encode()]
