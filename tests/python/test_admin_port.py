"""Liveness is answered whatever other visitors of the second address do: else a healthy server would be killed."""

from __future__ import annotations

import contextlib
import resource
import signal
import time

import pytest
from test_descriptors import cpu_seconds
from test_health import visit

from harness import descriptors, wait_until
from wire import Client

pytestmark = pytest.mark.ours

MANY = 100
"""More than the address has places for, and than its backlog."""


def address_of(one):
    found = one.log.wait(r"Health and figures at: http://127\.0\.0\.1:(\d+)$")
    return "127.0.0.1", int(found[0].group(1))


def seconds_to_live(one) -> float:
    """How long a probe takes that gives up after 4 s."""
    began = time.monotonic()
    try:
        with Client(address_of(one), 4) as client:
            assert client.request("GET", "/live").text == "alive\n"
    except (TimeoutError, OSError):
        return 4.0
    return time.monotonic() - began


@contextlib.contextmanager
def visitors(one, count, send=b"", receive_buffer=0):
    """Connections that have sent so much, and then do nothing. Those that are turned away are no fault."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = Client(address_of(one), 2, receive_buffer)
            stack.callback(client.close)
            with contextlib.suppress(OSError):
                client.send(send)
            clients.append(client)
        yield clients


SILENT = {
    "nothing": b"",
    "half a line": b"GET /li",
    "half a head": b"GET /live HTTP/1.1\r\nHost: a\r\n",
    "a line end": b"\r\n",
}


@pytest.mark.parametrize("said", SILENT.values(), ids=SILENT)
def test_visitors_that_idle_do_not_keep_a_probe_waiting(server, said):
    one = server("hello:app", "--admin-bind", "127.0.0.1:0")
    with visitors(one, MANY, said):
        assert max(seconds_to_live(one) for _ in range(5)) < 1


def test_visitors_that_do_not_read_do_not_keep_a_probe_waiting(server):
    one = server("hello:app", "--admin-bind", "127.0.0.1:0")
    with visitors(one, MANY, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", receive_buffer=1024):
        assert max(seconds_to_live(one) for _ in range(5)) < 1


def test_visitors_that_ask_all_the_time_do_not_keep_a_probe_waiting(server):
    one = server("hello:app", "--admin-bind", "127.0.0.1:0")
    with visitors(one, 30, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 50):
        assert max(seconds_to_live(one) for _ in range(5)) < 1


def test_a_probe_that_takes_its_time_is_answered_among_those_that_idle(server):
    """It is the idle ones that make room, and not who has begun to ask."""
    one = server("hello:app", "--admin-bind", "127.0.0.1:0")
    with visit(one) as probe:
        probe.send(b"GET /live HTTP/1.1\r\n")
        with visitors(one, MANY):
            assert seconds_to_live(one) < 1
            probe.send(b"Host: a\r\n\r\n")
            assert probe.read_response().text == "alive\n"


def test_visitors_that_idle_give_their_descriptors_to_a_probe(server):
    one = server("hello:app", "--admin-bind", "127.0.0.1:0")
    assert seconds_to_live(one) < 4
    limits = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    used = len(descriptors(one.pid))
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (used + 2, limits[1]))
    with visitors(one, 10):
        assert max(seconds_to_live(one) for _ in range(3)) < 2


def test_the_server_serves_while_its_second_address_is_flooded(server):
    """And the master acts on signals."""
    one = server("hello:app", "--admin-bind", "127.0.0.1:0")
    with visitors(one, MANY, b"GET /li"):
        began = time.monotonic()
        assert one.get("/").status == 200
        one.send_signal(signal.SIGTTIN)
        one.log.wait("Booting worker", 2)
        one.send_signal(signal.SIGTERM)
        assert one.wait_exit(5) == 0
        assert time.monotonic() - began < 5


def test_places_are_free_again_when_visitors_leave(server):
    one = server("hello:app", "--admin-bind", "127.0.0.1:0")
    with visitors(one, MANY):
        pass
    wait_until(lambda: seconds_to_live(one) < 1, "a quick answer", 10)


def test_a_master_without_a_descriptor_left_does_not_spin(server):
    """Visitors wait until there is one."""
    one = server("hello:app", "--admin-bind", "127.0.0.1:0")
    assert seconds_to_live(one) < 4
    limits = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (5, limits[1]))
    with visit(one) as probe:
        probe.send(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
        before, began = cpu_seconds(one.pid), time.monotonic()
        while time.monotonic() - began < 1:
            assert one.get("/").status == 200
            time.sleep(0.02)
        assert cpu_seconds(one.pid) - before < 0.1
        resource.prlimit(one.pid, resource.RLIMIT_NOFILE, limits)
        assert probe.read_response().text == "alive\n"
