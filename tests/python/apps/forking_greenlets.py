"""Under gevent: children that wait as greenlets do, so that the hub goes on in them."""

import multiprocessing
import os
import pty
import time
from urllib.parse import parse_qs

import gevent
from gevent import monkey

import gate

LATE = []


def be_late():
    """The process that has forked goes on after its child has ended, as it may on a busy machine."""
    if LATE:
        monkey.get_original("time", "sleep")(LATE.pop())


os.register_at_fork(after_in_parent=be_late)


def work(name):
    time.sleep(0.3)
    gate.note(name, "done")


def in_child(target):
    pid = os.fork()
    if pid == 0:
        target()
        os._exit(7)
    return pid


def sleeping(query):
    """The child sleeps by the hub, and longer than the view that sleeps beside it."""
    pid = in_child(lambda: work("child"))
    gate.note("pid", pid)
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def beside(query):
    gate.reach("beside")
    time.sleep(float(query["seconds"]))
    gate.note("beside", os.getpid())
    return str(os.getpid())


def returning(query):
    """The child comes back to the server, after a sleep."""
    pid = os.fork()
    time.sleep(0.2)
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) if pid else "never sent"


def raising(query):
    pid = os.fork()
    if pid == 0:
        time.sleep(0.2)
        raise SystemExit(5)
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def spawned(query):
    """Forked in a greenlet of the application's own, which then ends in both processes."""
    pids = []
    gevent.spawn(lambda: pids.append(os.fork())).join()
    if not pids[0]:
        return "never sent"
    return str(os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]))


def process(query):
    child = multiprocessing.get_context("fork").Process(target=work, args=("child",))
    child.start()
    child.join()
    return str(child.exitcode)


def brief(query):
    """The child has ended before its parent goes on."""
    LATE.append(0.3)
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join(10)
    return str(child.exitcode)


def brief_fork(query):
    LATE.append(0.3)
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    with gevent.Timeout(10):
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def brief_terminal(query):
    LATE.append(0.3)
    pid, descriptor = pty.fork()
    if pid == 0:
        os._exit(7)
    with gevent.Timeout(10):
        code = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os.close(descriptor)
    return code


def daemon(query):
    def again():
        os.setsid()
        in_child(lambda: (work("child"), gate.note("parent", os.getppid())))
        os._exit(0)

    os.waitpid(in_child(again), 0)
    return "started"


def terminal(query):
    pid, descriptor = pty.fork()
    if pid == 0:
        time.sleep(0.2)
        os.write(1, b"from the child")
        os._exit(0)
    said = os.read(descriptor, 100)
    os.waitpid(pid, 0)
    os.close(descriptor)
    return said.decode()


VIEWS = {
    f"/{view.__name__}": view
    for view in (
        *(sleeping, beside, returning, raising, spawned, process, daemon, terminal),
        *(brief, brief_fork, brief_terminal),
    )
}


def app(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    view = VIEWS.get(environ["PATH_INFO"], lambda query: str(os.getpid()))
    body = view(query).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
