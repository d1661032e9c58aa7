"""Every hook of the server, each noting its process, its arguments and what it sees: `PROCESS HOOK facts`.

The process is `arbiter` or `worker N`, by the worker's age, so that two servers can be compared.
"""

import json
import os
import threading

import gate

ARBITER = os.getpid()
RAISES = os.environ.get("RAISES")


def note(hook, worker=None, **facts):
    in_arbiter = os.getpid() == ARBITER
    process = "arbiter" if in_arbiter else f"worker {worker.age if worker else '?'}"
    thread = "main" if threading.current_thread() is threading.main_thread() else "pool"
    if worker is not None:
        facts["worker"] = worker.age
        facts["pid"] = "booting" if worker.pid == "[booting]" else type(worker.pid).__name__
    gate.note("hooks", json.dumps([process, thread, hook, facts]))
    if hook == RAISES:
        raise ValueError(f"{hook} is broken")


def arbiter_facts(arbiter):
    workers = sorted(worker.age for worker in arbiter.WORKERS.values())
    ours = all(pid == worker.pid for pid, worker in arbiter.WORKERS.items())
    return {"num_workers": arbiter.num_workers, "WORKERS": workers, "keyed": ours, "timeout": arbiter.timeout}


def on_starting(server):
    note("on_starting", num=server.num_workers, listeners=len(server.LISTENERS), pid_known=server.pid == os.getpid())


def when_ready(server):
    name = server.LISTENERS[0].getsockname()[0]
    note("when_ready", listeners=len(server.LISTENERS), name=name, shown=str(server.LISTENERS[0])[:17])


def nworkers_changed(server, new, old):
    note("nworkers_changed", new=new, old=old)


def pre_fork(server, worker):
    worker.from_pre_fork = worker.age
    note("pre_fork", worker, **arbiter_facts(server), worker_age=server.worker_age)


def post_fork(server, worker):
    assert {one.getsockname()[0] for one in (*worker.sockets, *server.LISTENERS)} == {"127.0.0.1"}
    note("post_fork", worker, kept=worker.from_pre_fork, parent=server.pid == os.getppid(), booted=worker.booted)


def post_worker_init(worker):
    note(
        "post_worker_init",
        worker,
        app=callable(worker.wsgi),
        alive=worker.alive,
        nr=worker.nr,
        ppid=worker.ppid == ARBITER,
    )


def pre_request(worker, req):
    note("pre_request", worker, path=req.path, nr=worker.nr)


def post_request(worker, req, environ, resp):
    note("post_request", worker, path=req.path, status=resp.status)


def worker_int(worker):
    note("worker_int", worker, alive=worker.alive, booted=worker.booted)


def worker_abort(worker):
    note("worker_abort", worker, alive=worker.alive)


def worker_exit(server, worker):
    note("worker_exit", worker, alive=worker.alive)


def child_exit(server, worker):
    note("child_exit", worker, aborted=worker.aborted, kept=worker.from_pre_fork, listed=worker.pid in server.WORKERS)


def on_reload(server):
    note("on_reload", listeners=len(server.LISTENERS))


def pre_exec(server):
    note("pre_exec")


def on_exit(server):
    note("on_exit", workers=len(server.WORKERS))
