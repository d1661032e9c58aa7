"""An application that lets other greenlets run, at random, wherever the server's code calls it."""

import gc
import os
import random
import sys

import greenlets

import gate

RANDOM = random.Random(int(os.environ["SEED"]))
# Cycles are collected wherever the server allocates.
gc.set_threshold(40)


def switch():
    choice = RANDOM.random()
    if choice < 0.3:
        greenlets.sleep(0)
    elif choice < 0.6:
        greenlets.sleep(choice * 0.003)


def is_in_gevent():
    """Whether gevent's code, or the server's wait on it, is what a finalizer has come into."""
    frame = sys._getframe(2)
    return "/gevent/" in frame.f_code.co_filename or frame.f_code.co_filename.endswith("_gevent.py")


class Garbage:
    """Freed by the collector alone, and then it switches.

    Not within gevent: `Waiter.get` allocates after it has named its greenlet as the one that waits, and before it
    switches. A finalizer that waits there takes the wake-up, and the greenlet hangs, in any server.
    """

    def __init__(self):
        self.itself = self

    def __del__(self):
        if not is_in_gevent():
            switch()


class Dropped:
    """Freed with the environ."""

    def __del__(self):
        switch()


class Shown:
    def __init__(self, number):
        self.number = number

    def __str__(self):
        switch()
        return f"made-{self.number}"

    __repr__ = __str__


class ShownError(Exception):
    def __str__(self):
        switch()
        return f"error-{self.args[0]}"


class Headers(list):
    def __iter__(self):
        switch()
        return super().__iter__()


class Items:
    def __init__(self, number, count=3):
        self.number, self.left = number, count

    def __iter__(self):
        switch()
        return self

    def __next__(self):
        switch()
        if not self.left:
            raise StopIteration
        self.left -= 1
        return f"{self.number} ".encode()

    def close(self):
        switch()
        gate.note("closed", self.number)


class File:
    def __init__(self, number):
        self.items = Items(number)

    def read(self, size):
        return next(self.items, b"")

    def close(self):
        self.items.close()


def generated(number):
    try:
        for _ in range(3):
            switch()
            yield f"{number} ".encode()
    finally:
        switch()


def app(environ, start_response):
    number = environ["QUERY_STRING"]
    Garbage()
    environ["dropped"] = Dropped()
    switch()
    environ["made"] = Shown(number)
    body = b""
    while part := environ["wsgi.input"].read(700):
        switch()
        body += part
    if body != number.encode() * 1000:
        raise ValueError("another's body")
    kind = int(number) % 8
    if kind == 0:
        raise ShownError(number)
    write = start_response("200 OK", Headers([("Content-Type", "text/plain"), ("X-Number", number)]))
    switch()
    if kind == 1:
        return [f"{number} ".encode()] * 3
    if kind == 2:
        return Items(number)
    if kind == 3:
        return generated(number)
    if kind == 4:
        for _ in range(3):
            write(f"{number} ".encode())
            switch()
        return []
    if kind == 5:
        return environ["wsgi.file_wrapper"](File(number))
    if kind == 6:
        return [Shown(number)]
    # Larger than the window of a stream: it waits for its client.
    return iter([number.encode().rjust(8) * 40_000 for _ in range(3)])


application = app
