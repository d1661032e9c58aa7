"""Views of an application that relies on gevent: each waits, or ends, as a greenlet does."""

import contextvars
import os
import threading
import time

import gevent
import gevent.monkey
import gevent.socket

import gate

PATCHED_AT_IMPORT = gevent.monkey.is_module_patched("socket")
VARIABLE = contextvars.ContextVar("variable", default="unset")
LOCAL = threading.local()


def state(environ):
    is_main = gevent.get_hub().loop.default
    return f"{PATCHED_AT_IMPORT} {type(gevent.getcurrent()).__mro__[1].__name__} {is_main} {os.getpid()}"


def pid(environ):
    return str(os.getpid())


def sleep(environ):
    time.sleep(float(environ["QUERY_STRING"] or 1))
    return "slept"


def held(environ):
    gate.wait(environ["QUERY_STRING"])
    return "let go"


def own(environ):
    """Greenlets that take turns keep what is theirs."""
    mine = environ["QUERY_STRING"]
    before = f"{VARIABLE.get()} {getattr(LOCAL, 'value', 'unset')}"
    VARIABLE.set(mine)
    LOCAL.value = mine
    for _ in range(20):
        gevent.sleep(0)
    return f"{before} {VARIABLE.get()} {LOCAL.value}"


def read(environ):
    return str(len(environ["wsgi.input"].read()))


def read_within(environ):
    with gevent.Timeout(0.2, False):
        return str(len(environ["wsgi.input"].read()))
    return "too slow"


def lines(environ):
    return repr(list(environ["wsgi.input"]))


def stream(environ):
    def items():
        for number in range(5):
            gevent.sleep(0.01)
            yield f"{number} ".encode()

    return items()


def large(environ):
    def items():
        try:
            for number in range(400):
                yield bytes([number % 256]) * 65536
        finally:
            gate.note("large", "closed")

    return items()


def timeout(environ):
    with gevent.Timeout(0.05):
        gevent.sleep(30)


def killed(environ):
    gevent.getcurrent().kill()


def kills_later(environ):
    me = gevent.getcurrent()
    gevent.spawn_later(0.05, me.kill)
    gevent.sleep(30)


def fails(environ):
    raise ValueError("on purpose")


def exits(environ):
    raise SystemExit(3)


def late(environ):
    try:
        gevent.sleep(30)
    finally:
        gate.note("late", "ended")


def stubborn(environ):
    gate.reach("stubborn")
    while True:
        try:
            gevent.sleep(30)
        except gevent.GreenletExit:
            gate.note("stubborn", "killed")


def spins(environ):
    gate.reach("spins")
    until = time.monotonic() + float(environ["QUERY_STRING"])
    while time.monotonic() < until:
        pass
    return "spun"


def background(environ):
    def work():
        gevent.sleep(0.05)
        gate.note("background", "done")

    gevent.spawn(work)
    return "spawned"


def child(environ):
    import subprocess

    return subprocess.run(["echo", "from a child"], capture_output=True, text=True, check=True).stdout.strip()


def echo(environ):
    sock = environ["gunicorn.socket"]
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
    is_green = isinstance(sock, gevent.socket.socket)
    sock.sendall(b"green\n" if is_green else b"blocking\n")
    while data := sock.recv(100):
        sock.sendall(data)
    sock.close()
    raise StopIteration


def app(environ, start_response):
    made = globals()[environ["PATH_INFO"].strip("/") or "state"](environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [made.encode()] if isinstance(made, str) else made


application = app
