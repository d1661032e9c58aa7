"""One application with a route per rule of PEP 3333. `application` goes through wsgiref.validate."""

import json
import os
import sys
import threading
from urllib.parse import parse_qs
from wsgiref.validate import validator

import gate

TEXT = [("Content-Type", "text/plain")]


def _query(environ):
    return {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}


def _whole(start_response, body, status="200 OK", content_type="text/plain"):
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]


# -- what the server gives -------------------------------------------------------------------------


def environ(environ, start_response):
    shown = {key: value if isinstance(value, (str, bool)) else repr(value) for key, value in environ.items()}
    shown["type"] = type(environ).__name__
    environ["left.behind"] = "must not be seen by the next request"
    return _whole(start_response, json.dumps(shown).encode(), content_type="application/json")


def echo(environ, start_response):
    length = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    parts = [stream.read(int(length))] if length else list(iter(lambda: stream.read(8192), b""))
    return _whole(start_response, b"".join(parts))


def operations(environ, start_response):
    """Run the calls listed in the query on wsgi.input; answer with what each returned."""
    stream = environ["wsgi.input"]
    results = []
    for operation in json.loads(_query(environ)["calls"]):
        name, *arguments = operation
        result = list(stream) if name == "iterate" else getattr(stream, name)(*arguments)
        results.append(
            [line.decode("latin-1") for line in result] if isinstance(result, list) else result.decode("latin-1")
        )
    return _whole(start_response, json.dumps(results).encode())


def ignore_body(environ, start_response):
    return _whole(start_response, b"did not look")


def errors(environ, start_response):
    stream = environ["wsgi.errors"]
    stream.write("written to errors\n")
    stream.writelines(["first of two\n", "second of two: grüß\n"])
    print("printed to errors", file=stream)
    stream.flush()
    return _whole(start_response, b"complained")


def process(environ, start_response):
    return _whole(start_response, f"{os.getpid()} {threading.current_thread().name}".encode())


# -- shapes of an answer ---------------------------------------------------------------------------


def items(environ, start_response):
    """`count` parts of `size` bytes without Content-Length, as a list, tuple or generator."""
    query = _query(environ)
    parts = [b"x" * int(query.get("size", 5))] * int(query.get("count", 1))
    start_response("200 OK", list(TEXT))
    return {"list": list, "tuple": tuple, "generator": iter}[query.get("as", "list")](parts)


def status(environ, start_response):
    """Any status line, with a body unless the status allows none."""
    line = _query(environ)["line"]
    if line[:3] in ("204", "304"):
        start_response(line, [("X-Here", "1")])
        return []
    return _whole(start_response, b"status body", status=line)


def headers(environ, start_response):
    start_response(
        "200 OK",
        [
            *TEXT,
            ("Set-Cookie", "a=1"),
            ("X-Between", "ÿ"),
            ("Set-Cookie", "b=2; Path=/"),
            ("Content-Length", "2"),
        ],
    )
    return [b"ok"]


def declared(environ, start_response):
    """Says Content-Length `length`, gives `size` bytes."""
    query = _query(environ)
    start_response("200 OK", [*TEXT, ("Content-Length", query["length"])])
    return [b"x" * int(query["size"])]


def own_server_and_date(environ, start_response):
    start_response(
        "200 OK",
        [*TEXT, ("Server", "mine/1"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Content-Length", "0")],
    )
    return []


def asks_to_close(environ, start_response):
    start_response("200 OK", [*TEXT, ("Connection", "close"), ("Content-Length", "2")])
    return [b"ok"]


def empty_items(environ, start_response):
    """Empty strings are no end of a chunked body."""
    start_response("200 OK", list(TEXT))
    return [b"", b"one", b"", b"two", b""]


def writes(environ, start_response):
    write = start_response("200 OK", list(TEXT))
    write(b"written, ")
    write(b"")
    write(b"again, ")
    return [b"returned"]


def write_only(environ, start_response):
    write = start_response("200 OK", [*TEXT, ("Content-Length", "7")])
    write(b"written")
    return []


def late_start(environ, start_response):
    """A generator function: start_response runs only when the first item is asked for."""
    start_response("202 Accepted", list(TEXT))
    yield b"late"


# -- time ------------------------------------------------------------------------------------------


def stream(environ, start_response):
    start_response("200 OK", list(TEXT))

    def parts():
        yield b"first"
        gate.wait("second")
        yield b"second"

    return parts()


def stream_by_write(environ, start_response):
    write = start_response("200 OK", list(TEXT))
    write(b"first")
    gate.wait("second")
    return [b"second"]


def block(environ, start_response):
    """Waits in the application until the gate named in the query opens."""
    gate.wait(_query(environ).get("gate", "block"))
    return _whole(start_response, b"unblocked")


# -- close() ---------------------------------------------------------------------------------------


class Closing:
    """An iterable that notes each call of close(); goes wrong where the query says so."""

    def __init__(self, start_response, query):
        self._start_response = start_response
        self._how = query.get("how", "")

    def __iter__(self):
        if self._how == "raise_at_start":
            raise RuntimeError("before the first item")
        if self._how != "never_started":
            self._start_response("200 OK", list(TEXT))
        yield b"item"
        if self._how == "raise_later":
            raise RuntimeError("after the first item")
        while self._how == "endless":
            gate.reach("streaming")
            yield b"x" * 65536

    def close(self):
        gate.note("closed", self._how)
        if self._how == "raise_in_close":
            raise RuntimeError("in close")


def closing(environ, start_response):
    return Closing(start_response, _query(environ))


# -- files -----------------------------------------------------------------------------------------


def file(environ, start_response):
    """Send the file `path` from `offset` on, with or without a declared `length`."""
    query = _query(environ)
    opened = open(query["path"], "rb")  # noqa: SIM115 - the server closes it
    opened.seek(int(query.get("offset", 0)))
    fields = list(TEXT)
    if "length" in query:
        fields.append(("Content-Length", query["length"]))
    start_response("200 OK", fields)
    return environ["wsgi.file_wrapper"](opened, int(query.get("block", 8192)))


class NotingFile:
    """A file-like object without a descriptor."""

    def __init__(self, parts):
        self._parts = list(parts)

    def read(self, size=-1):
        return self._parts.pop(0) if self._parts else b""

    def close(self):
        gate.note("closed", "file")


def file_like(environ, start_response):
    start_response("200 OK", list(TEXT))
    return environ["wsgi.file_wrapper"](NotingFile([b"one", b"two", b"three"]))


ROUTES = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and not name.startswith("_") and value.__module__ == __name__ and isinstance(value, type(_whole))
}


def raw(environ, start_response):
    """Routes by the first segment of the path."""
    name = environ["PATH_INFO"].strip("/").split("/")[0]
    if name not in ROUTES:
        return _whole(start_response, b"no such route", status="404 Not Found")
    return ROUTES[name](environ, start_response)


application = validator(raw)
sys.stderr.flush()
