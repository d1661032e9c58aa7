"""The hub's side of `worker_class = eventlet`: the same contract as `_gevent.py`, on eventlet's hub.

eventlet asks its users to move on, and so does the server at its start. Of eventlet what is public is used.
"""

from __future__ import annotations

import contextlib
import os
import traceback
import warnings

from ferricorn import _core, _fork_guard, _greenlets, _hijack

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from typing import Any

OLDEST = (0, 40, 3)
# A greenlet that was woken is woken again after this many seconds, in case that it was waiting for something else.
AGAIN_S = 0.02

_patched_pid: int | None = None
# Requests that run or wait, by the number of their place; the oldest first.
running: dict[int, Any] = {}
# Of the thread whose hub serves, as `sys._current_frames` has it.
main_thread_number: int | None = None
# What wakes greenlets that wait in the server's code; by ticket.
_waiters: dict[int, Callable[[], None]] = {}


def obstacle(has_websockets: bool = False) -> str | None:
    """Why this interpreter cannot run eventlet, in a line."""
    return _greenlets.obstacle("eventlet", OLDEST)


def patch(patch_all: Callable[[], object] | None = None) -> None:
    """Before the application is imported; `patch_all` is the worker's.

    A process that was forked from a patched one polls by itself from then on.
    """
    global _patched_pid
    with warnings.catch_warnings():
        # The server has said so, once.
        warnings.filterwarnings("ignore", "\\s*Eventlet is deprecated")
        import eventlet
    from eventlet import hubs
    from eventlet.greenio import GreenSocket
    from eventlet.patcher import original

    if _patched_pid is not None and _patched_pid != os.getpid():
        _poll_anew(hubs.get_hub())
    _patched_pid = os.getpid()
    (patch_all or eventlet.monkey_patch)()
    kind: Any = _hijack.sending_whole(GreenSocket)

    def make(descriptor: int) -> socket.socket:
        return kind(original("socket").socket(fileno=descriptor))

    _hijack.make = make


def _poll_anew(hub: Any) -> None:
    """The parent and its other children share the set of descriptors that the hub has polled before the fork."""
    from eventlet import hubs
    from eventlet.patcher import original

    poll = getattr(hub, "poll", None)
    if not hasattr(poll, "fileno"):
        hubs.use_hub()
        return
    hub.poll = original("select").epoll()
    for descriptor in {*hub.listeners[hub.READ], *hub.listeners[hub.WRITE]}:
        with contextlib.suppress(OSError):
            hub.register(descriptor, new=True)


def stay_behind(forking: Any) -> None:
    """In a child of the application, as with gevent: the greenlet that has forked acts for the child, and ends it."""
    from eventlet import getcurrent, hubs

    while getcurrent() is not forking and not forking.dead:
        with contextlib.suppress(BaseException):
            hubs.get_hub().switch()


def thread_number() -> int:
    """Of the calling thread, as `sys._current_frames` has it."""
    from eventlet.patcher import original

    return int(original("_thread").get_ident())


def wait(ticket: int, seconds: float | None, is_called: Callable[[int], bool]) -> None:
    """The greenlet yields until its ticket is called up."""
    from eventlet import getcurrent, hubs

    hub, me = hubs.get_hub(), getcurrent()
    timer: Any = None

    def wake() -> None:
        """The hub calls it. A finalizer may have the greenlet yield just before it does so here: then the switch ends
        that wait early, and this one is woken again."""
        nonlocal timer
        if ticket in _waiters and not me.dead:
            if timer is not None:
                timer.cancel()
            timer = hub.schedule_call_global(AGAIN_S, wake)
            me.switch()

    _waiters[ticket] = wake
    try:
        if seconds is not None:
            timer = hub.schedule_call_global(seconds, wake)
        # Before it could be woken a finalizer may have let the hub look.
        if not is_called(ticket):
            hub.switch()
    finally:
        _waiters.pop(ticket, None)
        if timer is not None:
            timer.cancel()


def serve(pool: Any, period: float) -> None:
    """Turns the hub until the pool is closed and its greenlets have ended."""
    import eventlet
    from eventlet import hubs
    from eventlet.event import Event
    from eventlet.greenthread import kill

    global main_thread_number
    main_thread_number = thread_number()
    hub = hubs.get_hub()
    run, take = pool.run, pool.take
    is_closed, is_empty = Event(), Event()
    timer: Any = None

    def note(event: Event) -> None:
        if not event.ready():
            event.send()

    def start() -> None:
        while (index := take()) >= 0:
            greenlet = running[index] = eventlet.spawn(run, index)
            greenlet.link(over, index)
        if index == _greenlets.CLOSED:
            note(is_closed)
            if not running:
                note(is_empty)

    def over(greenlet: Any, index: int) -> None:
        running.pop(index, None)
        pool.over(index)
        # Its place is free for what has found none.
        start()

    def look(descriptor: int | None = None) -> None:
        pool.begin_look()
        try:
            while (ticket := pool.next_due()) is not None:
                wake = _waiters.get(ticket)
                if wake is not None:
                    wake()
            if pool.has_deferred_drops():
                eventlet.spawn_n(pool.drop_deferred)
            if pool.has_calls():
                eventlet.spawn_n(pool.run_calls)
            if pool.has_tasks():
                eventlet.spawn_n(pool.run_tasks)
            end_late()
        except Exception:
            # The hub stops watching a descriptor whose callback raises.
            traceback.print_exc()
            pool.look_again()
        except BaseException:
            pool.look_again()
            raise
        finally:
            start()

    def end_late() -> None:
        while (timed_out := pool.next_timed_out()) is not None:
            index, request = timed_out
            greenlet = running.get(index)
            if greenlet is not None:
                kind = pool.timeout_of(index, request, _greenlets.stack_of(greenlet))
                with contextlib.suppress(kind):
                    kill(greenlet, kind, kind(), None)
        if pool.must_end():
            note(is_closed)
            note(is_empty)

    def heartbeat() -> None:
        nonlocal timer
        pool.heartbeat()
        timer = hub.schedule_call_global(period, heartbeat)

    def patiently(wait: Any) -> None:
        """What ends programs (a signal's handler, `sys.exit` in a greenlet) comes to the main greenlet, once each."""
        while True:
            try:
                wait()
            except BaseException as error:
                if _core.is_forked_child():
                    _fork_guard.end(error)
                pool.raised(error)
            else:
                return

    def end_killed() -> None:
        with eventlet.Timeout(_greenlets.KILL_S, False):
            while running:
                eventlet.sleep(0.005)

    def ignore(*reason: Any) -> None:
        pass

    def in_child() -> None:
        """The hub goes on in a child of the application, with a set of descriptors of its own, not the worker's."""
        if not _core.is_forked_child():
            return
        hub.listeners[hub.READ].pop(watcher.fileno, None)
        timer.cancel()
        _poll_anew(hub)
        current = eventlet.getcurrent()
        if current is not hub.greenlet:
            _fork_guard.stay_behind = lambda: stay_behind(current)

    watcher = hub.add(hub.READ, pool.descriptor(), look, ignore, ignore)
    heartbeat()
    os.register_at_fork(after_in_child=in_child)
    hub.schedule_call_global(0, look)
    try:
        patiently(is_closed.wait)
        patiently(is_empty.wait)
        for greenlet in list(running.values()):
            hub.schedule_call_global(0, kill, greenlet)
        patiently(end_killed)
    finally:
        timer.cancel()
        with contextlib.suppress(KeyError):
            hub.remove(watcher)


def handled(application: Any) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """`application`, with what eventlet's own WebSockets want of a server."""
    from eventlet.wsgi import WSGI_LOCAL

    class Upgrade:
        """What `environ["eventlet.input"]` is asked for."""

        def __init__(self, environ: dict[str, Any]) -> None:
            self.environ = environ

        def get_socket(self) -> Any:
            return self.environ["gunicorn.socket"]

    def handled_application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "gunicorn.socket" not in environ:
            return application(environ, start_response)
        environ["eventlet.input"] = Upgrade(environ)
        result = application(environ, start_response)
        if getattr(WSGI_LOCAL, "already_handled", False):
            # There is no response: the client was answered on its socket.
            raise StopIteration
        return result

    return handled_application
