"""Views of an application that relies on greenlets: each waits, or ends, as a greenlet does."""

import contextvars
import os
import threading
import time

import greenlets

import gate

PATCHED_AT_IMPORT = greenlets.is_patched("socket")
VARIABLE = contextvars.ContextVar("variable", default="unset")
LOCAL = threading.local()


def state(environ):
    is_main = greenlets.is_main_thread()
    is_greenlet = isinstance(greenlets.getcurrent(), greenlets.Greenlet)
    return f"{PATCHED_AT_IMPORT} {is_greenlet} {is_main} {os.getpid()}"


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
        greenlets.sleep(0)
    return f"{before} {VARIABLE.get()} {LOCAL.value}"


def read(environ):
    return str(len(environ["wsgi.input"].read()))


def read_within(environ):
    with greenlets.Timeout(0.2, False):
        return str(len(environ["wsgi.input"].read()))
    return "too slow"


def lines(environ):
    return repr(list(environ["wsgi.input"]))


def stream(environ):
    def items():
        for number in range(5):
            greenlets.sleep(0.01)
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


def export(environ):
    """Pieces of a millisecond's work, with no wait between them."""

    def items():
        gate.reach("export")
        until = time.monotonic() + 30
        while not gate.is_open("export") and time.monotonic() < until:
            piece = time.monotonic() + 0.001
            while time.monotonic() < piece:
                pass
            yield b"x" * 100
        yield b"end"

    return items()


def timeout(environ):
    with greenlets.Timeout(0.05):
        greenlets.sleep(30)


def killed(environ):
    raise greenlets.GreenletExit


def kills_later(environ):
    greenlets.spawn_later(0.05, greenlets.kill, greenlets.getcurrent())
    greenlets.sleep(30)


def fails(environ):
    raise ValueError("on purpose")


def exits(environ):
    raise SystemExit(3)


def late(environ):
    try:
        greenlets.sleep(30)
    finally:
        gate.note("late", "ended")


def stubborn(environ):
    gate.reach("stubborn")
    while True:
        try:
            greenlets.sleep(30)
        except greenlets.GreenletExit:
            gate.note("stubborn", "killed")


def spins(environ):
    gate.reach("spins")
    until = time.monotonic() + float(environ["QUERY_STRING"])
    while time.monotonic() < until:
        pass
    return "spun"


def holds(environ):
    """The hub, until the gate opens."""
    gate.reach("holds")
    until = time.monotonic() + 30
    while not gate.is_open("holds") and time.monotonic() < until:
        pass
    return "let go"


def background(environ):
    def work():
        greenlets.sleep(0.05)
        gate.note("background", "done")

    greenlets.spawn(work)
    return "spawned"


HOARD = []


def hoard(environ):
    """MiB that the worker keeps."""
    HOARD.append(b"x" * (int(environ["QUERY_STRING"]) << 20))
    return "hoarded"


def child(environ):
    import subprocess

    return subprocess.run(["echo", "from a child"], capture_output=True, text=True, check=True).stdout.strip()


def echo(environ):
    sock = environ["gunicorn.socket"]
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
    is_green = isinstance(sock, greenlets.Socket)
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
