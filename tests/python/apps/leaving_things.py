"""What an application leaves to the end of its process: threads, exit handlers, buffers, finalizers."""

import atexit
import concurrent.futures
import os
import threading
from pathlib import Path

import gate

GATES = Path(os.environ["GATES"])
BUFFERED = (GATES / "buffered").open("a")
EXECUTOR = concurrent.futures.ThreadPoolExecutor(2)
atexit.register(lambda: gate.note("atexit", os.getpid()))


class Finalized:
    def __init__(self):
        # Its globals may be gone by then.
        self.path = str(GATES / "finalized.notes")
        self.open, self.close, self.write = os.open, os.close, os.write
        self.flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND

    def __del__(self):
        notes = self.open(self.path, self.flags)
        self.write(notes, b"finalized\n")
        self.close(notes)


THING = Finalized()


def work(name):
    gate.wait(name)
    gate.note("threads", name)


def application(environ, start_response):
    query = environ["QUERY_STRING"]
    if environ["PATH_INFO"] == "/thread":
        threading.Thread(target=work, args=(query,), name=f"own-{query}").start()
    elif environ["PATH_INFO"] == "/executor":
        EXECUTOR.submit(work, query)
    elif environ["PATH_INFO"] == "/block":
        gate.wait(query)
    BUFFERED.write("buffered ")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
