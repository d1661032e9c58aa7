"""Counts SIGURG, which the server uses to wake its own thread."""

import signal

import gate

signal.signal(signal.SIGURG, lambda number, frame: gate.note("urgent", "came"))


def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
