"""Files and other bodies through `wsgi.file_wrapper`, and responses that break off."""

import gzip
import io
import os
import tempfile
import threading
from urllib.parse import parse_qs

import gate

TEXT = ("Content-Type", "application/octet-stream")


class Noted:
    """A file-like object that is no file, and says when it is closed."""

    def __init__(self, content: bytes) -> None:
        self.content = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self.content.read(size)

    def close(self) -> None:
        gate.note("closed", threading.current_thread().name)


def opened(environ):
    """The object that the query asks for, over the file that it names."""
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    kind, path = query.get("kind", "file"), query["path"]
    if kind == "gzip":
        return gzip.open(path), query
    if kind == "object":
        with open(path, "rb") as file:
            return Noted(file.read()), query
    if kind == "pipe":
        read_end, write_end = os.pipe()
        with open(write_end, "wb") as pipe:
            pipe.write(b"through a pipe")
        return open(read_end, "rb"), query
    if kind == "temporary":
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115
        with open(path, "rb") as source:
            file.write(source.read())
        file.seek(0)
        return file, query
    file = open(path, "rb", buffering=0 if kind == "raw" else -1)  # noqa: SIM115
    file.seek(int(query.get("offset", 0)))
    if "read" in query:
        file.read(int(query["read"]))
    return file, query


def file(environ, start_response):
    body, query = opened(environ)
    headers = [TEXT]
    if "length" in query:
        headers.append(("Content-Length", query["length"]))
    start_response("200 OK", headers)
    return environ["wsgi.file_wrapper"](body)


def too_long(environ, start_response):
    """A generator that goes on for ever behind its Content-Length."""
    start_response("200 OK", [TEXT, ("Content-Length", "10")])
    try:
        for number in range(1_000_000):
            gate.note("asked", number)
            yield b"12345" if "split" in environ["QUERY_STRING"] else b"1234567890"
    finally:
        gate.note("closed", "too_long")


def too_long_list(environ, start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "10")])
    return [b"1234567890", b"more"]


def breaks_off(environ, start_response):
    start_response("200 OK", [TEXT])
    try:
        yield b"first"
        if "slowly" in environ["QUERY_STRING"]:
            gate.wait("break")
        raise ValueError("broken on purpose")
    finally:
        gate.note("closed", threading.current_thread().name)


def endless(environ, start_response):
    gate.note("thread", threading.current_thread().name)
    start_response("200 OK", [TEXT])
    try:
        while True:
            yield b"x" * 65536
    finally:
        gate.note("closed", threading.current_thread().name)


def ok(environ, start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "2")])
    return [b"ok"]


ROUTES = {
    "/file": file,
    "/too_long": too_long,
    "/too_long_list": too_long_list,
    "/breaks_off": breaks_off,
    "/endless": endless,
}


def application(environ, start_response):
    return ROUTES.get(environ["PATH_INFO"], ok)(environ, start_response)
