"""Streams whose clients are slower than they are."""

import os

from bodies import TEXT, made, pieces

import gate

MIB = 1 << 20


class Closing:
    """Notes that it was closed."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def close(self):
        gate.note("closed", "yes")


def endless():
    while True:
        yield b"x" * 65536


def pausing():
    yield from pieces(made(2 * MIB, "p"))
    yield b"first "
    yield b"second "
    gate.wait("pause")
    yield b"third"


def failing():
    yield from pieces(made(4 * MIB, "f"))
    raise RuntimeError("after what was spooled")


def forking():
    body = made(4 * MIB, "k")
    yield from pieces(body[: 2 * MIB])
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    yield from pieces(body[2 * MIB :])


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/":
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    write = start_response("200 OK", [TEXT])
    if path == "/mixed":
        # Small and large ones, by both ways.
        body = made(8 * MIB, "m")
        for piece in pieces(body[: 2 * MIB], 1000):
            write(piece)
        return Closing(pieces(body[2 * MIB :], 700_000))
    if path == "/small":
        return pieces(made(2 * MIB, "s"), 50)
    items = {"/endless": endless, "/pausing": pausing, "/failing": failing, "/forking": forking}[path]
    return Closing(items())
