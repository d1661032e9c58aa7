"""A log that nobody reads: it loses lines, and stalls nothing else: neither event loop, thread nor master."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import tty

import pytest

from harness import COMMAND, wait_until
from wire import Client, Disconnected

pytestmark = [pytest.mark.ours, pytest.mark.slow]

# Together more than pipe and buffer hold: a line is longer than its path.
PATH_BYTES = 3000
REQUESTS = 800
# What a server must do at once, on a machine that is busy.
SOON_S = 15


class Stream:
    """Something to write to, and its other end, which is read when the test says so."""

    def __init__(self, kind: str, directory) -> None:
        if kind == "pipe":
            self.read_end, self.write_end = os.pipe()
        elif kind == "fifo":
            os.mkfifo(directory / "fifo")
            self.read_end = os.open(directory / "fifo", os.O_RDWR)
            self.write_end = os.open(directory / "fifo", os.O_WRONLY)
        elif kind == "socket":
            ends = socket.socketpair()
            self.read_end, self.write_end = (one.detach() for one in ends)
        else:
            self.read_end, self.write_end = os.openpty()
            tty.setraw(self.write_end)
        self.text = ""

    def command(self, *numbers: int) -> list[str]:
        """The server with this as its streams `numbers`."""
        turned = "; ".join(f"os.dup2({self.write_end}, {number})" for number in numbers)
        script = f"import os, sys; {turned}; os.close({self.write_end}); os.execvp(sys.argv[1], sys.argv[1:])"
        return [sys.executable, "-c", script, *COMMAND]

    def read(self) -> None:
        """Reads all from now on, until every process has closed the other end."""
        os.close(self.write_end)
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        with contextlib.suppress(OSError):
            while block := os.read(self.read_end, 65536):
                self.text += block.decode()


@pytest.fixture(params=["pipe", "fifo", "socket", "terminal"])
def stream(request, tmp_path):
    return Stream(request.param, tmp_path)


def start(server, stream, numbers, tmp_path, *arguments):
    """On a unix socket, because the log that would tell a port may be what stalls."""
    path = f"{tmp_path}/s"
    one = server(
        *arguments,
        bind=(f"unix:{path}",),
        command=stream.command(*numbers),
        pass_fds=(stream.write_end,),
        ready=False,
    )
    one.address = path
    wait_until(lambda: answers(one), "it serves")
    return one


def answers(one) -> bool:
    with contextlib.suppress(OSError, Disconnected), Client(one.address, SOON_S) as client:
        return client.request("GET", "/").status == 200
    return False


def ask(one, count=REQUESTS, path="/") -> int:
    """Requests whose lines are long; returns how many were answered in time."""
    path = path.ljust(PATH_BYTES, "x")
    with Client(one.address, SOON_S) as client:
        return sum(client.request("GET", path).status == 200 for _ in range(count))


def dropped(tmp_path) -> int:
    """As `/metrics` tells."""
    with Client(f"{tmp_path}/a", SOON_S) as client:
        text = client.request("GET", "/metrics").text
    return int(re.search(r"^ferricorn_log_lines_dropped_total (\d+)$", text, re.MULTILINE).group(1))


@pytest.mark.parametrize("threads", ["1", "4"])
def test_requests_are_answered_and_the_server_stops(server, stream, tmp_path, threads):
    arguments = ("hello:app", "--threads", threads, "--access-logfile", "-")
    one = start(server, stream, (1,), tmp_path, *arguments)
    assert ask(one) == REQUESTS
    assert one.stop(patience=SOON_S) == 0


def test_what_is_lost_is_counted_and_said_once(server, stream, tmp_path):
    admin = ("--admin-bind", f"unix:{tmp_path}/a")
    one = start(server, stream, (1,), tmp_path, "hello:app", "--access-logfile", "-", *admin)
    assert ask(one) == REQUESTS
    wait_until(lambda: dropped(tmp_path) > 0, "it is counted")
    assert "were dropped" not in one.log.text, "before lines flow again the rest is not known"
    stream.read()
    [match] = one.log.wait(r"\] \[WARNING\] (\d+) log lines were dropped: the access log did not take them\.$")
    assert dropped(tmp_path) == int(match.group(1))
    assert answers(one)
    assert one.stop() == 0
    assert len(re.findall("were dropped", one.log.join())) == 1
    lines = re.findall(r'"GET /x+ HTTP/1\.1" 200 ', stream.text)
    assert len(lines) + int(match.group(1)) == REQUESTS


def test_the_applications_errors_and_the_master_go_on(server, stream, tmp_path):
    """Standard error stalls, and with it what the application logs there and what the master has to say."""
    one = start(server, stream, (2,), tmp_path, "complaining:app", "--threads", "2")
    assert ask(one) == REQUESTS
    [first] = one.workers()
    one.send_signal(signal.SIGTTIN)
    wait_until(lambda: len(one.workers()) == 2, "a second worker", SOON_S)
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: first not in one.workers() and len(one.workers()) == 1, "other workers", SOON_S)
    assert answers(one)
    one.send_signal(signal.SIGUSR1)
    assert one.stop(patience=SOON_S) == 0


def test_a_slow_reader_loses_nothing_that_the_buffer_holds(server, tmp_path):
    stream = Stream("pipe", tmp_path)
    one = start(server, stream, (1,), tmp_path, "hello:app", "--access-logfile", "-")
    # More than a pipe and less than the buffer.
    count = 200
    assert ask(one, count) == count
    stream.read()
    assert one.stop() == 0
    wait_until(lambda: len(re.findall(r'"GET /x+ HTTP/1\.1" 200 ', stream.text)) == count, "every line")
    assert "dropped" not in one.log.join()


@pytest.mark.parametrize("option", ["--access-logfile", "--error-logfile"])
def test_a_fifo_that_nobody_reads_holds_nobody(server, tmp_path, option):
    path = tmp_path / "log"
    os.mkfifo(path)
    stream = Stream("pipe", tmp_path)
    one = start(server, stream, (1,), tmp_path, "complaining:app", "--threads", "2", option, str(path))
    assert ask(one) == REQUESTS
    assert one.stop(patience=SOON_S) == 0
