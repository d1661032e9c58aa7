"""A process that runs out of file descriptors pauses and resumes; it loses nobody, does not spin, and says it once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness import COMMAND

pytestmark = pytest.mark.ours

FEW = ("sh", "-c", 'ulimit -n 72; exec "$@"', "sh", *COMMAND)
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS_PER_SECOND


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_beyond_the_limit_of_descriptors_wait_and_are_served(server, workers):
    """All that are in have a request under way, so that none of them makes room."""
    one = server("shares", "--threads", "2", command=FEW, workers=workers)
    clients = []
    for number in range(150):
        client = one.connect()
        clients.append(client)
        client.send_request("GET", "/?2.5" if number < 8 else "/")
    one.log.wait(r"Accepting no new connections for a moment: .*ulimit -n")
    # Those that are in wait for a thread; the others wait, and cost nothing.
    pids = one.workers()
    before, began = sum(cpu_seconds(pid) for pid in pids), time.monotonic()
    while time.monotonic() - began < 1:
        time.sleep(0.1)
    assert sum(cpu_seconds(pid) for pid in pids) - before < 0.4, "nothing spins"
    for client in clients:
        assert client.read_response().status == 200
        client.close()
    assert one.get("/").status == 200
    assert len(one.log.wait(r"Accepting no new connections for a moment")) <= workers, "once per worker"


@pytest.mark.parametrize("workers", [1, 2])
def test_idle_connections_make_room_where_there_are_no_more_descriptors(server, workers):
    """As at `worker_connections`: none of them leaves by itself for `keepalive`."""
    one = server("shares", "--threads", "2", command=FEW, workers=workers)
    clients = [one.connect() for _ in range(200)]
    began = time.monotonic()
    for client in clients:
        client.send_request("GET", "/")
    for client in clients:
        assert client.read_response().status == 200
    assert time.monotonic() - began < 8
    assert clients[-1].request("GET", "/").status == 200, "the youngest stays"
    assert len(one.log.wait(r"ulimit -n")) <= workers, "once per worker"
