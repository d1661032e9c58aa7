"""`-k gevent` and `-k eventlet`: one greenlet per request, on the worker's main thread, behind the same event loop."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import HAS_GIL, IS_OURS, Finished, clean_environment, wait_until
from wire import Client, Disconnected

pytestmark = pytest.mark.skipif(not HAS_GIL, reason="greenlets are not safe without a GIL")

PRELOAD = pytest.mark.parametrize(
    "arguments",
    [
        (),
        # gunicorn patches in its workers, after the import.
        pytest.param(("--preload",), marks=pytest.mark.ours),
    ],
    ids=["worker", "preload"],
)
APP = "green"


def asked(one, targets: list[str]) -> list[Client]:
    """A connection with a request under way for each."""
    clients = []
    for target in targets:
        client = one.connect()
        client.send_request("GET", target)
        clients.append(client)
    return clients


def asked_for(one, command: str) -> str:
    """What the control interface answers to an operator."""
    line = [sys.executable, "-m", "ferricorn.ctl", "-s", str(one.pid), "-c", command]
    done = subprocess.run(line, capture_output=True, text=True, env=clean_environment(), timeout=30)
    return done.stdout + done.stderr


def answers(clients: list[Client]) -> list[str]:
    texts = []
    for client in clients:
        with client:
            texts.append(client.read_response().text)
    return texts


@PRELOAD
def test_requests_are_greenlets_of_the_main_threads_hub_and_the_import_is_patched(green, library, arguments):
    one = green(*arguments, workers=2)
    assert one.get("/state").text.split()[:3] == ["True", "True", "True"]
    one.log.wait(f"Using worker: {library}$")
    assert one.get("/child").text == "from a child"
    assert one.stop() == 0
    assert "Warning" not in one.log.text + one.output.text
    assert one.log.text.count("eventlet itself asks its users to move on") == (library == "eventlet")


@pytest.mark.ours
@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("gevent_pywsgi", "gevent"),
        ("gunicorn.workers.ggevent.GeventWorker", "gevent"),
        ("egg:gunicorn#gevent", "gevent"),
        ("gunicorn.workers.geventlet.EventletWorker", "eventlet"),
        ("egg:gunicorn#eventlet", "eventlet"),
    ],
)
def test_gunicorns_names_of_its_workers_mean_greenlets(server, name, library):
    one = server("green", "-k", name, env={"GREEN": library})
    assert one.get("/state").text.split()[1] == "True"
    assert one.stop() == 0


@pytest.mark.slow
@PRELOAD
def test_requests_that_wait_do_so_together_on_one_worker(green, arguments):
    one = green(*arguments)
    begun = time.monotonic()
    assert answers(asked(one, ["/sleep?2"] * 200)) == ["slept"] * 200
    # One after another they would take 400 s; on a machine that is busy they may take some.
    assert time.monotonic() - begun < 20
    assert one.stop() == 0


@pytest.mark.ours
def test_there_are_as_many_greenlets_as_worker_connections(green, gates):
    one = green("--worker-connections", "2")
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


def test_context_variables_and_locals_are_a_greenlets_own(green):
    one = green()
    for _ in range(2):
        texts = answers(asked(one, [f"/own?{number}" for number in range(30)]))
        assert texts == [f"unset unset {number} {number}" for number in range(30)]
    assert one.stop() == 0


def test_a_connection_is_kept_for_further_requests(green):
    one = green("--keep-alive", "30")
    with one.connect() as client:
        for _ in range(100):
            assert client.request("GET", "/pid").status == 200
    assert one.stop() == 0


@pytest.mark.ours
def test_a_body_that_arrives_slowly_holds_no_other_request_up(green, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text("request_buffering = False\n")
    one = green("-c", str(conf))
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
def test_a_timeout_of_the_library_ends_the_wait_for_a_body(green, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text("request_buffering = False\n")
    one = green("-c", str(conf))
    with one.connect() as client:
        client.send(b"POST /read_within HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab")
        assert client.read_response().text == "too slow"
    assert one.stop() == 0


def test_a_body_that_was_spooled_is_read(green):
    one = green()
    with one.connect() as client:
        assert client.request("POST", "/read", body=b"x" * 3_000_000).text == "3000000"
    assert one.stop() == 0


def test_a_response_is_streamed_piece_by_piece(green):
    one = green()
    assert answers(asked(one, ["/stream"] * 50)) == ["0 1 2 3 4 "] * 50
    assert one.stop() == 0


def test_clients_that_do_not_read_hold_no_other_request_up(green, gates):
    one = green()
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
def test_a_stream_that_never_waits_lets_others_run(green, gates):
    """Its client keeps up, so that its window never closes."""
    one = green()
    with one.connect() as client:
        client.send_request("GET", "/export")
        gates.wait_reached("export")
        # They end while the stream runs: it ends when the gate opens.
        assert answers(asked(one, ["/pid"] * 5 + ["/sleep?0.05"]))[-1] == "slept"
        gates.open("export")
        assert client.read_response().text.endswith("end")
    assert one.stop() == 0


@pytest.mark.ours
@pytest.mark.parametrize(
    ("view", "logged"),
    [
        ("timeout", r"(gevent|eventlet)\.timeout\.Timeout: 0\.05 seconds"),
        ("killed", "GreenletExit"),
        ("kills_later", "GreenletExit"),
        ("fails", "ValueError: on purpose"),
        ("exits", "SystemExit: 3"),
    ],
)
def test_what_ends_a_greenlet_is_a_500_and_a_traceback(green, view, logged):
    one = green()
    assert one.get(f"/{view}").status == 500
    one.log.wait(logged)
    worker = one.get("/pid").text
    assert one.get("/pid").text == worker
    assert one.stop() == 0


@pytest.mark.ours
def test_request_timeout_is_raised_in_the_greenlet_of_that_request_alone(green, gates):
    one = green("--request-timeout", "1")
    with one.connect() as late:
        late.send_request("GET", "/late")
        assert answers(asked(one, ["/sleep?0.2"] * 20)) == ["slept"] * 20
        assert late.read_response().status == 504
    assert gates.wait_notes("late") == ["ended"]
    one.log.wait(r"Stack of greenlet \d+ at its timeout, in GET /late")
    one.log.wait("in late$")
    assert one.get("/pid").status == 200
    assert one.stop() == 0


@PRELOAD
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["stop", "reload"])
def test_requests_under_way_are_finished(green, gates, arguments, number):
    one = green(*arguments, "--graceful-timeout", "30")
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
def test_a_reload_under_load_loses_nothing(green):
    one = green(workers=2)
    for _ in range(3):
        clients = asked(one, ["/sleep?0.3"] * 60)
        one.send_signal(signal.SIGHUP)
        clients += asked(one, ["/sleep?0.1"] * 60)
        assert answers(clients) == ["slept"] * 120
    assert one.stop() == 0


@pytest.mark.ours
def test_workers_are_replaced_after_max_requests_and_lose_nothing(green):
    one = green("--max-requests", "50")

    def is_renewed_twice() -> bool:
        assert answers(asked(one, ["/sleep?0.05"] * 40)) == ["slept"] * 40
        return len(one.booted()) >= 3

    wait_until(is_renewed_twice, "further workers")
    assert one.stop() == 0


@pytest.mark.ours
def test_greenlets_are_killed_when_graceful_timeout_is_over(green, gates):
    one = green("--graceful-timeout", "1")
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


def test_greenlets_of_the_application_run_on(green, gates):
    one = green()
    assert one.get("/background").text == "spawned"
    assert gates.wait_notes("background") == ["done"]
    assert one.stop() == 0


@pytest.mark.slow
@pytest.mark.ours
def test_a_hub_that_is_blocked_is_reported_with_what_blocks_it(green, library, gates):
    one = green("--timeout", "4")
    worker = one.get("/pid").text
    with one.connect() as client:
        client.send_request("GET", "/spins?3")
        gates.wait_reached("spins")
        one.log.wait(rf"{library}'s hub is blocked for \d s: no greenlet of this worker can run\. It is in:")
        one.log.wait("in spins$")
        assert client.read_response().text == "spun"
    assert one.get("/pid").text == worker
    with one.connect() as client:
        client.send_request("GET", "/spins?60")
        one.log.wait(r"WORKER TIMEOUT \(pid:" + worker)
    wait_until(lambda: worker not in map(str, one.workers()), "the worker is gone")
    assert one.stop() == 0


def test_a_socket_that_the_application_takes_is_cooperative(green):
    one = green()
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
@pytest.mark.parametrize(
    ("library", "needed", "old"), [("gevent", "24.10", "23.9.1"), ("eventlet", "0.40.3", "0.40.2")]
)
def test_a_missing_or_old_library_is_one_line(tmp_path: Path, library, needed, old):
    for version, said in ((old, f"{old} is installed"), (None, "which is not installed")):
        hide = tmp_path / str(version)
        hide.mkdir()
        lines = [
            "import importlib.metadata as metadata",
            "real = metadata.version",
            "def version(name):",
            f"    if name != {library!r}: return real(name)",
            f"    if {version!r} is None: raise metadata.PackageNotFoundError(name)",
            f"    return {version!r}",
            "metadata.version = version",
        ]
        (hide / "sitecustomize.py").write_text("\n".join(lines))
        ended = Finished(["-k", library, "green"], env={"PYTHONPATH": str(hide)})
        assert ended.code == 1
        line = f"Error: worker_class = {library}: it needs {library} {needed} or newer, .*{re.escape(said)}.*"
        assert re.search(line + re.escape(f"pip install 'ferricorn[{library}]'"), " ".join(ended.error.split()))
        assert "Traceback" not in ended.error


@pytest.mark.ours
def test_the_arbiter_never_imports_the_library(green):
    one = green()
    # Both are built on that.
    assert "greenlet" not in Path(f"/proc/{one.pid}/maps").read_text()
    worker = int(one.get("/pid").text)
    assert "greenlet" in Path(f"/proc/{worker}/maps").read_text()
    assert one.stop() == 0


@pytest.mark.ours
def test_an_operator_sees_the_requests_that_wait_and_where(green, gates):
    one = green()
    with one.connect() as waiting, one.connect() as sleeping:
        waiting.send_request("GET", "/held?here")
        sleeping.send_request("GET", "/sleep?30")
        gates.wait_reached("here")
        assert one.get("/background").text == "spawned"
        heading = r"^greenlet \d+, for [\d.]+s: GET {} from 127\.0\.0\.1$"
        shown = asked_for(one, f"stack {one.workers()[0]}")
        assert re.search(heading.format("/held"), shown, re.MULTILINE), shown
        assert re.search(heading.format("/sleep"), shown, re.MULTILINE), shown
        assert "gate.wait(environ" in shown
        assert "time.sleep(float(environ" in shown
        assert f"MainThread (thread {one.workers()[0]})" in shown
        listed = asked_for(one, "show requests")
        assert "/held" in listed
        assert "/sleep" in listed
        gates.open("here")
        assert waiting.read_response().text == "let go"
    one.send_signal(signal.SIGINT)
    assert one.wait_exit() == 0


@pytest.mark.ours
def test_an_operator_sees_the_request_that_runs(green, gates):
    one = green()
    with one.connect() as client:
        client.send_request("GET", "/holds")
        gates.wait_reached("holds")
        shown = asked_for(one, f"stack {one.workers()[0]}")
        gates.open("holds")
        assert client.read_response().text == "let go"
    heading = r"^greenlet \d+, for [\d.]+s: GET /holds from 127\.0\.0\.1$"
    _, request = re.split(heading, shown, flags=re.MULTILINE)
    assert "in holds" in request
    assert one.stop() == 0


@pytest.mark.ours
def test_the_stacks_of_very_many_greenlets_are_those_of_the_oldest(green):
    one = green()
    clients = asked(one, ["/sleep?30"] * 150)
    pid = one.workers()[0]

    def stack() -> str:
        return asked_for(one, f"stack {pid}")

    wait_until(lambda: re.search(r"^\d\d further greenlets$", stack(), re.MULTILINE), "the rest is counted")
    assert stack().count("GET /sleep") == 100
    for client in clients:
        client.close()
    one.send_signal(signal.SIGINT)
    assert one.wait_exit() == 0
