"""Logs that nobody reads, whatever runs the requests: threads, or greenlets whose hub must not stand still either."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack

import pytest
from test_stalled_logs import Piped, many_requests

from harness import HAS_GIL
from wire import Client

pytestmark = [pytest.mark.ours, pytest.mark.slow]

CLASSES = ["gthread", "gevent", "eventlet"]
KINDS = ["dgram", "stream", "unaccepted", "statsd", "fifo", "pipes"]


def socket_at(path, kind, stack):
    """Bound, and never read."""
    bound = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    bound.bind(str(path))
    return bound


def arguments_for(kind, tmp_path, stack):
    path = tmp_path / "log"
    if kind == "dgram":
        socket_at(path, socket.SOCK_DGRAM, stack)
    elif kind in ("stream", "unaccepted"):
        # With a backlog of none a second process does not even connect.
        socket_at(path, socket.SOCK_STREAM, stack).listen(16 if kind == "stream" else 0)
    elif kind == "statsd":
        socket_at(path, socket.SOCK_DGRAM, stack)
        return "--statsd-host", f"unix://{path}"
    elif kind == "fifo":
        os.mkfifo(path)
        stack.callback(os.close, os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return "--access-logfile", str(path), "--error-logfile", str(path)
    else:
        return "--access-logfile", "-"
    return "--log-syslog", "--log-syslog-to", f"unix://{path}#{'dgram' if kind == 'dgram' else 'stream'}"


@pytest.fixture(params=CLASSES)
def stalled(request, tmp_path):
    """Starts a server whose logs nobody reads; its standard streams are such pipes too."""
    if request.param != "gthread":
        if not HAS_GIL:
            pytest.skip("greenlets are not safe without a GIL")
        pytest.importorskip(request.param)
    with ExitStack() as stack:

        def start(kind):
            arguments = arguments_for(kind, tmp_path, stack)
            one = Piped(tmp_path, "-k", request.param, "--threads", "2", *arguments)
            stack.callback(one.close)
            one.wait_serves()
            return one

        yield start


@pytest.mark.parametrize("kind", KINDS)
def test_no_request_and_no_other_client_waits_for_a_log_that_nobody_reads(stalled, kind):
    one = stalled(kind)
    with Client(one.address, 10) as other:
        for target in ("/errors", "/logger", "/" + "x" * 2000):
            assert many_requests(one, 1500, target) < 3
            began = time.monotonic()
            assert other.request("GET", "/quiet").status == 200
            assert time.monotonic() - began < 1
    one.process.terminate()
    assert one.process.wait(10) == 0
