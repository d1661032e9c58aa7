"""An application that handles signals itself, in the way that HANDLER names, as libraries do at import."""

import _thread
import atexit
import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path

import gate

atexit.register(lambda: gate.note("atexit", os.getpid()))
NUMBER = getattr(signal, os.environ.get("SIGNAL", "SIGTERM"))
BEFORE = signal.getsignal(NUMBER)
flag = threading.Event()
for one in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGABRT", "SIGWINCH"):
    if callable(signal.getsignal(getattr(signal, one))):
        gate.note("callable", one)


def chain(number, frame):
    gate.note("handled", number)
    if callable(BEFORE):
        BEFORE(number, frame)


def leave(number, frame):
    gate.note("handled", number)
    sys.exit(0)


def set_flag(number, frame):
    gate.note("handled", number)
    flag.set()


def fail(number, frame):
    gate.note("handled", number)
    raise RuntimeError("the handler is broken")


def restore(number, frame):
    gate.note("handled", number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def restore_previous(number, frame):
    """As coverage does with `sigterm = true`."""
    gate.note("handled", number)
    signal.signal(number, BEFORE)
    os.kill(os.getpid(), number)


def wait_in_a_thread():
    signal.pthread_sigmask(signal.SIG_BLOCK, {NUMBER})

    def wait():
        signal.sigwait({NUMBER})
        gate.note("handled", int(NUMBER))

    threading.Thread(target=wait, daemon=True).start()


def start_native_thread(run):
    """Not a greenlet, where these stand for threads."""
    if os.environ.get("GREEN") == "gevent":
        from gevent.monkey import get_original

        start = get_original("_thread", "start_new_thread")
    elif os.environ.get("GREEN") == "eventlet":
        from eventlet.patcher import original

        start = original("_thread").start_new_thread
    else:
        start = _thread.start_new_thread
    start(run, ())


def wake_by_descriptor():
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGUSR2, lambda number, frame: gate.note("usr2", number))

    def read():
        while True:
            gate.note("woken", os.read(read_end, 1)[0])

    start_native_thread(read)


def dump_stacks():
    dump = (Path(os.environ["GATES"]) / "dump").open("w")
    faulthandler.register(NUMBER, file=dump, chain=os.environ.get("CHAIN") == "1")
    sys.modules[__name__].dump = dump


how = os.environ.get("HANDLER", "none")
if how == "ignore":
    signal.signal(NUMBER, signal.SIG_IGN)
elif how == "default":
    signal.signal(NUMBER, signal.SIG_DFL)
elif how == "interrupt":
    signal.siginterrupt(NUMBER, True)
elif how == "sigwait":
    wait_in_a_thread()
elif how == "wakeup":
    wake_by_descriptor()
elif how == "faulthandler":
    dump_stacks()
elif how != "none":
    signal.signal(NUMBER, globals()[how])


def application(environ, start_response):
    if environ["QUERY_STRING"]:
        gate.wait(environ["QUERY_STRING"])
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
