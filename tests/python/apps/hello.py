"""Every way a command line may name an application."""

import os
from types import SimpleNamespace


def _text(text):
    body = text.encode()

    def run(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return run


def app(environ, start_response):
    body = b"Hello, World!\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


application = _text("default")
site = SimpleNamespace(api=SimpleNamespace(app=_text("dotted")))


def create_app(name="world", *, greeting="hello"):
    return _text(f"{greeting} {name}")


class Site:
    """An instance of this class is the application."""

    def __init__(self, name="object"):
        self._run = _text(name)

    def __call__(self, environ, start_response):
        return self._run(environ, start_response)


instance = Site()
not_callable = "text"
nothing = None


def make_nothing():
    return None


def raises():
    raise RuntimeError("factory broke")


def where(environ, start_response):
    """Which process, which parent, which directory, what a variable holds."""
    variable = os.environ.get("COLOUR", "")
    return _text(f"{os.getpid()} {os.getppid()} {os.getcwd()} {variable}")(environ, start_response)
