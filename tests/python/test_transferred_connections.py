"""Connections that one worker has accepted for another: whatever becomes of that one, they are served."""

from __future__ import annotations

import contextlib
import os
import select
import signal

import pytest
from test_health import figure

from harness import wait_until
from wire import encode_request

pytestmark = pytest.mark.ours


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
    os.kill(first, signal.SIGSTOP)
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
