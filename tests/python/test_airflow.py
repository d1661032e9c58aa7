"""Airflow 2's web server and its own monitor, which renews workers with TTIN and TTOU, over this server.

It needs an environment of its own, with the alias in gunicorn's place, which `make test-airflow` makes; elsewhere these
tests are skipped.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest

from harness import Transcript, wait_until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("airflow") is None, reason="`make test-airflow` installs it, and it is large"
)
AIRFLOW = [str(Path(sys.executable).with_name("airflow"))]
READY = "[ready] "


class Visitor:
    """Asks again and again, on one connection."""

    def __init__(self, port: int) -> None:
        self.port, self.answers, self.failures = port, 0, []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self._ends.wait(0.02):
            try:
                connection.request("GET", "/health")
                response = connection.getresponse()
                response.read()
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if response.status == 200:
                self.answers += 1
            else:
                self.failures.append(str(response.status))

    def end(self) -> None:
        self._ends.set()
        self._thread.join()


def workers(monitor: psutil.Process) -> set[int]:
    """Those that Airflow's monitor counts, if they are all ready."""
    try:
        found = [child for master in monitor.children() for child in master.children()]
        lines = [child.cmdline() for child in found]
    except psutil.NoSuchProcess:
        return set()
    return {child.pid for child in found} if all(line and READY in line[0] for line in lines) else set()


@pytest.fixture
def airflow(tmp_path):
    # A port that is free: Airflow's monitor is given it before the server binds.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__WEBSERVER__WORKERS": "2",
        "AIRFLOW__WEBSERVER__WORKER_REFRESH_INTERVAL": "8",
        "AIRFLOW__WEBSERVER__WORKER_REFRESH_BATCH_SIZE": "1",
    }
    subprocess.run([*AIRFLOW, "db", "migrate"], env=env, check=True, capture_output=True)
    started = []

    def start(**settings: str):
        line = [*AIRFLOW, "webserver", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(line, env={**env, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        started.append(process)
        transcript = Transcript(process.stdout)
        monitor = psutil.Process(process.pid)
        wait_until(lambda: len(workers(monitor)) >= 2, "two ready workers", 120)
        return process, monitor, transcript, port

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def visited(port: int):
    """All requests of three clients are answered meanwhile."""
    visitors = [Visitor(port) for _ in range(3)]
    try:
        yield
    finally:
        for visitor in visitors:
            visitor.end()
    assert [one.failures for one in visitors] == [[], [], []]
    assert all(one.answers > 50 for one in visitors)


def stop(process: subprocess.Popen, log: Transcript) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    log.wait("Shutting down: Master")
    assert "SIGKILL" not in log.text
    log.wait("0 refused, 0 cut")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("reloads", ["False", "True"], ids=["preload", "no preload"])
def test_the_web_servers_monitor_renews_workers_and_no_request_is_lost(airflow, reloads):
    process, monitor, log, port = airflow(AIRFLOW__WEBSERVER__RELOAD_ON_PLUGIN_CHANGE=reloads)
    log.wait("Starting ferricorn")
    first = workers(monitor)
    with visited(port):
        log.wait("Handling signal: ttou", 3, patience=90)
        wait_until(lambda: len(workers(monitor)) == 2, "two workers", 60)
        assert not first & workers(monitor), "both were renewed"
    stop(process, log)


@pytest.mark.timeout(300)
def test_a_change_of_plugins_reloads_and_no_request_is_lost(airflow, tmp_path):
    settings = {"WORKER_REFRESH_INTERVAL": "0", "PLUGIN_REFRESH_INTERVAL": "1", "RELOAD_ON_PLUGIN_CHANGE": "True"}
    process, monitor, log, port = airflow(**{f"AIRFLOW__WEBSERVER__{name}": value for name, value in settings.items()})
    first = workers(monitor)
    with visited(port):
        (tmp_path / "plugins").mkdir(exist_ok=True)
        (tmp_path / "plugins" / "new.py").write_text("new = True")
        log.wait("Handling signal: hup", patience=90)
        wait_until(lambda: len(workers(monitor)) == 2 and not first & workers(monitor), "two new workers", 90)
    stop(process, log)
