"""A log that takes nothing stalls nobody: requests are served, the master acts, and what finds no room is counted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time

import pytest

from harness import APPS, COMMAND, kill_session, wait_until
from wire import Client, Disconnected, encode_request

pytestmark = pytest.mark.ours


class Piped:
    """A server whose standard streams are pipes that nobody reads, until the test does."""

    def __init__(self, tmp_path, *arguments, app="loud:application", env=None):
        self.error = tmp_path / "error.log"
        self.socket = tmp_path / "s"
        self.address = str(self.socket)
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        self.process = subprocess.Popen(
            [*COMMAND, "-b", f"unix:{self.socket}", *arguments, app],
            cwd=APPS, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "XDG_RUNTIME_DIR": str(tmp_path), **(env or {})},
        )  # fmt: skip
        os.close(out)
        os.close(err)
        self.read = {self.out: b"", self.err: b""}

    def text(self, fd, seconds=0.0):
        """What has been said, read for so long."""
        os.set_blocking(fd, False)
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(BlockingIOError):
                while block := os.read(fd, 65536):
                    self.read[fd] += block
            if time.monotonic() >= until:
                return self.read[fd].decode()
            time.sleep(0.01)

    def wait_serves(self):
        def answers():
            with contextlib.suppress(OSError, Disconnected), Client(self.address, 5) as client:
                return client.request("GET", "/quiet").status == 200

        wait_until(answers, "it serves")

    def close(self):
        kill_session(self.process.pid)
        self.process.wait()
        os.close(self.out)
        os.close(self.err)


@pytest.fixture
def piped(tmp_path):
    started = []

    def start(*arguments, **options):
        started.append(Piped(tmp_path, *arguments, **options))
        started[-1].wait_serves()
        return started[-1]

    yield start
    for one in started:
        one.close()


def many_requests(one, count=1500, target="/", patience=10):
    """On one connection, a hundred at a time; returns the longest wait for a hundred."""
    longest = 0.0
    with Client(one.address, patience) as client:
        for _ in range(count // 100):
            began = time.monotonic()
            client.send(encode_request("GET", target) * 100)
            for _ in range(100):
                assert client.read_response().status in (200, 500)
            longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.parametrize("threads", ["1", "3"])
def test_an_access_log_that_nobody_reads_stalls_no_request(piped, threads):
    """Six times what a pipe holds; and when somebody reads, lines are whole."""
    one = piped("--access-logfile", "-", "--threads", threads)
    assert many_requests(one, 4000, "/" + "x" * 60) < 3
    with Client(one.address, 5) as client:
        client.request("GET", "/after")
    wait_until(lambda: "GET /after" in one.text(one.out), "the last line")
    lines = one.text(one.out).splitlines()
    assert all(re.search(r'"GET /(x{60}|quiet|after) HTTP/1.1" 200 ', line) for line in lines), "whole lines"


def test_the_lines_that_were_kept_come_when_somebody_reads(piped):
    """At once, and not only when there are more."""
    one = piped("--access-logfile", "-", "--threads", "2")
    many_requests(one, 4000, "/" + "x" * 60)
    wait_until(lambda: len(one.text(one.out).splitlines()) > 3900, "what was kept", 3)


def test_lines_that_find_no_room_are_counted_and_said_once(piped):
    one = piped("--access-logfile", "-", "--threads", "2")
    # More than any pipe and a megabyte beside it.
    many_requests(one, 9000, "/" + "x" * 400)
    wait_until(lambda: one.text(one.out) and "dropped" in one.text(one.err), "it is said", 4)
    many_requests(one, 100)
    one.text(one.out, 1.2)
    assert len(re.findall("dropped", one.text(one.err))) <= 2


def test_lines_that_find_no_room_are_in_the_metrics(piped, tmp_path):
    one = piped("--access-logfile", "-", "--admin-bind", f"unix:{tmp_path}/admin")
    many_requests(one, 9000, "/" + "x" * 400)

    def dropped():
        with Client(f"{tmp_path}/admin", 5) as client:
            text = client.request("GET", "/metrics").text
        found = re.findall(r"^ferricorn_(?=\w*log)\w*dropped\w*(?:\{[^}]*\})? (\d+)$", text, re.MULTILINE)
        return sum(map(int, found))

    wait_until(lambda: dropped() > 1000, "the figure", 4)


@pytest.mark.parametrize("target", ["/errors", "/raise", "/logger"])
def test_an_error_log_that_nobody_reads_stalls_no_request_of_others(piped, target):
    """The application writes to `wsgi.errors`, raises, or uses gunicorn's logger. What it prints is its own."""
    one = piped("--threads", "2")
    if target == "/raise":
        # Each ends its connection.
        for _ in range(300):
            with Client(one.address, 5) as client:
                assert client.request("GET", target).status == 500
    else:
        many_requests(one, 1000, target)
    assert many_requests(one, 100, "/quiet") < 3


def test_the_master_acts_although_its_log_is_full(piped, tmp_path):
    """It says something of each signal."""
    one = piped("--admin-bind", f"unix:{tmp_path}/admin", "--access-logfile", "-", "--log-level", "debug")
    many_requests(one, 2000, "/errors")
    for _ in range(300):
        os.kill(one.process.pid, signal.SIGUSR1)
        os.kill(one.process.pid, signal.SIGTTIN)
        os.kill(one.process.pid, signal.SIGTTOU)
        began = time.monotonic()
        with Client(f"{tmp_path}/admin", 5) as client:
            assert client.request("GET", "/live").status == 200
        assert time.monotonic() - began < 2
    os.kill(one.process.pid, signal.SIGTERM)
    assert one.process.wait(10) == 0


def test_a_stop_does_not_wait_for_a_log_that_nobody_reads(piped):
    one = piped("--access-logfile", "-", "--graceful-timeout", "2")
    many_requests(one, 3000)
    os.kill(one.process.pid, signal.SIGTERM)
    assert one.process.wait(8) == 0


def test_workers_that_are_replaced_boot_although_the_log_is_full(piped):
    one = piped("--access-logfile", "-", "--threads", "2")
    with Client(one.address, 8) as client:
        before = client.request("GET", "/pid").text
    many_requests(one, 2000, "/errors")
    os.kill(one.process.pid, signal.SIGHUP)

    def other():
        with contextlib.suppress(OSError, Disconnected), Client(one.address, 3) as client:
            return client.request("GET", "/pid").text != before

    wait_until(other, "another worker", 8)


def test_a_pipe_whose_reader_has_gone_stalls_and_ends_nobody(piped):
    one = piped("--access-logfile", "-", "--threads", "2")
    reader, one.out = one.out, os.open("/dev/null", os.O_RDONLY)
    os.close(reader)
    assert many_requests(one, 500) < 3
    assert one.process.poll() is None


@pytest.mark.parametrize("which", ["--access-logfile", "--error-logfile"])
def test_a_fifo_that_nobody_reads_stalls_nobody(piped, tmp_path, which):
    """It had a reader at the start, which then stood still."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    one = piped(which, str(path), "--threads", "2")
    assert many_requests(one, 2000, "/errors") < 5
    assert many_requests(one, 500, "/quiet") < 3
    os.kill(one.process.pid, signal.SIGTERM)
    assert one.process.wait(8) == 0
    os.close(reader)


def test_captured_output_that_nobody_reads_stalls_no_loop(piped, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    one = piped("--error-logfile", str(path), "--capture-output", "--health-path", "/-/health", "--threads", "2")
    with contextlib.suppress(TimeoutError):
        many_requests(one, 1000, "/stderr", patience=2)
    with Client(one.address, 3) as client:
        assert client.request("GET", "/-/health/live").status == 200
    os.close(reader)


def test_a_server_whose_streams_are_closed_serves(tmp_path):
    """As some supervisors start it: no standard stream at all."""
    path = tmp_path / "s"
    arguments = ["--access-logfile", "-", "-b", f"unix:{path}", "hello:app"]
    closed = subprocess.Popen(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND, *arguments],
        cwd=APPS, start_new_session=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    try:

        def answers():
            with contextlib.suppress(OSError, Disconnected), Client(str(path), 2) as client:
                return client.request("GET", "/").text == "Hello, World!\n"

        wait_until(answers, "it serves")
        for _ in range(50):
            assert answers()
        closed.send_signal(signal.SIGTERM)
        assert closed.wait(8) == 0
    finally:
        kill_session(closed.pid)
        closed.wait()
