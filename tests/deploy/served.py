"""What the deployments serve: an echo, an upload's digest, a stream, a file of the proxy's, a WebSocket."""

from __future__ import annotations

import hashlib
import os

from simple_websocket import ConnectionClosed
from simple_websocket import Server as WebSocket

import gate


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
        return echo_frames(environ)
    headers = []
    if path.endswith("/upload"):
        digest, length = hashlib.sha256(), 0
        while block := environ["wsgi.input"].read(65536):
            digest.update(block)
            length += len(block)
        body = f"{length} {digest.hexdigest()}"
    elif path.endswith("/pieces"):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces()
    elif path == "/file":
        headers, body = [("X-Accel-Redirect", "/protected/report.txt")], ""
    elif path == "/seen":
        body = " ".join(environ.get(key, "-") for key in ("HTTP_HOST", "REMOTE_ADDR", "wsgi.url_scheme"))
    else:
        body = f"{environ['QUERY_STRING']} {os.getpid()}"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *headers])
    return [body.encode()]


def pieces():
    """The second piece is made once the test has the first."""
    yield b"first "
    gate.reach("first")
    gate.wait("second")
    yield b"second"


def echo_frames(environ):
    socket = WebSocket(environ)
    try:
        while True:
            socket.send(socket.receive())
    except ConnectionClosed:
        return []
