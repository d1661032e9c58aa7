"""`environ["gunicorn.socket"]`: the client's socket, which the application hijacks by using it.

A request that asks for an upgrade may be answered in HTTP all the same, so the server keeps the connection until the
application shows that it wants it. The object in the environ is a `socket.socket` that turns into a plain one, blocking
and the application's alone, the moment any of its methods or attributes is looked up. Looking at the object itself
(printing, comparing, testing for its type) does not hijack it, and neither does asking it about TLS.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from weakref import WeakKeyDictionary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# The sockets that may be hijacked, and what reports that to the server; by the identity of the socket, which has no
# room for it.
_pending: dict[int, tuple[socket.socket, Callable[[], None]]] = {}
# What answers for a socket over TLS; the sockets have no room for that either.
_connections: WeakKeyDictionary[socket.socket, Any] = WeakKeyDictionary()
# What can be asked about TLS, before and after the connection is hijacked.
ABOUT_TLS = ("cipher", "getpeercert", "selected_alpn_protocol", "version")


def _answering(plain: type[socket.socket]) -> type[socket.socket]:
    """A class of sockets over TLS, which answer as `ssl.SSLSocket` does."""

    class TlsSocket(plain):  # type: ignore[valid-type, misc]
        __slots__ = ()

        def getpeercert(self, binary_form: bool = False) -> Any:
            return _connections[self].getpeercert(binary_form)

        def cipher(self) -> Any:
            return _connections[self].cipher()

        def version(self) -> Any:
            return _connections[self].version()

        def selected_alpn_protocol(self) -> Any:
            return _connections[self].selected_alpn_protocol()

    return TlsSocket


def _hijackable(plain: type[socket.socket]) -> type[socket.socket]:
    """The class of a client's socket that is not yet the application's; `plain` is what it turns into."""
    harmless = ABOUT_TLS if all(hasattr(plain, name) for name in ABOUT_TLS) else ()

    class HijackableSocket(plain):  # type: ignore[valid-type, misc]
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            if name.startswith("__") or name in harmless:
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
_answering_kinds: dict[type[socket.socket], type[socket.socket]] = {}


def offer(descriptor: int, hijack: Callable[[], None], connection: Any = None) -> socket.socket:
    """The socket over `descriptor`. `hijack` is called once, before the socket is first used.

    `connection` answers what is asked about TLS; `None` on a plain connection.
    """
    # Its construction looks at attributes already, so that the class comes last.
    made = make(descriptor) if make else socket.socket(fileno=descriptor)
    plain = type(made)
    if connection is not None:
        _connections[made] = connection
        plain = _answering_kinds.get(plain) or _answering_kinds.setdefault(plain, _answering(plain))
    kind = _kinds.get(plain) or _kinds.setdefault(plain, _hijackable(plain))
    _pending[id(made)] = (made, hijack)
    made.__class__ = kind
    return made


def withdraw(hijackable: socket.socket, has_failed: bool = False) -> None:
    """The request is over. A socket that was not used is closed: the connection stays the server's.

    Where the application has failed its client would wait for ever: the thread or greenlet of a library that reads from
    the socket keeps the connection open. So it is shut down, and what reads there meets its end.
    """
    if _pending.pop(id(hijackable), None) is not None:
        hijackable.close()
    elif has_failed:
        with contextlib.suppress(OSError):
            hijackable.shutdown(socket.SHUT_RDWR)


def close_all() -> None:
    """In a child that the application has forked: the requests are the worker's."""
    for hijackable, _ in list(_pending.values()):
        withdraw(hijackable)
