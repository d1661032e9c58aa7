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
    one = server("shares", "--threads", "2", command=FEW, workers=workers)
    clients = [one.connect() for _ in range(150)]
    for client in clients:
        client.send_request("GET", "/")
    one.log.wait(r"No new connections for a moment: .*ulimit -n")
    # Those that are in are served; the others wait, and cost nothing.
    served = [client for client in clients[:10] if client.read_response().status == 200]
    assert served
    pids = one.workers()
    before, began = sum(cpu_seconds(pid) for pid in pids), time.monotonic()
    while time.monotonic() - began < 1:
        assert served[0].request("GET", "/").status == 200, "accepted connections are served"
        time.sleep(0.1)
    assert sum(cpu_seconds(pid) for pid in pids) - before < 0.4, "nothing spins"
    # Each client that leaves makes room for one that waits.
    for client in served:
        client.close()
    for client in clients[10:]:
        assert client.read_response().status == 200
        client.close()
    assert one.get("/").status == 200
    assert len(one.log.wait(r"No new connections for a moment")) <= workers, "once per worker"
