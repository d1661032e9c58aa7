"""`environ["gunicorn.socket"]`: the client's socket, which the application hijacks by using it.

A request that asks for an upgrade may be answered in HTTP all the same, so the server keeps the connection until the
application shows that it wants it. The object in the environ is a `socket.socket` that turns into a plain one, blocking
and the application's alone, the moment any of its methods or attributes is looked up. Looking at the object itself
(printing, comparing, testing for its type) does not hijack it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# The sockets that may be hijacked, and what reports that to the server; by the identity of the socket, which has no
# room for it.
_pending: dict[int, tuple[socket.socket, Callable[[], None]]] = {}


def _hijackable(plain: type[socket.socket]) -> type[socket.socket]:
    """The class of a client's socket that is not yet the application's; `plain` is what it turns into."""

    class HijackableSocket(plain):  # type: ignore[valid-type, misc]
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            if name.startswith("__"):
                return super().__getattribute__(name)
            _, hijack = _pending.pop(id(self), (None, None))
            # Plain from here on: with this class the object has lost its hook.
            self.__class__ = plain  # type: ignore[assignment]
            if hijack is not None:
                try:
                    hijack()
                except BaseException:
                    self.close()
                    raise
                self.setblocking(True)
            return getattr(self, name)

        def __repr__(self) -> str:
            return "<socket.socket that this request may hijack>"

    return HijackableSocket


def sending_whole(green: type[socket.socket]) -> type[socket.socket]:
    """A class of sockets whose greenlet waits in `send` until all is sent, as a thread does in a blocking socket's.

    Those of greenlet libraries return once a part has found room, and simple-websocket does not look at how much.
    """

    class Socket(green):  # type: ignore[valid-type, misc]
        __slots__ = ()

        def send(self, data: Any, flags: int = 0, *rest: Any, **named: Any) -> int:
            if rest or named or self.gettimeout() is not None:
                return super().send(data, flags, *rest, **named)
            view = memoryview(data).cast("B")
            sent: int = super().send(view, flags)
            while sent < len(view):
                sent += super().send(view[sent:], flags)
            return sent

    return Socket


# Where requests are greenlets: makes the socket over a descriptor that waits by their library.
make: Callable[[int], socket.socket] | None = None
# By what they turn into: an application may patch the module.
_kinds: dict[type[socket.socket], type[socket.socket]] = {}


def offer(descriptor: int, hijack: Callable[[], None]) -> socket.socket:
    """The socket over `descriptor`. `hijack` is called once, before the socket is first used."""
    # Its construction looks at attributes already, so that the class comes last.
    made = make(descriptor) if make else socket.socket(fileno=descriptor)
    plain = type(made)
    kind = _kinds.get(plain) or _kinds.setdefault(plain, _hijackable(plain))
    _pending[id(made)] = (made, hijack)
    made.__class__ = kind
    return made


def withdraw(hijackable: socket.socket) -> None:
    """The request is over. A socket that was not used is closed: the connection stays the server's."""
    if _pending.pop(id(hijackable), None) is not None:
        hijackable.close()


def close_all() -> None:
    """In a child that the application has forked: the requests are the worker's."""
    for hijackable, _ in list(_pending.values()):
        withdraw(hijackable)
