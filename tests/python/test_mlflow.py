"""MLflow's tracking server, which requires gunicorn and starts `python -m gunicorn`, over this server.

It needs an environment of its own, with the alias in gunicorn's place, which `make test-mlflow` makes. Elsewhere this
test is skipped.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from harness import Transcript, wait_until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="`make test-mlflow` installs it, and it is large"
)
API = "/api/2.0/mlflow/experiments"


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, str | None, str]:
    """Status, the `Server` field and the body of the answer; status 0 where nothing listens yet."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.getheader("Server"), response.read().decode()
    except ConnectionRefusedError:
        return 0, None, ""
    finally:
        connection.close()


@pytest.mark.timeout(300)
def test_mlflow_starts_ferricorn_and_keeps_its_experiments(tmp_path):
    # A port that is free: MLflow is given it before the server binds.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # MLflow starts gunicorn where it is given options for it, else uvicorn.
    line = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)]
    line += ["--workers", "2", "--gunicorn-opts", "--threads 2 --log-level info"]
    line += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    line += ["--default-artifact-root", str(tmp_path / "artifacts")]
    # It would report to its makers.
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(
        line, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        log = Transcript(process.stdout)
        log.wait(r"\[WARNING\] This is ferricorn, in place of the installed gunicorn", patience=200)
        log.wait("Starting ferricorn", patience=60)
        wait_until(lambda: ask(port, "GET", "/health")[0] == 200, "an answer", 120)
        assert ask(port, "GET", "/health") == (200, "ferricorn", "OK")
        status, server, made = ask(port, "POST", f"{API}/create", {"name": "pears"})
        assert (status, server) == (200, "ferricorn"), made
        number = json.loads(made)["experiment_id"]
        # Either worker may answer: the database has it.
        for _ in range(10):
            status, _, found = ask(port, "GET", f"{API}/get?experiment_id={number}")
            assert (status, json.loads(found)["experiment"]["name"]) == (200, "pears")
        master = int(log.wait(r"\[(\d+)\] \[INFO\] Starting ferricorn")[0][1])
        os.kill(master, signal.SIGTERM)
        process.wait(60)
        log.wait("Shutting down: Master")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
