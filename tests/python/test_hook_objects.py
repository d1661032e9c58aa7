"""What hooks change of the objects that they are handed: honoured, or refused with an error that says so."""

from __future__ import annotations

import os
import signal

import pytest

from harness import APPS, IS_OURS, REPOSITORY, wait_until
from wire import Disconnected

PRELOAD = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])


@pytest.fixture
def hooked(server, tmp_path):
    def start(conf, *arguments, app="lifecycle", **options):
        path = tmp_path / "conf.py"
        path.write_text("import gate, os, signal\n" + conf)
        # `gate` is imported by the file, which is not among the applications.
        env = {"PYTHONPATH": str(APPS), **options.pop("env", {})}
        return server(app, "-c", str(path), "--threads", "2", *arguments, env=env, **options)

    return start


MIDDLEWARE = """
class Middleware:
    def __init__(self, app): self.app = app
    def __call__(self, environ, start_response):
        def start(status, headers, *rest):
            return start_response(status, [*headers, ("X-Middleware", "here")], *rest)
        return self.app(environ, start)
"""


@PRELOAD
def test_a_middleware_that_post_worker_init_puts_around_the_application(hooked, preload):
    one = hooked(MIDDLEWARE + "def post_worker_init(worker): worker.wsgi = Middleware(worker.wsgi)\n", *preload)
    assert one.get("/pid").header("X-Middleware") == "here"
    assert one.stop() == 0


def test_a_loader_that_post_fork_replaces(hooked):
    one = hooked(
        MIDDLEWARE + "def post_fork(server, worker):\n"
        "    load = worker.app.load\n"
        "    worker.app.load = lambda: Middleware(load())\n"
    )
    assert one.get("/pid").header("X-Middleware") == "here"
    assert one.stop() == 0


def test_a_wrapped_public_loader_is_called(hooked):
    """As agents wrap it: on the class."""
    one = hooked(
        MIDDLEWARE + "from gunicorn.app.base import Application\n"
        "from gunicorn.app.wsgiapp import WSGIApplication\n"
        "def post_fork(server, worker):\n"
        "    kind = next(one for one in type(worker.app).__mro__ if 'wsgi' in vars(one))\n"
        "    wsgi = kind.wsgi\n"
        "    kind.wsgi = lambda self: Middleware(wsgi(self))\n"
    )
    assert one.get("/pid").header("X-Middleware") == "here"
    assert one.stop() == 0


@PRELOAD
@pytest.mark.parametrize("hook", ["on_starting(server)", "when_ready(server)", "post_fork(server, worker)"])
def test_raw_env_that_a_hook_sets(hooked, hook, preload):
    if preload and hook.startswith("post_fork"):
        pytest.skip("the application is imported before")
    if preload and not IS_OURS:
        pytest.skip("gunicorn imports in the master, before these hooks and without raw_env")
    one = hooked(f"def {hook}: server.cfg.set('raw_env', ['SET_BY_HOOK=yes'])\n", *preload, app="noted_environment")
    assert one.get("/").text == "yes"
    assert one.stop() == 0


@pytest.mark.parametrize("hook", ["pre_request(worker, req)", "post_request(worker, req, environ, resp)"])
def test_a_request_hook_that_ends_the_worker(hooked, hook):
    one = hooked(f"def {hook}:\n    if 'last' in req.path or 'last' in req.query: worker.alive = False\n")
    worker = one.get("/pid").text
    assert one.get("/pid").text == worker
    assert one.get("/pid?last").text == worker, "the request itself is answered"

    def another():
        try:
            return one.get("/pid").text != worker
        except (Disconnected, OSError):
            return False

    wait_until(another, "another worker serves")
    assert one.stop() == 0


@pytest.mark.parametrize("hook", ["post_fork(server, worker)", "post_worker_init(worker)"])
def test_max_requests_that_a_hook_sets(hooked, hook):
    one = hooked(f"def {hook}: worker.max_requests = 3\n")
    pids = []

    def ask():
        try:
            pids.append(one.get("/pid").text)
        except (Disconnected, OSError):
            return False
        return len(set(pids)) >= 3

    wait_until(ask, "workers are replaced")
    assert one.stop() == 0


def test_the_number_of_workers_that_when_ready_sets(hooked):
    one = hooked("def when_ready(server): server.num_workers = 3\n")
    one.log.wait("Booting worker with pid", 3)
    wait_until(lambda: len(one.workers()) == 3, "three workers")
    assert one.stop() == 0


def test_a_worker_that_a_hook_kills_is_replaced(hooked):
    one = hooked(
        "def child_exit(server, worker): gate.note('exits', worker.pid)\n"
        "def nworkers_changed(server, new, old):\n"
        "    if old: server.kill_worker(min(server.WORKERS), signal.SIGTERM)\n",
        workers=2,
    )
    first = min(one.workers())
    one.send_signal(signal.SIGTTIN)
    one.log.wait("Booting worker with pid", 4)
    wait_until(lambda: len(one.workers()) == 3 and first not in one.workers(), "it is replaced")
    assert one.stop() == 0


@pytest.mark.ours
@pytest.mark.parametrize(
    ("hook", "statement", "message"),
    [
        ("post_fork(server, worker)", "worker.age = 7", "worker.age is the server's"),
        ("post_fork(server, worker)", "worker.timeout = 7", "worker.timeout is the server's"),
        ("post_worker_init(worker)", "worker.log = None", "worker.log is the server's"),
        ("post_fork(server, worker)", "worker.cfg.set('timeout', 5)", "timeout cannot be set any more"),
        ("on_starting(server)", "server.cfg.set('workers', 5)", "workers cannot be set any more"),
        ("on_starting(server)", "server.timeout = 5", "server.timeout is the server's"),
        ("when_ready(server)", "server.LISTENERS = []", "server.LISTENERS is the server's"),
        ("post_fork(server, worker)", "server.num_workers = 2", "can be set in the master only"),
    ],
)
def test_what_cannot_be_honoured_raises(hooked, hook, statement, message):
    one = hooked(f"def {hook}:\n    {statement}\n", ready=False)
    one.log.wait(message.replace(".", r"\."))
    one.reap()


@pytest.mark.ours
def test_what_comes_too_late_raises(hooked):
    one = hooked("def pre_request(worker, req): worker.max_requests = 5\n")
    assert one.get("/pid").status == 500
    one.log.wait(r"worker\.max_requests cannot be set any more: the worker serves")
    assert one.stop() == 0


def test_attributes_of_ones_own_are_free(hooked, gates):
    one = hooked(
        "def on_starting(server): server.own = 'master'\n"
        "def pre_fork(server, worker): worker.own = server.own\n"
        "def post_worker_init(worker): gate.note('own', worker.own)\n"
    )
    assert gates.wait_notes("own") == ["master"]
    assert one.stop() == 0


# -- agents -----------------------------------------------------------------------------------------

NEW_RELIC = """
import newrelic.agent
newrelic.agent.initialize(environment="development", ignore_errors=False)
newrelic.agent.register_application(timeout=10)

def application(environ, start_response):
    transaction = newrelic.agent.current_transaction(active_only=False)
    body = str(transaction is not None).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_new_relic_sees_the_transactions_of_a_raw_application(server, tmp_path, preload):
    """Initialised before the import, as by `newrelic-admin run-program`."""
    pytest.importorskip("newrelic")
    (tmp_path / "watched.py").write_text(NEW_RELIC)
    (tmp_path / "conf.py").write_text(
        "import newrelic.agent\nnewrelic.agent.initialize(environment='development', ignore_errors=False)\n"
        "import gunicorn.app.base\n"
    )
    one = server(
        "watched",
        "--threads",
        "2",
        "-c",
        "conf.py",
        *preload,
        cwd=tmp_path,
        env={"NEW_RELIC_DEVELOPER_MODE": "true", "NEW_RELIC_APP_NAME": "tests", "NEW_RELIC_LOG": "stderr"},
    )
    assert one.get("/").text == "True"
    assert one.stop() == 0


@pytest.mark.ours
def test_new_relic_sees_them_where_gunicorn_is_not_installed(server, tmp_path):
    pytest.importorskip("newrelic")
    (tmp_path / "watched.py").write_text(NEW_RELIC)
    (tmp_path / "conf.py").write_text(
        "import newrelic.agent\nnewrelic.agent.initialize(environment='development', ignore_errors=False)\n"
    )
    path = os.pathsep.join((str(REPOSITORY / "tests/python/without_gunicorn"), str(tmp_path)))
    one = server(
        "watched",
        "--threads",
        "2",
        "-c",
        "conf.py",
        cwd=tmp_path,
        env={"NEW_RELIC_DEVELOPER_MODE": "true", "NEW_RELIC_APP_NAME": "tests", "PYTHONPATH": path},
    )
    assert one.get("/").text == "True"
    assert one.stop() == 0
