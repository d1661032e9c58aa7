"""WebSockets with flask-sock, and the raw socket beneath."""

import os

from flask import Flask
from flask_sock import Sock

import gate

site = Flask(__name__)
# With it the application raises what a view has raised; without it Flask answers in HTTP.
site.config["PROPAGATE_EXCEPTIONS"] = bool(os.environ.get("PROPAGATE"))
sock = Sock(site)


@site.route("/")
def index():
    return "plain"


@sock.route("/echo")
def echo(ws):
    gate.reach("connected")
    try:
        while True:
            ws.send(ws.receive())
    finally:
        gate.note("echo", "over")


@sock.route("/bye")
def bye(ws):
    ws.send("bye")


@sock.route("/fails")
def fails(ws):
    ws.send(ws.receive())
    raise ValueError("the conversation has failed")


def raw(environ, start_response):
    """Speaks a protocol of its own: every line comes back in capitals."""
    client = environ["gunicorn.socket"]
    # Nothing may come of it: the next bytes are ours.
    environ["wsgi.early_hints"]([("Link", "</x>")])
    gate.note("type", f"{isinstance(client, __import__('socket').socket)} {client!r}")
    client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: loud\r\n\r\n")
    gate.note("after", f"{type(client).__name__} {client.gettimeout()}")
    with client.makefile("rwb") as lines:
        for line in lines:
            lines.write(line.upper())
            lines.flush()
    client.close()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"this must not be seen"]


def refuses(environ, start_response):
    """Leaves the socket alone and answers in HTTP."""
    gate.note("offered", "gunicorn.socket" in environ)
    start_response("426 Upgrade Required", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"no"]


def late(environ, start_response):
    """Wants the socket when its response is under way."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"first"
    try:
        environ["gunicorn.socket"].send(b"in between")
    except OSError as error:
        yield str(error).encode()


def application(environ, start_response):
    routes = {"/raw": raw, "/refuses": refuses, "/late": late}
    return routes.get(environ["PATH_INFO"], site)(environ, start_response)
