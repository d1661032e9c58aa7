"""A worker that was taken over may harm its own requests. The master, which may be root's, takes no orders from it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest
from test_health import ask

from harness import APPS, kill_session, session_members, wait_until
from wire import Client, Disconnected, encode_request

pytestmark = [pytest.mark.ours, pytest.mark.slow]

APP = "scribbling"


@pytest.fixture(autouse=True)
def by_force(server):
    """What a server that was tampered with leaves behind is said by the tests."""
    yield
    for one in server.started:
        kill_session(one.pid)


@pytest.fixture
def victim():
    """Another process of the same user, which nobody has a reason to signal."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def scribble(one, gates, kind, seconds, victim=0):
    """Has one worker write until the end of the test, or its time; returns its pid."""
    pid = int(one.get(f"/scribble?kind={kind}&victim={victim}&seconds={seconds}").text)
    # Memory that cannot be written to is a good reason for no harm.
    with contextlib.suppress(AssertionError):
        gates.wait_reached("scribbled", 2)
    return pid


def workers_of(one):
    """Living workers that the log announced, without the fork server."""
    return set(one.workers()) & set(one.booted())


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_cannot_have_the_master_signal_another_process(server, gates, victim, end):
    one = server(APP, "--preload", "--graceful-timeout", "2", workers=2)
    scribble(one, gates, "victim", 20, victim.pid)
    for number in range(3, 7):
        one.send_signal(signal.SIGTTIN)
        one.log.wait("Booting worker", number)
    one.send_signal(end)
    one.wait_exit(8)
    assert victim.poll() is None
    assert session_members(one.pid) == [], "the workers that there were have ended"


WRITTEN = [
    *(("plain", kind) for kind in ("zeros", "ones", "small", "noise")),
    *(("preload", kind) for kind in ("zeros", "ones", "noise")),
]


@pytest.mark.parametrize(("how", "kind"), WRITTEN)
def test_what_a_worker_writes_stops_neither_the_master_nor_new_workers(server, gates, how, kind):
    """Workers that end are seen and replaced, and the server stops in order."""
    preload = ("--preload",) if how == "preload" else ()
    one = server(APP, *preload, "--graceful-timeout", "2", "--admin-bind", "127.0.0.1:0", workers=2)
    before = workers_of(one)
    bad = scribble(one, gates, kind, 20)
    (good,) = before - {bad}
    os.kill(good, signal.SIGKILL)
    one.log.wait(f"Worker \\(pid:{good}\\)", patience=4)
    with contextlib.suppress(ProcessLookupError):
        os.kill(bad, signal.SIGKILL)
    wait_until(lambda: len(workers_of(one) - before) >= 2, "two new workers", 4)

    def answers():
        with contextlib.suppress(OSError, Disconnected), Client(one.address, 2) as client:
            return client.request("GET", "/").status == 200

    wait_until(answers, "somebody serves", 15)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(8) == 0
    assert session_members(one.pid) == []


@pytest.mark.parametrize("kind", ["zeros", "ones", "noise"])
def test_a_worker_cannot_have_others_killed(server, gates, kind):
    """Neither as silent, nor as worn out, nor as never booted."""
    one = server(APP, "--timeout", "2", env={"FERRICORN_BOOT_TIMEOUT": "2"}, workers=3)
    one.log.wait("Booting worker", 3)
    wait_until(lambda: one.get("/").status == 200, "it serves")
    before = workers_of(one)
    bad = scribble(one, gates, kind, 3.5)
    until = time.monotonic() + 4
    while time.monotonic() < until:
        assert before - {bad} <= workers_of(one), one.log.text
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["garbage", "shutdown"])
def test_what_a_worker_does_to_the_channels_between_workers_loses_no_request(server, kind):
    """Connections stay where they are; workers before and after it serve, and the log has no end of it."""
    one = server(APP, "--threads", "1", "--graceful-timeout", "5", workers=3)
    one.log.wait("Booting worker", 3)
    assert int(one.get(f"/break?kind={kind}").text) >= 2 * 3

    def all_are_answered():
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(one.connect(10)) for _ in range(30)]
            for client in clients:
                client.send(encode_request("GET", "/slow", [("Connection", "close")]))
            return [client.read_response().status for client in clients] == [200] * 30

    assert all_are_answered()
    one.send_signal(signal.SIGHUP)
    one.log.wait("Booting worker", 6)
    assert all_are_answered()
    assert one.stop() == 0
    assert len(one.log.join().splitlines()) < 100, one.log.text


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
@pytest.mark.parametrize("kind", ["zeros", "ones", "small", "noise"])
def test_a_worker_does_not_end_the_listeners_of_the_others(server, gates, kind, preload):
    """Garbage in its memory may tell it that it is to stop, and not that the server ends."""
    one = server(APP, *preload, workers=3)
    one.log.wait("Booting worker", 3)
    wait_until(lambda: one.get("/").status == 200, "it serves")
    scribble(one, gates, kind, 3)
    until = time.monotonic() + 4
    while time.monotonic() < until:
        # The worker that was taken over may cut its own.
        with contextlib.suppress(Disconnected, ConnectionResetError, TimeoutError), Client(one.address, 2) as client:
            client.request("GET", "/")
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["victim", "zeros", "ones", "noise"])
def test_a_worker_cannot_have_the_master_fork_without_end(server, gates, kind):
    one = server(APP, workers=2)
    scribble(one, gates, kind, 2)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert len(one.booted()) <= 6, one.log.text
        time.sleep(0.05)


HELD = """
import gate

def post_fork(server, worker):
    if gate.is_open("held"):
        gate.wait("boot")
"""


@pytest.mark.parametrize("kind", ["zeros", "ones", "small", "noise"])
def test_what_a_worker_says_of_readiness_hides_no_other_and_ends_with_it(server, gates, tmp_path, kind):
    config = tmp_path / "conf.py"
    config.write_text(HELD)
    surroundings = {"PYTHONPATH": str(APPS), "FERRICORN_MAX_QUEUE": "50"}
    one = server(APP, "-c", str(config), "--admin-bind", "127.0.0.1:0", env=surroundings, workers=2)
    one.log.wait("Booting worker", 2)
    wait_until(lambda: 'ferricorn_workers{state="serving"} 2\n' in ask(one, "/metrics").text, "both serve")
    scribble(one, gates, kind, 20)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert ask(one, "/ready").text == "ready\n", "the other worker serves"
        assert ask(one, "/live").status == 200
        time.sleep(0.02)
    gates.open("held")

    def none_serves():
        """Garbage may ask for a successor, which serves: all go that there are while one does."""
        if ask(one, "/ready").status == 503:
            return True
        for pid in workers_of(one):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return False

    wait_until(none_serves, "none is ready, whatever the dead one has said")
    gates.wait_reached("boot")
    assert ask(one, "/live").status == 200
    gates.open("boot")
    wait_until(lambda: ask(one, "/ready").status == 200, "its successors serve")
