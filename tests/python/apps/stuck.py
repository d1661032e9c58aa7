"""Views that do not return until a gate opens, and others that note each time they run."""

import ctypes
import os

import gate


def application(environ, start_response):
    name = environ["QUERY_STRING"]
    if environ["PATH_INFO"] == "/stuck":
        gate.wait(name)
    if environ["PATH_INFO"] == "/hold":
        gate.reach(name)
        # PyDLL does not let go of the GIL.
        ctypes.PyDLL(None).sleep(60)
    body = environ["wsgi.input"].read().decode()
    gate.note("ran", f"{name}={body}")
    answer = f"{os.getpid()} {environ['SERVER_PORT']} {body}".encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
