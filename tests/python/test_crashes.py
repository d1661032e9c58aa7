"""A request that crashes its worker costs what was inside that process, and nobody else's time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time

import pytest
from test_health import figure

from harness import PATIENCE_S, Server, wait_until
from wire import Client, Disconnected

pytestmark = pytest.mark.slow

APP = "crashing"


def poison(one: Server, target: str) -> None:
    """A request that its worker does not survive."""
    with contextlib.suppress(OSError, Disconnected), one.connect() as client:
        client.request("GET", target)


def served_again(one: Server, patience: float = PATIENCE_S) -> float:
    """Seconds until a new client is answered; a connection that ends without an answer is tried again."""
    began = time.monotonic()

    def answers():
        with contextlib.suppress(OSError, Disconnected), Client(one.address, patience) as client:
            return client.request("GET", "/").status == 200

    wait_until(answers, "a worker serves", patience)
    return time.monotonic() - began


class Poisoner:
    """Sends requests that crash their worker, one after the other, until it is left."""

    def __init__(self, one: Server, target: str, pause: float) -> None:
        self.one, self.target, self.pause, self.crashes = one, target, pause, 0
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Poisoner:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._leave.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._leave.wait(self.pause):
            poison(self.one, self.target)
            self.crashes += 1


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
def test_others_do_not_wait_for_workers_that_a_request_crashes(server, preload):
    """Two workers, one crash after the other; a second client asks all the time."""
    one = server(APP, "--threads", "2", *preload, workers=2)
    waits, lost = [], 0
    with Poisoner(one, "/exits", 0.1) as poisoner:
        until = time.monotonic() + 4
        while time.monotonic() < until and not (waits and max(waits) > 1):
            began = time.monotonic()
            try:
                with Client(one.address, 8) as client:
                    assert client.request("GET", "/").status == 200
            except (OSError, Disconnected):
                lost += 1
            waits.append(time.monotonic() - began)
    assert max(waits) < 1, f"{len(waits)} requests, {lost} lost, {poisoner.crashes} crashes"
    assert lost <= poisoner.crashes, "no more than was inside the crashed processes"
    assert poisoner.crashes >= 8, "the poison is served as well"


@pytest.mark.parametrize("how", ["segv", "exits", "kill", pytest.param("abort", marks=pytest.mark.ours)])
def test_the_only_worker_is_replaced_at_once_however_often_it_crashes(server, how):
    one = server(APP, "--threads", "2")
    for _ in range(6):
        poison(one, f"/{how}")
        assert served_again(one, 8) < 1


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
def test_workers_that_are_killed_from_outside_are_replaced_at_once(server, preload):
    """As by the kernel when memory is short; none of them was at fault."""
    one = server(APP, "--threads", "2", *preload, workers=2)
    for number in range(2, 8, 2):
        booted = [int(m.group(1)) for m in one.log.wait(r"Booting worker with pid: (\d+)", number)]
        assert served_again(one, 8) < 1
        for pid in booted[-2:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert served_again(one, 8) < 1


@pytest.mark.ours
def test_crashes_in_all_workers_at_once_cost_less_than_a_second(server):
    one = server(APP, "--threads", "2", workers=2)
    for _ in range(7):
        threads = [threading.Thread(target=poison, args=(one, "/exits")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(8)
        assert served_again(one, 8) < 1


@pytest.mark.ours
@pytest.mark.parametrize("booting", [False, True])
@pytest.mark.parametrize("code", [3, 4])
def test_an_exit_code_of_a_worker_that_has_served_stops_no_server(server, gates, code, booting):
    """3 and 4 say of a worker's boot that it is not worth another try; an application may use them too.

    One worker serves; the other one does too, or is at its import.
    """
    arguments = ("--threads", "2", "--admin-bind", "127.0.0.1:0")
    one = server(APP, *arguments, env={"HOLD_ALL_BUT_ONE": "yes"}, workers=2)
    gates.wait_reached("import")
    if not booting:
        gates.open("import")
        # Asked twice: between two answers the master sees to its workers.
        for _ in range(2):
            wait_until(lambda: figure(one, 'workers{state="serving"}') == 2, "both serve")
    assert served_again(one) < PATIENCE_S
    poison(one, f"/exits_{code}")
    gates.open("import")
    gates.wait_notes("imported", 3, patience=8)
    assert served_again(one, 10) < 10
    assert "Shutting down" not in one.log.text


# -- what the log says -----------------------------------------------------------------------------


@pytest.mark.ours
@pytest.mark.parametrize("how", ["segv", "exits", "kill"])
def test_each_crash_names_the_request_that_was_running(server, how):
    one = server(APP, "--threads", "2")
    for number in range(1, 4):
        poison(one, f"/{number}/{how}?secret")
        one.log.wait(rf"Worker \(pid:\d+\).*GET /{number}/{how}\b")
    assert "secret" not in one.log.text


@pytest.mark.ours
def test_the_log_says_when_one_path_crashes_again_and_again(server):
    one = server(APP, "--threads", "2", workers=2)
    for _ in range(4):
        poison(one, "/shop/segv")
        assert served_again(one) < PATIENCE_S
    one.log.wait(r"\[(?:WARNING|ERROR|CRITICAL)\] (?=.*/shop/segv).*(?:\d+ times|again)", patience=3)


@pytest.mark.ours
def test_crashes_of_different_paths_are_no_repetition(server):
    one = server(APP, "--threads", "2", workers=2)
    poison(one, "/a/exits")
    assert served_again(one) < PATIENCE_S
    poison(one, "/b/exits")
    assert served_again(one) < PATIENCE_S
    one.stop()
    assert not [line for line in one.log.join().splitlines() if " again" in line and "trying" not in line]


# -- workers that never serve ----------------------------------------------------------------------


@pytest.fixture
def breakable(server, tmp_path):
    """A server whose next workers do not get through their import while the file is there."""
    broken = tmp_path / "broken"

    def start(*arguments, **options):
        return server(APP, "--threads", "2", *arguments, env={"BROKEN": str(broken)}, **options)

    return start, broken


@pytest.mark.ours
def test_workers_that_never_serve_are_not_started_without_pause(breakable, gates):
    start, broken = breakable
    one = start(workers=2)
    gates.wait_notes("imported", 2)
    broken.touch()
    os.kill(one.booted()[0], signal.SIGKILL)
    began = time.monotonic()
    gates.wait_notes("broken", 5)
    assert time.monotonic() - began > 0.5
    broken.unlink()
    gates.wait_notes("imported", 3)


@pytest.mark.ours
def test_a_slot_that_does_not_boot_delays_no_other(breakable, gates):
    """One worker's successors die at their import. When that is mended, the other's successor comes at once."""
    start, broken = breakable
    one = start(workers=2)
    first, second = one.booted()
    gates.wait_notes("imported", 2)
    broken.touch()
    os.kill(first, signal.SIGKILL)
    gates.wait_notes("broken", 4)
    broken.unlink()
    os.kill(second, signal.SIGKILL)
    assert served_again(one, 8) < 1


@pytest.mark.ours
@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("os._exit(0)", 1, "The application failed to preload."),
        ("os.fork() and os._exit(0)", 1, "The application failed to preload."),
        ("os.kill(os.getpid(), 9)", 1, "The application failed to preload."),
        ("os._exit(5)", 5, "The application failed to preload."),
        ("sys.exit(5)", 5, "The application called sys.exit while it was being preloaded."),
        ("sys.exit(0)", 0, "The application called sys.exit while it was being preloaded."),
    ],
)
def test_the_exit_code_of_a_server_that_preloads_nothing(server, tmp_path, how, code, reason):
    """A supervisor restarts what has failed, and reads the exit code for that.

    `sys.exit(0)` is what the application wants, as in gunicorn. A process that is gone without a word has failed.
    """
    (tmp_path / "leaves.py").write_text(f"import os, sys\n{how}\n")
    one = server("leaves:app", "--preload", cwd=tmp_path, ready=False)
    one.log.wait(f"Reason: {reason}", patience=10)
    assert one.wait_exit(10) == code
    if "sys.exit" in how:
        one.log.wait(re.escape(f"The application called {how} while it was being preloaded."))
