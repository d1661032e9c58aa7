"""Asks whether its client is still there, and hints at what is to come."""

import gate

TEXT = [("Content-Type", "text/plain")]


def waits(environ, start_response):
    gone = environ["ferricorn.client_disconnected"]
    gate.note("before", gone())
    gate.wait("go")
    gate.note("after", gone())
    start_response("200 OK", [*TEXT, ("Content-Length", "4")])
    return [b"done"]


def watches(environ, start_response):
    """What a long computation does: gives up as soon as nobody waits."""
    gone = environ["ferricorn.client_disconnected"]
    gate.reach("watching")
    import time

    deadline = time.monotonic() + 20
    while not gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    gate.note("watched", gone())
    start_response("200 OK", [*TEXT, ("Content-Length", "0")])
    return []


def hints(environ, start_response):
    early = environ["wsgi.early_hints"]
    early([("Link", "</style.css>; rel=preload"), ("X-First", "1")])
    early((("Link", "</script.js>; rel=preload"),))
    try:
        early([("X-Bad", "a\r\nX-Injected: 1")])
    except ValueError as error:
        gate.note("refused", error)
    try:
        early([("Transfer-Encoding", "chunked")])
    except ValueError as error:
        gate.note("refused", error)
    start_response("200 OK", list(TEXT))
    yield b"body"
    early([("X-Late", "1")])
    yield b" and more"


def application(environ, start_response):
    gate.note("run", environ["PATH_INFO"])
    routes = {"/waits": waits, "/watches": watches, "/hints": hints}
    if run := routes.get(environ["PATH_INFO"]):
        return run(environ, start_response)
    start_response("200 OK", [*TEXT, ("Content-Length", "2")])
    return [b"ok"]
