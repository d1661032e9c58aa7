"""`gunicorn.sock`: the listening sockets in `arbiter.LISTENERS` and `worker.sockets`."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Listener:
    """A socket that the server owns, by its descriptor. Methods of `socket.socket` work on it; closing does not."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[socket.socket]:
        one = socket.socket(fileno=self._descriptor)
        try:
            yield one
        finally:
            one.detach()

    def fileno(self) -> int:
        return self._descriptor

    @property
    def sock(self) -> socket.socket:
        """A copy, which is the caller's to close."""
        return socket.socket(fileno=os.dup(self._descriptor))

    def close(self) -> None:
        """The server closes its listeners itself."""

    def __str__(self) -> str:
        return self._name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        with self._borrowed() as one:
            value = getattr(one, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._borrowed() as one:
                return getattr(one, name)(*args, **kwargs)

        return call
