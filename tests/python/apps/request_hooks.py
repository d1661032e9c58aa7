"""Responses of every kind, for the hooks around them."""

import json

import gate


class Ordered:
    def __iter__(self):
        gate.note("order", "iterated")
        yield b"x"

    def close(self):
        gate.note("order", "closed")


def app(environ, start_response):
    path = environ["PATH_INFO"]
    plain = [("Content-Type", "text/plain")]
    if path == "/raises":
        raise ValueError("of the application")
    if path == "/generator":
        start_response("200 OK", plain)
        return (item for item in (b"one", b"two", b"three"))
    if path == "/write":
        write = start_response("200 OK", plain)
        write(b"one")
        write(b"two")
        return [b"three"]
    if path == "/errors":
        environ["wsgi.errors"].write("raw text\n")
    if path == "/order":
        start_response("200 OK", plain)
        gate.note("order", "called")
        return Ordered()
    if environ["RAW_URI"].startswith("/environ"):
        texts = {key: value for key, value in environ.items() if isinstance(value, str)}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(texts).encode()]
    if path == "/length":
        start_response("201 Created", [*plain, ("Content-Length", "5")])
        return [b"hello"]
    start_response("200 OK", plain)
    return [b"ok"]
