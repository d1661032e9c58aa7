"""What an application makes while it is imported and uses in its views: all of it is bound to the thread."""

import asyncio
import contextvars
import os
import signal
import sqlite3
import threading
import time

import gate

IMPORTED_BY = threading.get_ident()
LOCAL = threading.local()
LOCAL.value = "thread-local"
VARIABLE = contextvars.ContextVar("variable")
VARIABLE.set("context variable")
DATABASE = sqlite3.connect(":memory:")
DATABASE.execute("create table t (value text)")
DATABASE.execute("insert into t values ('a row')")
LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)


class Late(Exception):
    pass


def on_alarm(number, frame):
    raise Late


signal.signal(signal.SIGALRM, on_alarm)
signal.signal(signal.SIGUSR2, lambda number, frame: gate.note("usr2", threading.get_ident() == IMPORTED_BY))


def thread(query):
    return f"{threading.get_ident() == IMPORTED_BY} {threading.current_thread().name}"


def alarm(query):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        time.sleep(20)
    except Late:
        return "late"
    return "never"


def local(query):
    return LOCAL.value


def variable(query):
    return VARIABLE.get()


def database(query):
    return DATABASE.execute("select value from t").fetchone()[0]


def event_loop(query):
    async def answer():
        await asyncio.sleep(0)
        return "asyncio"

    assert asyncio.get_event_loop() is LOOP
    return LOOP.run_until_complete(answer())


def set_handler(query):
    before = signal.signal(signal.SIGVTALRM, lambda number, frame: None)
    signal.signal(signal.SIGVTALRM, before)
    return "set"


def block(query):
    try:
        gate.wait(query)
    finally:
        gate.note("finally", query)
    return query


def spin(query):
    gate.reach("spin")
    while True:
        pass


def pid(query):
    return str(os.getpid())


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/") or "pid"
    body = globals()[name](environ["QUERY_STRING"]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
