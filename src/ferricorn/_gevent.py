"""The hub's side of `worker_class = gevent`: it turns on the worker's main thread, and starts a greenlet per request.

`GreenPool` (`python/green_pool.rs`) is the other side. gevent is imported in workers and in the fork server alone,
by `patch`.
"""

from __future__ import annotations

import contextlib
import os
import signal

from ferricorn import _core, _fork_guard, _greenlets, _hijack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OLDEST = (24, 10)

_patched_pid: int | None = None
# Requests that run or wait, by the number of their place; the oldest first.
running: dict[int, Any] = {}
# Of the thread whose hub serves, as `sys._current_frames` has it.
main_thread_number: int | None = None
# Of greenlets that wait in the server's code; by ticket.
_waiters: dict[int, Any] = {}


def obstacle(has_websockets: bool = False) -> str | None:
    """Why this interpreter cannot run gevent, in a line; with WebSockets, gevent-websocket."""
    from importlib.util import find_spec

    if reason := _greenlets.obstacle("gevent", OLDEST):
        return reason
    if has_websockets and find_spec("geventwebsocket") is None:
        return "gevent-websocket is not installed: pip install gevent-websocket"
    return None


def patch(patch_all: Callable[[], object] | None = None) -> None:
    """Before the application is imported; `patch_all` is the worker's.

    A process that was forked from a patched one has a hub that begins anew.
    """
    global _patched_pid
    import gevent.socket
    from gevent import monkey

    if _patched_pid is not None and _patched_pid != os.getpid():
        gevent.reinit()
    _patched_pid = os.getpid()
    (patch_all or monkey.patch_all)()
    gevent.get_hub()
    kind = _hijack.sending_whole(gevent.socket.socket)
    _hijack.make = lambda descriptor: kind(fileno=descriptor)


def fork() -> int:
    """`os.fork` without what gevent adds for applications: the server waits for its own children."""
    from gevent import monkey

    return int(monkey.get_original("os", "fork")())


def thread_number() -> int:
    """Of the calling thread, as `sys._current_frames` has it."""
    from gevent import monkey

    return int(monkey.get_original("_thread", "get_ident")())


def wait(ticket: int, seconds: float | None, is_called: Callable[[int], bool]) -> None:
    """The greenlet yields until its ticket is called up."""
    from gevent.hub import Waiter, get_hub

    waiter = Waiter()
    _waiters[ticket] = waiter
    timer = None
    try:
        if seconds is not None:
            timer = get_hub().loop.timer(seconds)
            timer.start(waiter.switch, None)
        # Before the waiter was there a finalizer may have let the hub look. From here on the waiter remembers.
        if not is_called(ticket):
            waiter.get()
    finally:
        _waiters.pop(ticket, None)
        if timer is not None:
            timer.stop()
            timer.close()


def stay_behind(forking: Any) -> None:
    """In a child of the application. The fork has copied all greenlets; as with threads, only the one that has forked
    acts for the child, and ends it. The copy of another request's runs no further than the application does."""
    from gevent import get_hub, getcurrent

    while getcurrent() is not forking and not forking.dead:
        with contextlib.suppress(BaseException):
            get_hub().switch()


def look_for_children() -> None:
    """gevent installs libev's handler of SIGCHLD after its first fork, and a child that has ended before is never seen:
    `join` would wait for ever. The signal is sent again. Where libev does not listen either, the system ignores it."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGCHLD)


def serve(pool: Any, period: float) -> None:
    """Turns the hub until the pool is closed and its greenlets have ended."""
    from gevent import Greenlet, getcurrent, joinall
    from gevent.event import Event
    from gevent.exceptions import LoopExit
    from gevent.hub import get_hub

    global main_thread_number
    main_thread_number = thread_number()
    hub = get_hub()
    run, take = pool.run, pool.take
    is_closed, is_empty = Event(), Event()

    class Request(Greenlet):  # type: ignore[misc]
        """Runs the job of one place. A fresh one per request: locals and context variables are its own."""

        # Where the hub has started it tells nothing, and would cost 5 of 32 us per request.
        spawning_stack_limit = 0
        __slots__ = ("index",)

        def __init__(self, index: int) -> None:
            # What it runs is no method here: that frame would take half a kilobyte of each request that waits.
            Greenlet.__init__(self, run, index)
            self.index = index

    def start() -> None:
        while (index := take()) >= 0:
            greenlet = running[index] = Request(index)
            greenlet.rawlink(over)
            greenlet.start()
        if index == _greenlets.CLOSED:
            is_closed.set()
            if not running:
                is_empty.set()

    def over(greenlet: Request) -> None:
        index = greenlet.index
        running.pop(index, None)
        pool.over(index)
        # Its place is free for what has found none.
        start()

    def look() -> None:
        pool.begin_look()
        try:
            while (ticket := pool.next_due()) is not None:
                waiter = _waiters.pop(ticket, None)
                if waiter is not None:
                    waiter.switch(None)
            if pool.has_deferred_drops():
                Greenlet.spawn(pool.drop_deferred)
            if pool.has_calls():
                Greenlet.spawn(pool.run_calls)
            if pool.has_tasks():
                Greenlet.spawn(pool.run_tasks)
            end_late()
        except BaseException:
            pool.look_again()
            raise
        finally:
            # Whatever was raised: what is queued would else wait for the next wake-up, which may never come.
            start()

    def end_late() -> None:
        while (timed_out := pool.next_timed_out()) is not None:
            index, request = timed_out
            greenlet = running.get(index)
            if greenlet is not None:
                stack = _greenlets.stack_of(greenlet)
                greenlet.kill(pool.timeout_of(index, request, stack), block=False)
        if pool.must_end():
            is_closed.set()
            is_empty.set()

    def patiently(wait: Any) -> None:
        """What ends programs (a signal's handler, `sys.exit` in a greenlet) comes to the main greenlet, once each."""
        while True:
            try:
                wait()
            except BaseException as error:
                if _core.is_forked_child():
                    # Nothing that could run is left, or a greenlet that the application has started ends the child.
                    _fork_guard.end(None if isinstance(error, LoopExit) else error)
                pool.raised(error)
            else:
                return

    def in_child() -> None:
        """The hub goes on in a child of the application, without the descriptor: libev ends a process for that."""
        if not _core.is_forked_child():
            return
        watcher.stop()
        timer.stop()
        current = getcurrent()
        if current is not hub:
            _fork_guard.stay_behind = lambda: stay_behind(current)

    def in_parent() -> None:
        """gevent's first fork is not watched yet, and the next turn of the hub comes after the watcher has started."""
        hub.loop.run_callback_threadsafe(look_for_children)

    watcher = hub.loop.io(pool.descriptor(), 1)
    watcher.start(look)
    timer = hub.loop.timer(period, period)
    timer.start(pool.heartbeat)
    os.register_at_fork(after_in_parent=in_parent, after_in_child=in_child)
    pool.heartbeat()
    hub.loop.run_callback(look)
    try:
        patiently(is_closed.wait)
        patiently(is_empty.wait)
        killed = list(running.values())
        for greenlet in killed:
            greenlet.kill(block=False)
        patiently(lambda: joinall(killed, timeout=_greenlets.KILL_S))
    finally:
        timer.stop()
        timer.close()
        watcher.stop()
        watcher.close()
