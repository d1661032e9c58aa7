"""Real-world configurations, with gunicorn installed and without. See configs/README.md."""

import json
import multiprocessing
import os
import re
import signal
import sys

import pytest

from harness import HERE, IS_OURS, Finished, wait_until

CONFIGS = HERE / "configs"
ALONE = {"PYTHONPATH": str(HERE / "without_gunicorn")}
ALIAS = {**ALONE, "ALIAS": "1"}


@pytest.fixture(params=["beside", "alone"])
def start(request, server):
    """A server with a configuration, where gunicorn is installed and where it is not."""
    if request.param == "alone" and not IS_OURS:
        pytest.skip("gunicorn is the server under test")

    def started(*arguments, env=None, **options):
        extra = ALONE if request.param == "alone" else {}
        return server(*arguments, cwd=CONFIGS, env={**extra, **(env or {})}, **options)

    return started


def addressed(one, transcript):
    """Ready, by a log that is not on the standard error or not in lines of the usual form."""
    (listening,) = transcript.wait(r"Listening at: http://(?:127\.0\.0\.1|0\.0\.0\.0):(\d+)")
    one.address = ("127.0.0.1", int(listening.group(1)))
    return one


def test_prometheus_multiprocess(start, tmp_path):
    one = start(
        "prometheus_app", "-c", "prometheus_conf.py", ready=False, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    )
    one.wait_ready(2)
    living = len(one.booted())
    pids = {one.get("/work").body.decode() for _ in range(10)}

    # Until each worker has written its first figures prometheus_client may find a file without content.
    def ten_are_counted():
        return b'requests_total{path="/work"} 10.0' in one.get("/metrics").body

    wait_until(ten_are_counted, "ten requests are counted")
    wait_until(lambda: f"live {living}.0".encode() in one.get("/metrics").body, "all workers alive")
    for pid in pids:
        assert (tmp_path / f"gauge_livesum_{pid}.db").exists()
    victim = int(pids.pop())
    os.kill(victim, signal.SIGKILL)
    one.log.wait(rf"marked {victim} dead$")
    wait_until(lambda: not (tmp_path / f"gauge_livesum_{victim}.db").exists(), "the dead worker's gauge is gone")
    wait_until(ten_are_counted, "its counters count on")


def test_opentelemetry_post_fork(start):
    one = start("opentelemetry_app", "-c", "opentelemetry_conf.py", bind=())
    (spawned,) = one.log.wait(r"Worker spawned \(pid: (\d+)\)$")
    trace_id = one.get("/cart").body.decode()
    one.output.wait(rf'"trace_id": "0x{trace_id}"')
    one.output.wait(rf'"worker": "?{spawned.group(1)}"?')
    last = one.get("/last").body.decode()
    assert one.stop() == 0
    # What was batched is exported before the worker goes.
    assert last in one.output.join()


def test_json_logger(start):
    one = start("hello:app", "-c", "json_logger_conf.py", "--pythonpath", str(HERE / "apps"), ready=False)
    addressed(one, one.log)
    response = one.get("/path?x=1", [("User-Agent", "agent")])
    assert response.status == 200
    if IS_OURS:
        assert response.header("server") == "shop"
    one.output.wait(r'"path": "/path"')
    (entry,) = [json.loads(line) for line in one.output.text.splitlines()]
    assert {
        "method": "GET",
        "path": "/path",
        "status": 200,
        "agent": "agent",
        "message": "access",
    }.items() <= entry.items()
    assert one.stop() == 0
    entries = [json.loads(line) for line in one.log.join().splitlines()]
    assert entries[0]["message"].startswith("Starting ")
    assert {"level", "time"} <= entries[-1].keys()


def test_logconfig_dict(start, tmp_path):
    access = tmp_path / "access.log"
    one = start("logging_dict_app", "-c", "logging_dict_conf.py", ready=False, env={"ACCESS_LOG": str(access)})
    addressed(one, one.output)
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"
    one.output.wait(rf"^{stamp} DEBUG   shop imported$")
    assert one.get("/list").body == b"logged"
    one.output.wait(rf"^{stamp} INFO    shop serving /list$")
    wait_until(lambda: '"GET /list HTTP/1.1" 200 6' in access.read_text(), "the access log")
    access.rename(f"{access}.1")
    one.send_signal(signal.SIGUSR1)
    wait_until(access.exists, "the file is opened anew")
    one.output.wait(rf"^{stamp} INFO    gunicorn\.error Booting worker")


def test_workers_by_the_number_of_processors(start):
    expected = multiprocessing.cpu_count() * 2 + 1
    one = start("hello:app", "-c", "cpu_count_conf.py", "--pythonpath", str(HERE / "apps"), ready=False)
    one.wait_ready(expected)
    wait_until(lambda: len(one.workers()) == expected, f"{expected} workers")
    one.get("/counted")
    one.output.wait(r'^127\.0\.0\.1 "GET /counted HTTP/1\.1" 200$')


@pytest.mark.parametrize("preload", ["0", "1"])
def test_django_with_raw_env_and_hooks(start, preload):
    one = start("-c", "django_conf.py", env={"PRELOAD": preload})
    one.log.wait(r"starting shop with 1 workers$")
    one.log.wait(r"Server is ready\. Spawning workers$")
    one.log.wait(r"Worker spawned \(pid: \d+\) for corner shop$")
    one.log.wait(r"worker \d+ has WSGIHandler$")
    assert one.get().body == b"corner shop"
    # Not the fork server that a preloaded application is forked from.
    os.kill(one.booted()[-1], signal.SIGINT)
    one.log.wait(r"worker received INT or QUIT signal$")


FORMS = {
    "one word beside gunicorn": {"ONE_WORD": "1"},
    "one word alone": {"ONE_WORD": "1", **ALONE},
    "unchanged, with our alias": ALIAS,
}


@pytest.mark.ours
@pytest.mark.parametrize("env", FORMS.values(), ids=FORMS)
def test_embedding(server, env):
    one = server(
        command=[sys.executable, "embedding.py"], bind=(), cwd=CONFIGS, env={**env, "WORKERS": "2"}, ready=False
    ).wait_ready(2)
    one.log.wait(r"worker of StandaloneApplication with 2 threads$", 2)
    wait_until(lambda: len(one.workers()) == 2, "two workers")
    assert one.get().body.startswith(b"works in ")
    one.send_signal(signal.SIGHUP)
    one.log.wait(r"worker of StandaloneApplication", 4)
    assert re.search(r"Starting ferricorn", one.log.text)
    assert one.stop() == 0


@pytest.mark.ours
def test_embedding_with_a_command_line(server, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("threads = 5\ntimeout = 8\nproc_name = 'mine'\n")
    one = server(
        "hello",
        "--timeout",
        "9",
        "--preload",
        "--no-sendfile",
        "--proxy-protocol",
        command=[sys.executable, str(CONFIGS / "embedding_cli.py"), "--one-word"],
        bind=(),
        cwd=tmp_path,
        env={"GUNICORN_CMD_ARGS": "--threads 6"},
    )
    assert one.get().body == b"hello 9 6 mine True auto"


@pytest.mark.ours
def test_embedding_by_the_name_of_the_application(server):
    program = """
from gunicorn.app.wsgiapp import WSGIApplication

class Standalone(WSGIApplication):
    def __init__(self, app_uri, options):
        self.options = options
        self.app_uri = app_uri
        super().__init__()

    def load_config(self):
        for key, value in self.options.items():
            self.cfg.set(key, value)

Standalone("hello:create_app('there')", {"bind": "127.0.0.1:0", "preload_app": True}).run()
"""
    one = server(command=[sys.executable, "-c", program], bind=(), env=ALIAS)
    assert one.get().body == b"hello there"
    broken = program.replace("create_app", "no_such").replace('"preload_app": True', '"preload_app": False')
    ended = Finished([], command=[sys.executable, "-c", broken], bind=(), env=ALIAS)
    assert ended.code == 4
    assert "Failed to find attribute 'no_such' in 'hello'." in ended.error


@pytest.mark.ours
def test_an_embedded_mistake_is_one_line():
    for script, expected in (
        ("self.cfg.set('workers', -1)", "Error: Value must be positive: -1"),
        ("self.cfg.set('no_such', 1)", "Error: No configuration setting for: no_such"),
        ("self.cfg.set('worker_class', 'tornado')", "ferricorn has no worker class 'tornado'"),
    ):
        program = (
            "from ferricorn.app.base import BaseApplication\n"
            "class One(BaseApplication):\n"
            f"    def load_config(self):\n        {script}\n"
            "    def load(self):\n        pass\n"
            "One().run()\n"
        )
        ended = Finished([], command=[sys.executable, "-c", program], bind=())
        assert ended.code == 1
        assert expected in ended.error
        assert "Traceback" not in ended.error
