"""Responses of any size in any shape, made for each request; uploads that are read late."""

import functools
import hashlib
import os
import time
from urllib.parse import parse_qs

import gate

TEXT = ("Content-Type", "application/octet-stream")


def made(size, seed):
    """`size` bytes that no other request has."""
    block = (f"{seed}:".encode() * (65536 // len(f"{seed}:") + 1))[:65536]
    return (block * (size // 65536 + 1))[:size]


@functools.cache
def kept():
    """The same object for all requests that follow the first."""
    return made(64 << 20, "kept")


def pieces(body, step=65536):
    for at in range(0, len(body), step):
        yield body[at : at + step]


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    path = environ["PATH_INFO"]
    if path == "/made":
        size, shape = int(query["size"]), query.get("shape", "list")
        body = made(size, query.get("seed", "x"))
        headers = [TEXT] if "chunked" in query else [TEXT, ("Content-Length", str(size))]
        write = start_response("200 OK", headers)
        if shape == "write":
            for piece in pieces(body):
                write(piece)
            return []
        if shape == "pieces":
            return list(pieces(body))
        return pieces(body) if shape == "stream" else [body]
    if path == "/kept":
        start_response("200 OK", [TEXT, ("Content-Length", str(len(kept())))])
        return [kept()]
    if path == "/upload":
        if "gate" in query:
            gate.wait(query["gate"])
        digest, total = hashlib.sha1(), 0
        while block := environ["wsgi.input"].read(65536):
            digest.update(block)
            total += len(block)
        answer = f"{total} {digest.hexdigest()}".encode()
    elif path == "/head":
        size, fields = int(query["size"]), int(query.get("fields", 1))
        start_response("200 OK", [TEXT] + [(f"X-Field-{number}", "x" * (size // fields)) for number in range(fields)])
        return []
    elif path == "/sleep":
        time.sleep(float(query["s"]))
        answer = b"slept"
    else:
        answer = str(os.getpid()).encode()
    start_response("200 OK", [TEXT, ("Content-Length", str(len(answer)))])
    return [answer]
