"""`gunicorn.util`: the helpers that configurations, loggers and embedding scripts use.

Every server imports this at its start, so what is slow to import is imported where it is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from ferricorn._gunicorn.workers import SUPPORTED_WORKERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn
    from urllib.parse import SplitResult


REDIRECT_TO = os.devnull

hop_headers = {
    "connection",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "server",
    "te",
    "trailers",
    "transfer-encoding",
    "upgrade",
}


def is_hoppish(header: str) -> bool:
    return header.strip().lower() in hop_headers


def load_class(
    uri: str | type, default: str = "gunicorn.workers.sync.SyncWorker", section: str = "gunicorn.workers"
) -> Any:
    """A class from itself, a dotted path, a worker's short name, or `egg:DISTRIBUTION#NAME`."""
    if isinstance(uri, type):
        return uri
    setting = "logger_class" if section == "gunicorn.loggers" else "worker_class"
    wrong = f"class uri {uri!r} invalid or not found"
    module = ""
    try:
        if uri.startswith("egg:"):
            distribution, _, name = uri[len("egg:") :].partition("#")
            return _entry_point(distribution, section, name or default)
        path = SUPPORTED_WORKERS.get(uri.lstrip("#"), uri)
        module, _, name = path.rpartition(".")
        if not module:
            return _entry_point(None, section, name)
        found = importlib.import_module(module)
    except Exception as error:
        # The name is wrong, not the code behind it, which alone needs a traceback.
        if isinstance(error, ImportError) and (not module or f"{module}.".startswith(f"{error.name}.")):
            raise RuntimeError(f"{wrong}: {error} ({setting})") from error
        import traceback

        raise RuntimeError(f"{wrong}: \n\n[{traceback.format_exc()}]") from error
    try:
        return getattr(found, name)
    except AttributeError as error:
        # Else the setting itself, a text, would be taken for the class.
        raise RuntimeError(f"{wrong}: {error} ({setting})") from error


def _entry_point(distribution: str | None, group: str, name: str) -> Any:
    import importlib.metadata

    for one in importlib.metadata.entry_points(group=group, name=name):
        if distribution is None or one.dist is None or one.dist.name == distribution:
            return one.load()
    raise ImportError(f"Entry point {(group, name)!r} not found")


def import_app(module: str) -> Callable[..., Any]:
    """The application that `MODULE[:VARIABLE]` or `MODULE:FACTORY(literals)` names."""
    from ferricorn import _core

    return _core.load_app(module)


def get_arity(function: Callable[..., Any]) -> int:
    """How many positional parameters a callable has."""
    import inspect

    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in kinds for one in inspect.signature(function).parameters.values())


def parse_address(netloc: str, default_port: str = "8000") -> tuple[str, int] | str | int:
    """`(host, port)`, the path of a unix socket, or a descriptor's number."""
    if netloc.startswith("unix:"):
        return netloc[len("unix:") :].removeprefix("//")
    if netloc.startswith("fd://"):
        number = netloc[len("fd://") :]
        if not number.isdigit():
            raise RuntimeError(f"{number!r} is not a valid file descriptor.")
        return int(number)
    netloc = netloc.removeprefix("tcp://")
    if netloc.startswith("["):
        host, _, rest = netloc[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = netloc.partition(":")
    port = port or default_port
    if not str(port).isdigit():
        raise RuntimeError(f"{port!r} is not a valid port number.")
    return host.lower() or "0.0.0.0", int(port)


def is_ipv6(address: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, address)
    except (OSError, ValueError):
        return False
    return True


def close_on_exec(descriptor: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.fcntl(descriptor, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)


def set_non_blocking(descriptor: int) -> None:
    os.set_blocking(descriptor, False)


def close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.close()


def unlink(filename: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(filename)


def chown(path: str, uid: int, gid: int) -> None:
    os.chown(path, uid, gid)


def check_is_writable(path: str) -> None:
    try:
        with open(path, "a"):
            pass
    except OSError as error:
        raise RuntimeError(f"Error: '{path}' isn't writable [{error!r}]") from error


def getcwd() -> str:
    """The current directory, by the name under which the shell entered it."""
    with contextlib.suppress(KeyError, OSError):
        if os.path.samefile(os.environ["PWD"], "."):
            return os.environ["PWD"]
    return os.getcwd()


def http_date(timestamp: float | None = None) -> str:
    import email.utils

    return email.utils.formatdate(time.time() if timestamp is None else timestamp, usegmt=True)


def seed() -> None:
    import random

    random.seed()


def bytes_to_str(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def to_bytestring(value: str | bytes, encoding: str = "utf8") -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value.encode(encoding)


def has_fileno(thing: Any) -> bool:
    try:
        thing.fileno()
    except (AttributeError, OSError):
        return False
    return True


def unquote_to_wsgi_str(text: str) -> str:
    import urllib.parse

    return urllib.parse.unquote_to_bytes(text).decode("latin-1")


def split_request_uri(uri: str) -> SplitResult:
    import urllib.parse

    if uri.startswith("//"):
        # A path with an empty first part, which urlsplit would take for a host.
        parts = urllib.parse.urlsplit("." + uri)
        return parts._replace(path=parts.path[1:])
    return urllib.parse.urlsplit(uri)


def make_fail_app(message: str | bytes) -> Callable[..., Any]:
    """An application that answers every request with 500 and this text."""
    body = to_bytestring(message)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        start_response("500 Internal Server Error", headers)
        return [body]

    return application


def warn(message: str) -> None:
    lines = "\n".join(f"!!! {line}" for line in f"WARNING: {message}".splitlines())
    print(f"!!!\n{lines}\n!!!\n", file=sys.stderr, flush=True)


def reraise(kind: type[BaseException], value: BaseException | None, trace: TracebackType | None = None) -> NoReturn:
    raise (kind() if value is None else value).with_traceback(trace)
