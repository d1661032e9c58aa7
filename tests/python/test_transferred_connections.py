"""Connections that one worker has accepted for another: whatever becomes of that one, they are served."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import threading

import pytest
from test_health import figure

from harness import COMMAND, stop_process, wait_until
from wire import Disconnected, encode_request

pytestmark = [pytest.mark.ours, pytest.mark.slow]


@pytest.fixture
def two(server, gates):
    """Two workers that serve; the successors of either wait in their import until the gate `import` is open."""

    def start(*arguments, **options):
        one = server("transfers", "--admin-bind", "127.0.0.1:0", *arguments, workers=2, env={"FIRST": "2"}, **options)
        wait_until(lambda: figure(one, 'workers{state="serving"}') == 2, "both serve")
        return one

    yield start
    gates.open("import")


def test_connections_on_their_way_to_a_worker_that_dies_are_served_by_the_others(two, gates):
    """The successor is at its import, and the other worker has all its threads to spare."""
    one = two("--threads", "2")
    first, second = one.booted()
    # The first stands still, and nobody knows it yet; the second has more connections, so it passes new ones on.
    stop_process(first)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(one.connect(5)) for _ in range(12)]
        for client in clients:
            client.send(encode_request("GET", "/"))
        sockets = [client.socket for client in clients]
        wait_until(lambda: len(select.select(sockets, [], [], 0)[0]) >= 4, "some are answered", 5)
        os.kill(first, signal.SIGKILL)
        gates.wait_reached("import")
        for client in clients:
            assert client.read_response().text == str(second)


def ask_in_groups(one, count, patience=5):
    """Fifteen connections at a time; returns who answered, up to the first that nobody did."""
    served = []
    for _ in range(count // 15):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(one.connect(patience)) for _ in range(15)]
            for client in clients:
                client.send(encode_request("GET", "/", [("Connection", "close")]))
            for client in clients:
                try:
                    served.append(client.read_response().text)
                except (OSError, Disconnected):
                    return served
    return served


def both_are_given_connections(one):
    """Nothing is reserved for connections that never came."""
    wait_until(lambda: len(set(ask_in_groups(one, 30))) == 2, "both workers are given new connections", 10)


def test_connections_on_their_way_to_a_worker_without_descriptors_wait_and_are_served(two, gates):
    """Its application has them all for a while."""
    one = two("--threads", "2", command=("sh", "-c", 'ulimit -n 96; exec "$@"', "sh", *COMMAND))
    assert one.get("/hold?1").status == 200
    gates.wait_reached("exhausted")
    assert len(ask_in_groups(one, 300)) == 300
    both_are_given_connections(one)


def test_no_connection_is_lost_on_its_way_when_descriptors_run_out_at_any_moment(two):
    """The limit of both workers falls below what they have and rises again, a hundred thousand times a second. Each
    listener rests for a moment when it has no descriptor, so a group takes two seconds: late is not lost."""
    one = two("--threads", "2")
    workers, done = one.booted(), threading.Event()
    limits = resource.prlimit(workers[0], resource.RLIMIT_NOFILE)

    def flip():
        while not done.is_set():
            for pid in workers:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, limits[1]))
            for pid in workers:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        served = ask_in_groups(one, 120, patience=15)
    finally:
        done.set()
        thread.join()
    assert len(served) == 120
    both_are_given_connections(one)
