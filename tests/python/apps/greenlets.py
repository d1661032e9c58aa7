"""The library of greenlets that the server patches, behind one set of names: GREEN=gevent or GREEN=eventlet."""

import os

LIBRARY = os.environ.get("GREEN", "gevent")

if LIBRARY == "gevent":
    import gevent
    import gevent.monkey
    import gevent.socket
    from gevent import GreenletExit, Timeout, get_hub, getcurrent, sleep, spawn, spawn_later  # noqa: F401

    Socket = gevent.socket.socket

    def is_patched(module):
        return gevent.monkey.is_module_patched(module)

    def original(module, name):
        return gevent.monkey.get_original(module, name)

    def kill(greenlet, *error):
        """Throws into a greenlet, from another one."""
        greenlet.kill(*error, block=False)

    Greenlet = gevent.Greenlet

    def is_main_thread():
        """Whether this is the hub of the interpreter's main thread."""
        return get_hub().loop.default

    def on_signal(number, act):
        gevent.signal_handler(number, act)

    def join_all(greenlets):
        gevent.joinall(greenlets)

else:
    import signal

    import eventlet
    import eventlet.greenio
    import eventlet.greenthread
    import eventlet.hubs
    import eventlet.patcher
    from eventlet import Timeout, getcurrent, sleep, spawn  # noqa: F401
    from eventlet import spawn_after as spawn_later  # noqa: F401
    from greenlet import GreenletExit  # noqa: F401

    Socket = eventlet.greenio.GreenSocket

    def is_patched(module):
        return eventlet.patcher.is_monkey_patched(module)

    def original(module, name):
        return getattr(eventlet.patcher.original(module), name)

    def kill(greenlet, *error):
        eventlet.hubs.get_hub().schedule_call_global(0, greenlet.throw, *error)

    Greenlet = eventlet.greenthread.GreenThread

    def is_main_thread():
        threads = eventlet.patcher.original("threading")
        return original("_thread", "get_ident")() == threads.main_thread().ident

    def on_signal(number, act):
        signal.signal(number, lambda *_: spawn(act))

    def join_all(greenlets):
        for one in greenlets:
            one.wait()
