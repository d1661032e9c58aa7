"""What the dashboard is looked at over: answers that take a little, requests that wait, workers that die."""

from __future__ import annotations

import os
import random
import time

import gate


def app(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path.startswith("/block"):
        gate.wait(query)
    elif path == "/fail":
        raise RuntimeError("as asked")
    else:
        time.sleep(random.random() * 0.02)
    body = f"{query} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
