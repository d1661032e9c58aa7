"""`environ["gunicorn.socket"]`: the client's socket, which becomes the application's when it is first used.

A request that asks for an upgrade may be answered in HTTP all the same, so the server keeps the connection until the
application shows that it wants it. The object in the environ is a `socket.socket` that turns into a plain one, blocking
and the application's alone, the moment any of its methods or attributes is looked up. Looking at the object itself
(printing, comparing, testing for its type) does not take it.
"""

import socket

# What tells the server that a socket is taken, by the identity of the socket: a socket has no room for it.
_offers = {}


class OfferedSocket(socket.socket):
    """A client's socket that is not yet the application's."""

    __slots__ = ()

    def __getattribute__(self, name):
        if name.startswith("__"):
            return super().__getattribute__(name)
        take = _offers.pop(id(self), None)
        # Plain from here on: with this class the object has lost its hook.
        self.__class__ = socket.socket
        if take is not None:
            try:
                take()
            except BaseException:
                self.close()
                raise
            self.setblocking(True)
        return getattr(self, name)

    def __repr__(self):
        return "<socket.socket offered by ferricorn>"


def offer(descriptor, take):
    """The socket over `descriptor`; `take` is called once, before it is first used."""
    offered = OfferedSocket(fileno=descriptor)
    _offers[id(offered)] = take
    return offered


def withdraw(offered):
    """The request is over. A socket that was not used is closed: the connection stays the server's."""
    if _offers.pop(id(offered), None) is not None:
        offered.close()
