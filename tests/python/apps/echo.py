"""Repeats the query string, and says which process it is. What else it does, the environment decides."""

import os
import time

import gate

time.sleep(float(os.environ.get("IMPORT_S", "0")))
gate.note("import", os.getpid())

KEPT = []


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/grow":
        KEPT.append(bytearray(os.urandom(1 << 20)) * int(query))
    if path == "/segv":
        import ctypes

        ctypes.string_at(0)
    if path == "/exit":
        os._exit(int(query))
    if path == "/block":
        gate.wait(query)
    body = f"{query} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
