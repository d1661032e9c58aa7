"""Responses that their clients do not read: what a worker holds of them is bounded, and the others do not notice."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import time
from pathlib import Path

import pytest
from test_files import resident_kib
from test_health import ask

from harness import APPS, COMMAND, PATIENCE_S, wait_until
from wire import Client, Disconnected

pytestmark = pytest.mark.ours

sys.path.insert(0, str(APPS))
from bodies import made  # noqa: E402

APP = "bodies"
MIB = 1 << 20
CLIENTS = 48


@contextlib.contextmanager
def that_do_not_read(one, targets, version="HTTP/1.1"):
    """Clients that have asked, and have room for next to nothing."""
    with contextlib.ExitStack() as stack:
        clients = []
        for target in targets:
            client = Client(one.address, PATIENCE_S, receive_buffer=4096)
            stack.callback(client.close)
            client.send_request("GET", target, version=version)
            clients.append(client)
        yield clients


def read_body(client, size):
    """With room for more, or it would take its time."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
    assert client.read_head().status == 200
    return client.read_exactly(size)


def made_targets(count, size, shape="list", more=""):
    return [f"/made?size={size}&shape={shape}&seed={number}{more}" for number in range(count)]


def settled_growth(worker, before, seconds=1.5):
    """The most that the worker holds more than before, in MiB, in some time in which requests are made."""
    most, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        most = max(most, resident_kib(worker) - before)
        time.sleep(0.01)
    return most // 1024


def started(server, *arguments, **options):
    one = server(APP, "--threads", "4", *arguments, **options)
    assert one.get("/").status == 200
    (worker,) = one.workers()
    return one, worker, resident_kib(worker)


@pytest.mark.parametrize("shape", ["list", "pieces", "write"])
def test_responses_that_are_not_read_hold_a_bounded_amount_of_memory(server, shape):
    """384 MiB are asked for."""
    one, worker, before = started(server)
    with that_do_not_read(one, made_targets(CLIENTS, 8 * MIB, shape)):
        assert settled_growth(worker, before) < 192


@pytest.mark.parametrize(("shape", "count"), [("list", 12), ("pieces", 12), ("write", 3), ("stream", 3)])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_who_reads_at_last_gets_all_of_it(server, shape, count, version):
    """Whatever became of the bytes meanwhile: they are the client's own, in order."""
    one, _, _ = started(server)
    with that_do_not_read(one, made_targets(count, 8 * MIB, shape), version) as clients:
        assert one.get("/").status == 200
        for number in reversed(range(count)):
            assert read_body(clients[number], 8 * MIB) == made(8 * MIB, number)


def test_other_clients_are_served_as_before(server):
    """More responses that nobody reads than there are threads, and more bytes than there is room for."""
    one, _, _ = started(server)
    with that_do_not_read(one, made_targets(CLIENTS, 8 * MIB)), one.connect() as client:
        waits = []
        for _ in range(100):
            began = time.monotonic()
            assert client.request("GET", "/").status == 200
            waits.append(time.monotonic() - began)
        waits.sort()
        # All 48 may be in the application when the first one asks.
        assert waits[97] < 0.5 and waits[-1] < 5


def test_other_large_responses_are_served_to_those_who_read(server):
    """The budget is not the readers' loss."""
    one, worker, before = started(server)
    with that_do_not_read(one, made_targets(CLIENTS - 4, 8 * MIB)):
        for number in range(4):
            began = time.monotonic()
            assert one.get(f"/made?size={4 * MIB}&seed={number}").body == made(4 * MIB, number)
            assert time.monotonic() - began < 5
        assert settled_growth(worker, before, 0.3) < 192


def test_memory_and_files_are_given_back_when_they_leave(server):
    one, worker, before = started(server)

    def descriptors():
        return len(list(Path(f"/proc/{worker}/fd").iterdir()))

    few = descriptors()
    with that_do_not_read(one, made_targets(CLIENTS, 8 * MIB)):
        assert settled_growth(worker, before, 1) < 192
    wait_until(lambda: descriptors() <= few + 2, "their descriptors")
    assert one.get("/").status == 200
    wait_until(lambda: resident_kib(worker) - before < 64 * 1024, "their memory")


FIGURE = r"^(ferricorn_(?=\w*(?:response|outgoing|unsent|unread|write|send))\w*bytes\w*)(?:\{[^}]*\})? (\d\S*)$"


def test_the_bytes_that_wait_for_their_clients_are_in_the_metrics(server):
    """A gauge: some while they wait, none when they have left."""
    one, _, _ = started(server, "--admin-bind", "127.0.0.1:0")

    def figures():
        return {name: float(value) for name, value in re.findall(FIGURE, ask(one, "/metrics").text, re.MULTILINE)}

    idle = figures()
    with that_do_not_read(one, made_targets(8, 8 * MIB)):
        name = wait_until(lambda: [key for key, value in figures().items() if value - idle.get(key, 0) >= MIB], "it", 3)
    wait_until(lambda: any(figures()[key] == idle[key] for key in name), "nothing waits", 5)


def test_a_client_that_pipelines_and_does_not_read_holds_one_response(server):
    one, worker, before = started(server)
    with Client(one.address, PATIENCE_S, receive_buffer=4096) as client:
        client.send(b"GET /made?size=1000000 HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        assert settled_growth(worker, before, 0.5) < 32
        assert one.get("/").status == 200


def test_no_room_on_the_disk_costs_no_worker_and_no_wrong_byte(server):
    """If responses go to files: those that cannot be written are sent from memory, waited for, or cut."""
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
    one = server(APP, "--threads", "4", command=limited)
    (worker,) = one.workers()
    with that_do_not_read(one, made_targets(12, 8 * MIB)) as clients:
        assert one.get("/").status == 200
        for number, client in enumerate(clients):
            with contextlib.suppress(Disconnected):
                assert read_body(client, 8 * MIB) == made(8 * MIB, number)
    assert one.workers() == [worker]
    assert "panicked" not in one.log.text


def test_a_stop_does_not_wait_for_those_who_do_not_read(server):
    one, _, _ = started(server, "--graceful-timeout", "1")
    with that_do_not_read(one, made_targets(24, 8 * MIB)):
        assert one.get("/").status == 200
        one.send_signal(15)
        assert one.wait_exit(6) == 0
