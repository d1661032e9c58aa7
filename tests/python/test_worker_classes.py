"""A `worker_class` that is derived from gunicorn's: what it overrides is called, or refused by its name."""

from __future__ import annotations

import pytest

from harness import APPS, HAS_GIL, Finished

pytestmark = pytest.mark.ours

CLASSES = """
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

class Noting:
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.noted = ["made"]

class Threads(Noting, ThreadWorker):
    def init_process(self):
        self.noted.append("begun")
        super().init_process()
        self.noted.append("process")

    def load_wsgi(self):
        super().load_wsgi()
        inner = self.wsgi
        def outer(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [" ".join([type(self).__name__, *self.noted, self.own()]).encode()]
        self.wsgi = outer

    def own(self):
        return "own"

class Derived(Threads):
    pass

class Bare(SyncWorker):
    pass
"""

GEVENT = """
import os
from gunicorn.workers.ggevent import GeventWorker

class Green(GeventWorker):
    def patch(self):
        super().patch()
        print("patched", self.pid == os.getpid(), type(self).__name__, flush=True)
"""


def given(tmp_path, how, module, name):
    """The arguments that ask for the class."""
    if how == "flag":
        return ["-k", f"{module}.{name}"]
    value = f"{module}.{name}" if how == "class" else repr(f"{module}.{name}")
    (tmp_path / "gunicorn.conf.py").write_text(f"import {module}\nworker_class = {value}\n")
    return []


@pytest.mark.parametrize("how", ["class", "path", "flag"])
@pytest.mark.parametrize("name", ["Threads", "Derived"])
def test_what_a_class_may_override_is_called(tmp_path, server, how, name):
    (tmp_path / "own.py").write_text(CLASSES)
    arguments = given(tmp_path, how, "own", name)
    one = server("hello", *arguments, "--pythonpath", str(APPS), "--threads", "2", cwd=tmp_path)
    assert one.get("/").text == f"{name} made begun process own"
    one.log.wait(r"Using worker: hybrid \(2 threads\)$")
    one.send_signal(1)
    one.log.wait("Hang up|Reload", 1)
    assert one.get("/").text == f"{name} made begun process own"
    assert one.stop() == 0


@pytest.mark.parametrize("how", ["class", "path", "flag"])
def test_a_class_that_overrides_nothing_is_its_base(tmp_path, server, how):
    (tmp_path / "own.py").write_text(CLASSES)
    one = server("hello", *given(tmp_path, how, "own", "Bare"), "--pythonpath", str(APPS), cwd=tmp_path)
    assert one.get("/").status == 200
    one.log.wait("Using worker: sync$")
    assert one.stop() == 0


@pytest.mark.skipif(not HAS_GIL, reason="greenlets need a GIL")
@pytest.mark.parametrize("how", ["class", "path", "flag"])
def test_a_class_of_gevent_patches_in_its_own_way(tmp_path, server, how):
    pytest.importorskip("gevent")
    (tmp_path / "own.py").write_text(GEVENT)
    one = server("green", *given(tmp_path, how, "own", "Green"), "--pythonpath", str(APPS), cwd=tmp_path)
    one.output.wait("^patched True Green$")
    assert one.get("/state").text.split()[1] == "True"
    one.log.wait("Using worker: gevent$")
    assert one.stop() == 0


@pytest.mark.parametrize(
    ("method", "instead"),
    [
        ("run", "post_worker_init"),
        ("handle", "request_timeout"),
        ("handle_request", "post_request"),
        ("notify", "a thread"),
        ("handle_quit", "worker_int"),
        ("handle_exit", "worker_exit"),
        ("init_signals", "signal.signal"),
        ("murder_keepalived", "keepalive"),
        ("accept", "settings"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("--check-config",)])
def test_another_method_of_gunicorns_is_refused_by_its_name(tmp_path, method, instead, arguments):
    text = CLASSES + f"\nclass Other(Derived):\n    def {method}(self, *args):\n        pass\n"
    (tmp_path / "own.py").write_text(text)
    done = Finished(["-k", "own.Other", *arguments, "hello", "--pythonpath", str(APPS)], cwd=tmp_path)
    assert done.code == 1
    (line,) = done.error.strip().splitlines()
    assert f"own.Other: ferricorn does not call {method}, which Other overrides" in line and instead in line


def test_a_module_that_cannot_be_imported_says_why(tmp_path):
    (tmp_path / "own.py").write_text("import not_there\n")
    done = Finished(["-k", "own.Other", "hello", "--pythonpath", str(APPS)], cwd=tmp_path)
    assert done.code == 1
    assert "own.Other: No module named 'not_there'" in done.error and "Traceback" not in done.error
