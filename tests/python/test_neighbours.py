"""Servers of one user beside each other: none waits for another, whatever state that one is in."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from harness import stop_process

pytestmark = pytest.mark.ours


@pytest.fixture
def runtime():
    directory = Path(tempfile.mkdtemp(prefix="fc-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def fill_backlog(path):
    """Connections that the stopped server has not accepted, as many as the kernel keeps for it."""
    waiting = []
    with contextlib.suppress(BlockingIOError):
        while len(waiting) < 5000:
            one = socket.socket(socket.AF_UNIX)
            waiting.append(one)
            one.setblocking(False)
            one.connect(str(path))
    return waiting


@pytest.mark.parametrize("arguments", [(), ("--preload",)])
def test_a_stopped_server_holds_up_no_other(server, runtime, arguments):
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    stopped = server("hello", env=env)
    path = stopped.log.wait(r"Control socket listening at (.+)$")[0].group(1)
    stop_process(stopped.pid)
    try:
        waiting = fill_backlog(path)
        for _ in range(2):
            beside = server("hello", *arguments, env=env)
            assert beside.get("/").status == 200
            assert beside.stop() == 0
        assert Path(path).exists(), "it is stopped, not gone"
        for one in waiting:
            one.close()
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.stop() == 0
