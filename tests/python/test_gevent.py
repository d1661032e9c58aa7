"""`-k gevent`: one greenlet per request, on the worker's main thread, behind the same event loop."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from harness import IS_OURS, Finished, wait_until
from wire import Client, Disconnected

GEVENT = ("-k", "gevent")
BOTH = pytest.mark.parametrize(
    "arguments",
    [
        GEVENT,
        # gunicorn patches in its workers, after the import.
        pytest.param((*GEVENT, "--preload"), marks=pytest.mark.ours),
    ],
    ids=["worker", "preload"],
)


def asked(one, targets: list[str]) -> list[Client]:
    """A connection with a request under way for each."""
    clients = []
    for target in targets:
        client = one.connect()
        client.send_request("GET", target)
        clients.append(client)
    return clients


def answers(clients: list[Client]) -> list[str]:
    texts = []
    for client in clients:
        with client:
            texts.append(client.read_response().text)
    return texts


@BOTH
def test_requests_are_greenlets_of_the_main_threads_hub_and_the_import_is_patched(server, arguments):
    one = server("green", *arguments, workers=2)
    is_patched, kind, is_main, _ = one.get("/state").text.split()
    assert (is_patched, kind, is_main) == ("True", "Greenlet", "True")
    one.log.wait("Using worker: gevent$")
    assert one.get("/child").text == "from a child"
    assert one.stop() == 0
    assert "Warning" not in one.log.text + one.output.text


@pytest.mark.parametrize("name", ["gevent_pywsgi", "gunicorn.workers.ggevent.GeventWorker", "egg:gunicorn#gevent"])
@pytest.mark.ours
def test_gunicorns_names_of_its_workers_mean_greenlets(server, name):
    one = server("green", "-k", name)
    assert one.get("/state").text.split()[1] == "Greenlet"
    assert one.stop() == 0


@BOTH
def test_requests_that_wait_do_so_together_on_one_worker(server, arguments):
    one = server("green", *arguments)
    begun = time.monotonic()
    assert answers(asked(one, ["/sleep?2"] * 200)) == ["slept"] * 200
    # One after another they would take 400 s; on a machine that is busy they may take some.
    assert time.monotonic() - begun < 20
    assert one.stop() == 0


@pytest.mark.ours
def test_there_are_as_many_greenlets_as_worker_connections(server, gates):
    one = server("green", *GEVENT, "--worker-connections", "2")
    clients = asked(one, ["/held?first", "/held?second"])
    gates.wait_reached("first")
    gates.wait_reached("second")
    gates.open("first")
    assert clients[0].read_response().text == "let go"
    clients[0].send_request("GET", "/held?third")
    gates.wait_reached("third")
    for name in ("second", "third"):
        gates.open(name)
    assert answers(clients) == ["let go"] * 2
    assert one.stop() == 0


def test_context_variables_and_locals_are_a_greenlets_own(server):
    one = server("green", *GEVENT)
    for _ in range(2):
        texts = answers(asked(one, [f"/own?{number}" for number in range(30)]))
        assert texts == [f"unset unset {number} {number}" for number in range(30)]
    assert one.stop() == 0


def test_a_connection_is_kept_for_further_requests(server):
    one = server("green", *GEVENT, "--keep-alive", "30")
    with one.connect() as client:
        for _ in range(100):
            assert client.request("GET", "/pid").status == 200
    assert one.stop() == 0


@pytest.mark.ours
def test_a_body_that_arrives_slowly_holds_no_other_request_up(server, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text("request_buffering = False\n")
    one = server("green", *GEVENT, "-c", str(conf))
    with one.connect() as slow, one.connect() as lines:
        slow.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
        lines.send(b"POST /lines HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\non")
        for _ in range(20):
            assert one.get("/pid").status == 200
            slow.send(b"x" * 10_000)
        lines.send(b"e\ntwo")
        assert lines.read_response().text == repr([b"one\n", b"two"])
        assert slow.read_response().text == "200000"
    assert one.stop() == 0


@pytest.mark.ours
def test_a_timeout_of_gevent_ends_the_wait_for_a_body(server, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text("request_buffering = False\n")
    one = server("green", *GEVENT, "-c", str(conf))
    with one.connect() as client:
        client.send(b"POST /read_within HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab")
        assert client.read_response().text == "too slow"
    assert one.stop() == 0


def test_a_body_that_was_spooled_is_read(server):
    one = server("green", *GEVENT)
    with one.connect() as client:
        assert client.request("POST", "/read", body=b"x" * 3_000_000).text == "3000000"
    assert one.stop() == 0


def test_a_response_is_streamed_piece_by_piece(server):
    one = server("green", *GEVENT)
    assert answers(asked(one, ["/stream"] * 50)) == ["0 1 2 3 4 "] * 50
    assert one.stop() == 0


def test_clients_that_do_not_read_hold_no_other_request_up(server, gates):
    one = server("green", *GEVENT)
    slow = asked(one, ["/large"] * 30)
    for _ in range(20):
        assert one.get("/pid").status == 200
    for client in slow[1:]:
        client.reset()
    # Each greenlet that waited for its client learns that it is gone.
    gates.wait_notes("large", 29)
    with slow[0] as client:
        assert len(client.read_response().body) == 400 * 65536
    gates.wait_notes("large", 30)
    assert one.stop() == 0


@pytest.mark.ours
@pytest.mark.parametrize(
    ("view", "logged"),
    [
        ("timeout", r"gevent\.timeout\.Timeout: 0\.05 seconds"),
        ("killed", "GreenletExit"),
        ("kills_later", "GreenletExit"),
        ("fails", "ValueError: on purpose"),
        ("exits", "SystemExit: 3"),
    ],
)
def test_what_ends_a_greenlet_is_a_500_and_a_traceback(server, view, logged):
    one = server("green", *GEVENT)
    assert one.get(f"/{view}").status == 500
    one.log.wait(logged)
    worker = one.get("/pid").text
    assert one.get("/pid").text == worker
    assert one.stop() == 0


@pytest.mark.ours
def test_request_timeout_is_raised_in_the_greenlet_of_that_request_alone(server, gates):
    one = server("green", *GEVENT, "--request-timeout", "1")
    with one.connect() as late:
        late.send_request("GET", "/late")
        assert answers(asked(one, ["/sleep?0.2"] * 20)) == ["slept"] * 20
        assert late.read_response().status == 504
    assert gates.wait_notes("late") == ["ended"]
    one.log.wait(r"Stack of greenlet \d+ when its time was over, in GET /late")
    one.log.wait("in late$")
    assert one.get("/pid").status == 200
    assert one.stop() == 0


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["stop", "reload"])
def test_requests_under_way_are_finished(server, gates, arguments, number):
    one = server("green", *arguments, "--graceful-timeout", "30")
    old = one.get("/pid").text
    clients = asked(one, [f"/held?{index}" for index in range(50)])
    for index in range(50):
        gates.wait_reached(str(index))
    one.send_signal(number)
    if number == signal.SIGHUP:
        wait_until(lambda: one.get("/pid").text != old, "a new worker answers")
    for index in range(50):
        gates.open(str(index))
    assert answers(clients) == ["let go"] * 50
    if number == signal.SIGHUP:
        assert one.stop() == 0
    else:
        assert one.wait_exit() == 0
        one.wait_gone()


@pytest.mark.ours
def test_a_reload_under_load_loses_nothing(server):
    one = server("green", *GEVENT, workers=2)
    for _ in range(3):
        clients = asked(one, ["/sleep?0.3"] * 60)
        one.send_signal(signal.SIGHUP)
        clients += asked(one, ["/sleep?0.1"] * 60)
        assert answers(clients) == ["slept"] * 120
    assert one.stop() == 0


@pytest.mark.ours
def test_workers_are_replaced_after_max_requests_and_lose_nothing(server):
    one = server("green", *GEVENT, "--max-requests", "50")

    def is_renewed_twice() -> bool:
        assert answers(asked(one, ["/sleep?0.05"] * 40)) == ["slept"] * 40
        return len(one.booted()) >= 3

    wait_until(is_renewed_twice, "further workers")
    assert one.stop() == 0


@pytest.mark.ours
def test_greenlets_are_killed_when_graceful_timeout_is_over(server, gates):
    one = server("green", *GEVENT, "--graceful-timeout", "1")
    with one.connect() as late, one.connect() as stubborn:
        late.send_request("GET", "/late")
        stubborn.send_request("GET", "/stubborn")
        gates.wait_reached("stubborn")
        begun = time.monotonic()
        assert one.stop() == 0
        assert time.monotonic() - begun < 12
        with pytest.raises(Disconnected):
            late.read_response()
    assert gates.notes("late") == ["ended"]
    assert gates.notes("stubborn")[0] == "killed"


def test_greenlets_of_the_application_run_on(server, gates):
    one = server("green", *GEVENT)
    assert one.get("/background").text == "spawned"
    assert gates.wait_notes("background") == ["done"]
    assert one.stop() == 0


@pytest.mark.ours
def test_a_hub_that_is_blocked_is_reported_with_what_blocks_it(server, gates):
    one = server("green", *GEVENT, "--timeout", "4")
    worker = one.get("/pid").text
    with one.connect() as client:
        client.send_request("GET", "/spins?3")
        gates.wait_reached("spins")
        one.log.wait(r"gevent's hub is blocked for \d s: no greenlet of this worker can run\. It is in:")
        one.log.wait("in spins$")
        assert client.read_response().text == "spun"
    assert one.get("/pid").text == worker
    with one.connect() as client:
        client.send_request("GET", "/spins?60")
        one.log.wait(r"WORKER TIMEOUT \(pid:" + worker)
    wait_until(lambda: worker not in map(str, one.workers()), "the worker is gone")
    assert one.stop() == 0


def test_a_socket_that_the_application_takes_is_cooperative(server):
    one = server("green", *GEVENT)
    if not IS_OURS:
        pytest.skip("gunicorn's protocol differs")
    clients = []
    for _ in range(20):
        client = one.connect()
        client.send(b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        clients.append(client)
    for index, client in enumerate(clients):
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        assert client.read_until(b"\n").strip() == b"green"
        client.send(f"{index}\n".encode())
        assert client.read_until(b"\n").strip() == str(index).encode()
        assert one.get("/pid").status == 200
    for client in clients:
        client.close()
    assert one.stop() == 0


@pytest.mark.ours
def test_a_missing_or_old_gevent_is_one_line(tmp_path: Path):
    for version, said in (("23.9.1", "23.9.1 is installed"), (None, "which is not installed")):
        hide = tmp_path / str(version)
        hide.mkdir()
        lines = [
            "import importlib.metadata as metadata",
            "real = metadata.version",
            "def version(name):",
            "    if name != 'gevent': return real(name)",
            f"    if {version!r} is None: raise metadata.PackageNotFoundError(name)",
            f"    return {version!r}",
            "metadata.version = version",
        ]
        (hide / "sitecustomize.py").write_text("\n".join(lines))
        ended = Finished([*GEVENT, "green"], env={"PYTHONPATH": str(hide)})
        assert ended.code == 1
        line = f"Error: worker_class = gevent: it needs gevent 24.10 or newer, .*{re.escape(said)}.*"
        assert re.search(line + re.escape("pip install 'ferricorn[gevent]'"), " ".join(ended.error.split()))
        assert "Traceback" not in ended.error


@pytest.mark.ours
def test_the_arbiter_never_imports_gevent(server):
    one = server("green", *GEVENT)
    mapped = Path(f"/proc/{one.pid}/maps").read_text()
    assert "gevent" not in mapped
    worker = int(one.get("/pid").text)
    assert "gevent" in Path(f"/proc/{worker}/maps").read_text()
    assert one.stop() == 0


@pytest.mark.ours
@pytest.mark.parametrize("name", ["eventlet", "gunicorn.workers.geventlet.EventletWorker"])
def test_eventlet_is_refused_with_the_way_on(name):
    ended = Finished(["-k", name, "green"])
    assert ended.code == 1
    assert "use -k gevent" in " ".join(ended.error.split())
