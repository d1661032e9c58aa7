"""What applications do with the standard library and with threads, on greenlets: each view says what came of it."""

import atexit
import contextlib
import contextvars
import logging
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import greenlets

import gate

STARTED_AT_IMPORT = []
greenlets.spawn(lambda: STARTED_AT_IMPORT.append("greenlet"))
threading.Thread(target=lambda: STARTED_AT_IMPORT.append("thread"), daemon=True).start()
atexit.register(lambda: gate.note("atexit", "ran"))

# "HOW:SIGNAL": what is done about a signal while the application is imported.
HOW, _, NAME = os.environ.get("GREEN_SIGNAL", "").partition(":")
if HOW:
    NUMBER = getattr(signal, NAME)
    BEFORE = signal.getsignal(NUMBER)

    def noted(*arguments):
        gate.note("signal", "noted")

    def noted_later():
        greenlets.sleep(0.05)
        gate.note("signal", "noted")

    def chained(number, frame):
        gate.note("signal", "noted")
        if callable(BEFORE):
            BEFORE(number, frame)

    if HOW == "green":
        greenlets.on_signal(NUMBER, noted_later)
    else:
        signal.signal(NUMBER, {"plain": noted, "chained": chained}[HOW])

LOCK, RECURSIVE, CONDITION = threading.Lock(), threading.RLock(), threading.Condition()
EVENT, QUEUE, BARRIER = threading.Event(), queue.Queue(), threading.Barrier(5)
SEMAPHORE = threading.BoundedSemaphore(5)
VARIABLE = contextvars.ContextVar("variable", default="unset")
COUNTS = {"lock": 0, "semaphore": 0}


def lock(word):
    with LOCK:
        mine = COUNTS["lock"] = COUNTS["lock"] + 1
        time.sleep(0.002)
        return str(mine) if COUNTS["lock"] == mine else "overtaken"


def recursive(word):
    with RECURSIVE, RECURSIVE:
        time.sleep(0.002)
    return "ok"


def semaphore(word):
    with SEMAPHORE:
        COUNTS["semaphore"] += 1
        inside = COUNTS["semaphore"]
        time.sleep(0.005)
        COUNTS["semaphore"] -= 1
    return str(inside)


def event(word):
    return str(EVENT.set() if word == "set" else EVENT.wait(20))


def put(word):
    QUEUE.put(word)
    return "put"


def get(word):
    return QUEUE.get(timeout=20)


def barrier(word):
    BARRIER.wait(20)
    return "met"


def notify(word):
    with CONDITION:
        CONDITION.notify_all()
    return "notified"


def condition(word):
    with CONDITION:
        gate.note("condition", "waits")
        return str(CONDITION.wait(20))


def imported(word):
    return " ".join(sorted(STARTED_AT_IMPORT))


def thread(word):
    ran = []
    one = threading.Thread(target=lambda: ran.append("ran"))
    one.start()
    one.join()
    return ran[0]


def executor(word):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        return str(sum(pool.map(lambda number: (time.sleep(0.01), number)[1], range(8))))


def child(word):
    line = [sys.executable, "-c", "print('from a child')"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def fork(word):
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def names(word):
    return socket.gethostbyname("localhost")


def selected(word):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        greenlets.spawn_later(0.02, theirs.send, b"x")
        ready, _, _ = select.select([ours], [], [], 20)
        return str(len(ready))


def alarm(word):
    rang = []
    signal.signal(signal.SIGALRM, lambda *_: rang.append("rang"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    until = time.monotonic() + 20
    while not rang and time.monotonic() < until:
        greenlets.sleep(0.01)
    return rang[0]


def timed_out(word):
    try:
        with greenlets.Timeout(0.05):
            time.sleep(30)
    except greenlets.Timeout:
        return "timed out"


def silent(word):
    with greenlets.Timeout(0.05, False):
        time.sleep(30)
    return "silent"


def many(word):
    started = [greenlets.spawn(greenlets.sleep, 0.005) for _ in range(50)]
    greenlets.join_all(started)
    return str(len(started))


def finalizer(word):
    class Sleeps:
        def __del__(self):
            greenlets.sleep(0.005)

    one = Sleeps()
    del one
    return "ok"


def logged(word):
    logging.getLogger("gunicorn.error").info("from the application")
    print("printed", flush=True)
    return "ok"


def slept(word):
    time.sleep(float(word))
    return "slept"


def pid(word):
    return str(os.getpid())


def raise_signal(word):
    os.kill(os.getpid(), getattr(signal, word))
    time.sleep(0.5)
    return "after"


def fails(word):
    raise ValueError("on purpose")


def ends_alone(word):
    greenlets.spawn(fails, "")
    return "ok"


def background(word):
    def work():
        gate.note("background", "begun")
        greenlets.sleep(float(word))
        gate.note("background", "done")

    greenlets.spawn(work)
    return "spawned"


def held(word):
    gate.wait(word)
    return "let go"


def broken_off(word):
    yield b"first "
    greenlets.sleep(0.01)
    raise ValueError("late")


def killed(word):
    yield b"first "
    greenlets.spawn_later(0.02, greenlets.kill, greenlets.getcurrent())
    greenlets.sleep(30)


def variable(word):
    VARIABLE.set(word)
    for _ in range(5):
        greenlets.sleep(0.001)
        yield VARIABLE.get().encode() + b" "


class Closed:
    """Its `close` may switch."""

    def __init__(self, word):
        self.left = 3

    def __iter__(self):
        return self

    def __next__(self):
        greenlets.sleep(0.001)
        if not self.left:
            raise StopIteration
        self.left -= 1
        return b"x"

    def close(self):
        greenlets.sleep(0.01)
        gate.note("closed", "closed")


def endless(word):
    try:
        while True:
            yield b"data: x\n\n"
            greenlets.sleep(0.01)
    finally:
        gate.note("endless", "closed")


closed = Closed


def websocket(environ):
    import simple_websocket

    peer = simple_websocket.Server(environ)
    with contextlib.suppress(simple_websocket.ConnectionClosed):
        while True:
            peer.send(peer.receive() * 2)
    gate.note("websocket", "closed")
    raise StopIteration


def library_websocket(environ):
    """As gevent-websocket's worker has it."""
    peer = environ.get("wsgi.websocket")
    if peer is None:
        return "no websocket"
    while (message := peer.receive()) is not None:
        peer.send(message * 2)
    gate.note("library", "closed")
    return ""


def echo(environ):
    return environ["wsgi.input"].read().decode()


OF_ENVIRON = {"websocket": websocket, "library_websocket": library_websocket, "echo": echo}


def app(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    if name == "written":
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        for number in range(3):
            write(b"%d " % number)
            greenlets.sleep(0.005)
        return [b"end"]
    if name in OF_ENVIRON:
        made = OF_ENVIRON[name](environ)
    else:
        made = globals()[name](environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [made.encode()] if isinstance(made, str) else made


application = app
