"""What applications may rely on where requests are greenlets. gunicorn's own worker of gevent passes these too."""

from __future__ import annotations

import os
import signal
import time

import pytest

from harness import HAS_GIL, IS_OURS, Finished, wait_until
from wire import Disconnected

pytestmark = pytest.mark.skipif(not HAS_GIL, reason="greenlets are not safe without a GIL")
APP = "green_world"


def together(one, targets: list[str]) -> list[str]:
    """Asked at once, each on a connection of its own."""
    clients = []
    for target in targets:
        client = one.connect()
        client.send_request("GET", target)
        clients.append(client)
    texts = []
    for client in clients:
        with client:
            texts.append(client.read_response().text)
    return texts


def test_what_threads_wait_with_greenlets_wait_with(green, gates):
    one = green()
    assert sorted(map(int, together(one, ["/lock"] * 40))) == list(range(1, 41))
    assert together(one, ["/recursive"] * 10) == ["ok"] * 10
    assert max(map(int, together(one, ["/semaphore"] * 30))) == 5
    assert together(one, ["/barrier"] * 5) == ["met"] * 5
    assert together(one, [*["/event?wait"] * 10, "/event?set"]) == ["True"] * 10 + ["None"]
    assert sorted(together(one, ["/get"] * 3 + [f"/put?{number}" for number in range(3)])[:3]) == ["0", "1", "2"]
    waiting = one.connect()
    waiting.send_request("GET", "/condition")
    gates.wait_notes("condition")
    assert one.get("/notify").text == "notified"
    assert waiting.read_response().text == "True"
    waiting.close()
    assert one.stop() == 0


@pytest.mark.ours
def test_a_wakeup_descriptor_of_the_application_goes_on_to_work(green, gates):
    one = green(app="handlers", env={"HANDLER": "wakeup"})
    os.kill(int(one.get("/").text), signal.SIGUSR2)
    assert gates.wait_notes("usr2") == [str(int(signal.SIGUSR2))]
    assert str(int(signal.SIGUSR2)) in gates.wait_notes("woken")
    # The application's thread reads it in its own time: the worker is kept meanwhile.
    with one.connect() as busy:
        busy.send_request("GET", "/?busy")
        gates.wait_reached("busy")
        one.send_signal(signal.SIGTERM)
        wait_until(lambda: str(int(signal.SIGTERM)) in gates.notes("woken"), "the descriptor is written")
        gates.open("busy")
        assert busy.read_response().status == 200
    assert one.wait_exit() == 0


@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["worker", "preload"])
def test_threads_children_signals_and_timeouts_are_there(green, arguments):
    one = green(*arguments)
    for target, text in {
        "/imported": "greenlet thread",
        "/thread": "ran",
        "/executor": "28",
        "/child": "from a child",
        "/fork": "7",
        "/names": "127.0.0.1",
        "/selected": "1",
        "/alarm": "rang",
        "/timed_out": "timed out",
        "/silent": "silent",
        "/many": "50",
        "/finalizer": "ok",
        "/written": "0 1 2 end",
        "/ends_alone": "ok",
        "/logged": "ok",
    }.items():
        assert (target, one.get(target).text) == (target, text)
    one.log.wait("ValueError: on purpose")
    one.log.wait("from the application")
    one.output.wait("printed")
    assert one.stop() == 0


def test_what_is_streamed_is_the_greenlets_own_and_closed(green, gates):
    one = green()
    texts = together(one, [f"/variable?{number}" for number in range(20)])
    assert texts == [f"{number} " * 5 for number in range(20)]
    assert together(one, ["/closed"] * 5) == ["xxx"] * 5
    gates.wait_notes("closed", 5)
    with one.connect() as client:
        client.send_request("GET", "/endless")
        client.read_until(b"data: x\n\n")
        client.reset()
    gates.wait_notes("endless")
    assert one.stop() == 0


@pytest.mark.parametrize("view", ["broken_off", "killed"])
def test_a_response_that_breaks_off_is_not_taken_for_whole(green, view):
    one = green()
    with one.connect() as client, pytest.raises(Disconnected):
        client.send_request("GET", f"/{view}")
        client.read_response()
    if IS_OURS:
        one.log.wait("ValueError: late" if view == "broken_off" else "GreenletExit")
        one.log.wait("was aborted after 6 bytes of its body")
    assert one.stop() == 0


@pytest.mark.parametrize("how", ["green", "plain", "chained"])
@pytest.mark.parametrize("name", ["SIGUSR2", "SIGHUP", "SIGWINCH", "SIGUSR1"])
def test_the_applications_handlers_of_signals_are_called_and_the_worker_serves_on(green, gates, how, name):
    one = green(env={"GREEN_SIGNAL": f"{how}:{name}"})
    worker = one.get("/pid").text
    with one.connect() as client:
        client.send_request("GET", "/slept?0.3")
        os.kill(int(worker), getattr(signal, name))
        gates.wait_notes("signal")
        assert client.read_response().text == "slept"
    assert one.get("/pid").text == worker
    assert one.stop() == 0


@pytest.mark.parametrize("how", ["green", "plain", "chained"])
def test_a_worker_whose_application_handles_term_is_stopped_all_the_same(green, gates, how):
    one = green("--graceful-timeout", "3", env={"GREEN_SIGNAL": f"{how}:SIGTERM"})
    # A worker with nothing to do leaves at once; what the handler starts may not be over then.
    with one.connect() as client:
        assert client.request("GET", "/pid").status == 200
        client.send_request("GET", "/slept?0.5")
        one.send_signal(signal.SIGTERM)
        gates.wait_notes("signal")
        assert client.read_response().text == "slept"
    assert one.wait_exit(5) == 0


def test_a_worker_that_ends_itself_finishes_its_requests_and_is_replaced(green, gates):
    one = green()
    worker = one.get("/pid").text
    assert together(one, ["/raise_signal?SIGTERM", "/slept?0.5"]) == ["after", "slept"]
    gates.wait_notes("atexit")
    wait_until(lambda: one.get("/pid").text != worker, "another worker answers")
    assert one.stop() == 0


@pytest.mark.ours
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["quit", "int"])
def test_the_hook_of_a_worker_that_leaves_runs_in_a_greenlet(green, gates, tmp_path, number):
    conf = tmp_path / "conf.py"
    conf.write_text(
        "def worker_int(worker):\n"
        "    import gate, greenlets\n"
        "    hub = greenlets.getcurrent().parent\n"
        "    greenlets.sleep(0.05)\n"
        "    gate.note('hook', f'{hub is not None} {type(worker).__name__}')\n"
    )
    one = green("-c", str(conf))
    assert one.get("/pid").status == 200
    os.kill(one.workers()[0], number)
    kind = gates.wait_notes("hook")[0].split()
    assert kind[0] == "True"
    assert kind[1].endswith("Worker")
    assert one.stop() == 0


@pytest.mark.slow
@pytest.mark.ours
def test_the_hook_of_a_worker_whose_hub_is_blocked_is_called_by_the_loop(server, gates, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text("def worker_abort(worker):\n    import gate\n    gate.note('hook', 'called')\n")
    one = server("green", "-k", "gevent", "-c", str(conf), "--timeout", "2")
    with one.connect() as client:
        client.send_request("GET", "/spins?60")
        gates.wait_reached("spins")
        gates.wait_notes("hook")
    one.log.wait("WORKER TIMEOUT")
    assert one.stop() == 0


def test_greenlets_of_the_application_live_while_requests_do_and_hold_no_stop_up(green, gates):
    one = green("--graceful-timeout", "30")
    assert one.get("/background?0.5").text == "spawned"
    held = one.connect()
    held.send_request("GET", "/held?held")
    gates.wait_reached("held")
    one.send_signal(signal.SIGTERM)
    assert gates.wait_notes("background", 2)[-1] == "done"
    gates.open("held")
    assert held.read_response().text == "let go"
    held.close()
    assert one.wait_exit() == 0
    assert gates.notes("atexit") == ["ran"]

    one = green("--graceful-timeout", "30")
    assert one.get("/background?60").text == "spawned"
    begun = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - begun < 15


def test_websockets_wait_together(green, gates):
    import websocket

    one = green()
    address = f"ws://127.0.0.1:{one.port}/websocket"
    peers = [websocket.create_connection(address, timeout=20) for _ in range(20)]
    for number, peer in enumerate(peers):
        peer.send(str(number))
        assert peer.recv() == str(number) * 2
        assert one.get("/pid").status == 200
    for peer in peers:
        peer.close()
    gates.wait_notes("websocket", 20)
    assert one.stop() == 0


def test_websockets_by_tls_wait_together(green, gates, tmp_path):
    import trustme
    import websocket

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate")
    authority.cert_pem.write_to_path(tmp_path / "authority")
    one = green("--keyfile", str(tmp_path / "key"), "--certfile", str(tmp_path / "certificate"))
    address = f"wss://localhost:{one.port}/websocket"
    trust = {"ca_certs": str(tmp_path / "authority")}
    peers = [websocket.create_connection(address, timeout=20, sslopt=trust) for _ in range(10)]
    for number, peer in enumerate(peers):
        peer.send(str(number))
        assert peer.recv() == str(number) * 2
    peers[0].send("x" * 200_000)
    assert len(peers[0].recv()) == 400_000
    for peer in peers:
        peer.close()
    gates.wait_notes("websocket", 10)
    one.stop()


SOCKETIO = """
from flask import Flask
from flask_socketio import SocketIO, emit

app = Flask(__name__)
socketio = SocketIO(app, async_mode="{mode}")

@socketio.on("twice")
def twice(text):
    emit("answer", text * 2)

@socketio.on("later")
def later(text):
    socketio.start_background_task(lambda: (socketio.sleep(0.05), socketio.emit("answer", text)))
"""


def talk_socketio(one) -> None:
    import socketio

    for transports in (["polling"], ["websocket"], ["polling", "websocket"]):
        client = socketio.SimpleClient()
        client.connect(f"http://127.0.0.1:{one.port}", transports=transports)
        client.emit("twice", "ab")
        assert client.receive(timeout=20) == ["answer", "abab"]
        client.emit("later", "x")
        assert client.receive(timeout=20) == ["answer", "x"]
        assert client.transport == transports[-1]
        client.disconnect()


def test_flask_socketio_by_both_transports(green, library, tmp_path):
    (tmp_path / "site_green.py").write_text("import os\n" + SOCKETIO.replace('"{mode}"', 'os.environ["GREEN"]'))
    # Where gevent-websocket is installed, Flask-SocketIO wants its worker.
    (tmp_path / "geventwebsocket.py").write_text("raise ImportError")
    # Engine.IO closes a websocket in one greenlet while another may wait in its `recv`, which eventlet never wakes.
    # Then the stop has to cut that request: in 3 of 88 runs.
    patience = ("--graceful-timeout", "3") if library == "eventlet" else ()
    one = green(*patience, app="site_green:app", cwd=tmp_path)
    talk_socketio(one)
    assert one.stop() == 0


GEVENT_WEBSOCKET = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"


def test_gevent_websockets_worker_upgrades_what_asks_for_it(server, gates):
    import websocket

    one = server("green_world", "-k", GEVENT_WEBSOCKET)
    address = f"ws://127.0.0.1:{one.port}/library_websocket"
    peers = [websocket.create_connection(address, timeout=20) for _ in range(10)]
    for number, peer in enumerate(peers):
        peer.send(str(number))
        assert peer.recv() == str(number) * 2
        assert one.get("/library_websocket").text == "no websocket"
    peers[0].send("x" * 100_000)
    assert len(peers[0].recv()) == 200_000
    for peer in peers:
        peer.close()
    gates.wait_notes("library", 10)
    with one.connect() as client:
        fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "1")]
        response = client.request("GET", "/library_websocket", fields)
    assert response.status == 400
    assert "7" in response.header("Sec-WebSocket-Version").split(", ")
    assert one.stop() == 0
    assert "Traceback" not in one.log.text


def test_flask_socketio_on_gevent_websockets_worker(server, tmp_path):
    (tmp_path / "site_gevent.py").write_text(SOCKETIO.format(mode="gevent"))
    one = server("site_gevent:app", "-k", GEVENT_WEBSOCKET, cwd=tmp_path)
    talk_socketio(one)
    assert one.stop() == 0


@pytest.mark.ours
def test_a_missing_gevent_websocket_is_one_line(tmp_path):
    lines = [
        "import importlib.util as util",
        "real = util.find_spec",
        "util.find_spec = lambda name, *rest: None if name == 'geventwebsocket' else real(name, *rest)",
    ]
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    ended = Finished(["-k", GEVENT_WEBSOCKET, "green"], env={"PYTHONPATH": str(tmp_path)})
    assert ended.code == 1
    assert "gevent-websocket is not installed: pip install gevent-websocket" in " ".join(ended.error.split())


LOGGER = """
import logging, time
from gunicorn.glogging import Logger

class Slow(logging.StreamHandler):
    def emit(self, record):
        time.sleep(0.002)
        super().emit(record)

class logger_class(Logger):
    def setup(self, cfg):
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers = [Slow()]
        self.access_log.setLevel(logging.INFO)

accesslog = "-"
"""


@pytest.mark.ours
def test_a_logger_that_waits_with_its_lock_loses_no_line(green, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text(LOGGER)
    one = green("-c", str(conf), ready=False)
    one.log.wait("Booting worker with pid")
    listening = one.log.wait(r"Listening at: http://127\.0\.0\.1:(\d+)")[0].group(1)
    one.address = ("127.0.0.1", int(listening))
    for _ in range(3):
        broken = [one.connect() for _ in range(10)]
        for client in broken:
            client.send(b"BROKEN\r\n\r\n")
        assert together(one, ["/slept?0.02"] * 40) == ["slept"] * 40
        for client in broken:
            with client:
                assert client.read_response().status == 400
    one.log.wait('"GET /slept', 120)
    # The event loop's lines go by another thread.
    one.log.wait("Invalid request from ip", 30)
    assert one.stop() == 0


@pytest.mark.ours
def test_a_class_in_the_configuration_file_is_what_its_name_is(tmp_path, server):
    conf = tmp_path / "conf.py"
    conf.write_text(
        "from gunicorn.workers.ggevent import GeventWorker\nworker_class = GeventWorker\n"
        "def post_worker_init(worker):\n    print('made', type(worker).__name__, flush=True)\n"
    )
    one = server("-c", str(conf), "green")
    one.output.wait("^made GeventWorker$")
    assert one.get("/state").text.split()[1] == "True"
    assert one.stop() == 0
