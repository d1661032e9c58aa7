"""Workers of greenlets that are replaced while requests run: USR2, `max_requests`, `max_worker_memory`; flask-sock."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import HAS_GIL, session_members, wait_until
from wire import Client

pytestmark = pytest.mark.skipif(not HAS_GIL, reason="greenlets are not safe without a GIL")


@pytest.fixture(params=["gevent", pytest.param("eventlet", marks=[pytest.mark.ours, pytest.mark.slow])])
def green(request, server):
    """`green("--preload")`: a server whose requests are greenlets of one library."""

    def start(*arguments, app="green", env=None, **options):
        return server("-k", request.param, *arguments, app, env={"GREEN": request.param, **(env or {})}, **options)

    return start


def held(one, gates, names: list[str]) -> list[Client]:
    """Requests that run until their gates open."""
    clients = []
    for name in names:
        client = one.connect()
        client.send_request("GET", f"/held?{name}")
        clients.append(client)
    for name in names:
        gates.wait_reached(name)
    return clients


def let_go(gates, names: list[str], clients: list[Client]) -> None:
    for name in names:
        gates.open(name)
    for client in clients:
        with client:
            assert client.read_response().text == "let go"


@pytest.mark.ours
@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["worker", "preload"])
def test_an_upgrade_finishes_the_greenlets_of_the_old_master(green, gates, arguments):
    one = green(*arguments, "--graceful-timeout", "60", workers=2)
    old = set(map(str, one.workers()))
    names = [f"old{number}" for number in range(20)]
    clients = held(one, gates, names)
    one.send_signal(signal.SIGUSR2)
    new = int(one.log.wait(r"Listening at: .+ \((\d+)\)$", 2)[1].group(1))
    try:
        one.log.wait("Booting worker", 4)
        os.kill(one.pid, signal.SIGTERM)
        wait_until(lambda: one.get("/pid").text not in old, "a worker of the new master answers")
        assert one.get("/state").text.split()[:3] == ["True", "True", "True"]
        assert old & set(map(str, session_members(one.pid))), "the old workers finish what runs"
        let_go(gates, names, clients)
        assert one.wait_exit() == 0
        one.log.wait("Master has been promoted.")
        later = ["new0", "new1"]
        let_go(gates, later, held(one, gates, later))
    finally:
        os.kill(new, signal.SIGTERM)
    wait_until(lambda: not session_members(one.pid), "everything is gone")
    assert "WORKER TIMEOUT" not in one.log.text


@pytest.mark.ours
def test_a_worker_that_has_had_max_requests_finishes_its_greenlets(green, gates):
    one = green("--max-requests", "30", "--graceful-timeout", "60")
    old = one.get("/pid").text
    names = [str(number) for number in range(10)]
    clients = held(one, gates, names)
    seen = set()

    def is_replaced() -> bool:
        seen.add(one.get("/pid").text)
        return bool(seen - {old})

    wait_until(is_replaced, "another worker answers")
    assert old in map(str, session_members(one.pid)), "the old one finishes what runs"
    let_go(gates, names, clients)
    wait_until(lambda: old not in map(str, session_members(one.pid)), "the old worker is gone")
    assert one.stop() == 0


@pytest.mark.ours
def test_a_worker_that_holds_too_much_memory_finishes_its_greenlets(green, gates):
    one = green("--max-worker-memory", "200", "--graceful-timeout", "60")
    old = one.get("/pid").text
    clients = held(one, gates, ["first", "second"])
    assert one.get("/hoard?250").text == "hoarded"
    one.log.wait(rf"Worker \(pid:{old}\) holds \d+ MiB, more than 200 \(max_worker_memory\)")
    wait_until(lambda: one.get("/pid").text != old, "another worker answers")
    assert old in map(str, session_members(one.pid)), "the old one finishes what runs"
    let_go(gates, ["first", "second"], clients)
    wait_until(lambda: old not in map(str, session_members(one.pid)), "the old worker is gone")
    assert one.stop() == 0


FLASK_SOCK = """
from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)

@sock.route("/twice")
def twice(peer):
    while True:
        peer.send(peer.receive() * 2)

@sock.route("/count")
def count(peer):
    for number in range(3):
        peer.send(str(number))

@app.get("/plain")
def plain():
    return "plain"
"""


def test_flask_sock_has_a_greenlet_for_each_client(green, tmp_path: Path):
    import websocket

    (tmp_path / "site_sock.py").write_text(FLASK_SOCK)
    one = green(app="site_sock:app", cwd=tmp_path)
    address = f"ws://127.0.0.1:{one.port}"
    peers = [websocket.create_connection(f"{address}/twice", timeout=20) for _ in range(20)]
    for number, peer in enumerate(peers):
        peer.send(str(number))
        assert peer.recv() == str(number) * 2
        assert one.get("/plain").text == "plain"
    peers[0].send("x" * 100_000)
    assert len(peers[0].recv()) == 200_000
    counting = websocket.create_connection(f"{address}/count", timeout=20)
    assert [counting.recv() for _ in range(3)] == ["0", "1", "2"]
    # The view has returned, so its socket is closed with a frame that says so.
    assert counting.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
    for peer in [*peers, counting]:
        peer.close()
    assert one.get("/plain").text == "plain"
    assert one.stop() == 0
    assert "Traceback" not in one.log.text
