"""Signals and the life of workers: what is running is finished, what is broken is replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from harness import APPS, HAS_GIL, IS_OURS, session_members, stop_process, wait_until
from wire import Disconnected

VERSION = """
import gate
gate.note("import", "{body}")

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "{length}")])
    return [b"{body}"]
"""


def write_version(directory, body):
    """Replace the application in one step, so that no worker imports half of it."""
    fresh = directory / "version.new"
    fresh.write_text(VERSION.format(body=body, length=len(body)))
    fresh.replace(directory / "version.py")


class Visitor(threading.Thread):
    """Asks again and again, each time on a new connection, and remembers what went wrong."""

    def __init__(self, one, target="/"):
        super().__init__(daemon=True)
        self.one, self.target = one, target
        self.answers, self.failures = 0, []
        self._leave = threading.Event()

    def run(self):
        while not self._leave.is_set():
            try:
                assert self.one.get(self.target).status == 200
                self.answers += 1
            except (OSError, Disconnected, AssertionError) as error:
                self.failures.append(repr(error))

    def __enter__(self):
        self.start()
        wait_until(lambda: self.answers >= 3, "first answers")
        return self

    def __exit__(self, *_):
        self._leave.set()
        self.join()


# -- stop ------------------------------------------------------------------------------------------


def test_term_lets_the_running_request_finish(server, gates):
    one = server("lifecycle", "--threads", "2", "--graceful-timeout", "20")
    with one.connect() as client:
        client.send_request("GET", "/block?slow")
        gates.wait_reached("slow")
        if IS_OURS:
            one.begin_stop()
        else:
            one.send_signal(signal.SIGTERM)
            one.log.wait("Handling signal: term")
        gates.open("slow")
        answer = client.read_response()
        assert answer.text == "unblocked slow"
        if IS_OURS:
            assert answer.header("Connection") == "close", "an answer during the drain says so"
            assert client.is_closed()
    assert one.wait_exit() == 0
    one.wait_gone()


def test_term_does_not_wait_for_idle_connections(server):
    one = server("lifecycle", "--threads", "2", "--keep-alive", "60", "--graceful-timeout", "30")
    with one.connect() as client:
        assert client.request().status == 200
        assert one.stop(patience=10) == 0
        assert client.is_closed()


def test_graceful_timeout_ends_the_wait(server, gates):
    one = server("lifecycle", "--threads", "2", "--graceful-timeout", "1")
    with one.connect() as client:
        client.send_request("GET", "/block?never")
        gates.wait_reached("never")
        assert one.stop() == 0
        assert client.read_to_end() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_do_not_wait_long(server, gates, number):
    one = server("lifecycle", "--threads", "2", "--graceful-timeout", "30" if IS_OURS else "1", workers=2)
    with one.connect() as client:
        client.send_request("GET", "/block?never")
        gates.wait_reached("never")
        assert one.stop(number, patience=10) == 0


def test_second_signal_makes_a_stop_quick(server, gates):
    one = server("lifecycle", "--threads", "2", "--graceful-timeout", "60")
    with one.connect() as client:
        client.send_request("GET", "/block?never")
        gates.wait_reached("never")
        one.send_signal(signal.SIGTERM)
        one.log.wait("Handling signal: term")
        assert one.stop(signal.SIGINT, patience=15) == 0


def test_exit_handlers_of_the_application_run(server, gates):
    one = server("lifecycle")
    worker = one.get("/pid").text
    one.stop()
    assert worker in gates.notes("atexit")


@pytest.mark.ours
def test_connections_waiting_to_be_accepted_are_served_at_a_stop(server, gates):
    """Late arrivals get an answer, not a reset."""
    one = server("lifecycle", "--threads", "1", "--graceful-timeout", "20")
    with one.connect() as busy:
        busy.send_request("GET", "/block?slow")
        gates.wait_reached("slow")
        waiting = [one.connect() for _ in range(10)]
        for client in waiting:
            client.send_request("GET", "/pid")
        one.begin_stop()
        gates.open("slow")
        assert busy.read_response().text == "unblocked slow"
        for client in waiting:
            answer = client.read_response()
            assert (answer.status, answer.header("Connection")) == (200, "close")
            client.close()
    assert one.wait_exit() == 0


# -- reload ----------------------------------------------------------------------------------------


def test_hup_serves_new_code(server, gates, tmp_path):
    write_version(tmp_path, "one")
    one = server("version", "--threads", "2", "--pythonpath", str(APPS), cwd=tmp_path, workers=2)
    gates.wait_notes("import", 2)
    before = set(one.workers())
    assert one.get().text == "one"
    write_version(tmp_path, "two")
    one.send_signal(signal.SIGHUP)
    one.log.wait("Handling signal: hup")
    wait_until(lambda: len(one.workers()) == 2 and not before & set(one.workers()), "new workers only")
    assert one.get().text == "two"
    assert one.process.poll() is None


@pytest.mark.ours
def test_hup_loses_no_request(server, gates, tmp_path):
    write_version(tmp_path, "one")
    one = server("version", "--threads", "2", "--pythonpath", str(APPS), cwd=tmp_path, workers=2)
    gates.wait_notes("import", 2)
    before = set(one.workers())
    with Visitor(one) as visitor:
        one.send_signal(signal.SIGHUP)
        wait_until(lambda: len(one.workers()) == 2 and not before & set(one.workers()), "new workers only")
    assert not visitor.failures


@pytest.mark.ours
def test_hup_keeps_the_old_workers_when_the_new_code_is_broken(server, gates, tmp_path):
    write_version(tmp_path, "one")
    one = server("version", "--threads", "2", "--pythonpath", str(APPS), cwd=tmp_path, workers=2)
    gates.wait_notes("import", 2)
    before = set(one.workers())
    (tmp_path / "version.py").write_text("raise RuntimeError('broken deploy')\n")
    with Visitor(one) as visitor:
        one.send_signal(signal.SIGHUP)
        one.log.wait("RuntimeError: broken deploy")
        wait_until(lambda: set(one.workers()) == before, "the old workers alone")
    assert not visitor.failures
    assert one.get().text == "one"
    write_version(tmp_path, "two")
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: len(one.workers()) == 2 and not before & set(one.workers()), "new workers only")
    assert one.get().text == "two"


@pytest.mark.ours
def test_hup_keeps_everything_when_the_new_config_is_broken(server, tmp_path):
    config = tmp_path / "config.py"
    config.write_text("workers = 1\n")
    one = server("hello:app", "-c", str(config))
    config.write_text("workers = 'many'\n")
    one.send_signal(signal.SIGHUP)
    one.log.wait("Invalid value for workers|invalid literal")
    assert one.get().status == 200
    config.write_text("workers = 2\n")
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: len(one.workers()) == 2, "two workers")


def test_hup_reads_the_config_again(server, tmp_path):
    config = tmp_path / "config.py"
    config.write_text("workers = 1\nraw_env = ['COLOUR=red']\n")
    one = server("hello:where", "-c", str(config))
    assert one.get().text.endswith(" red")
    (before,) = one.workers()
    config.write_text("workers = 2\nraw_env = ['COLOUR=blue']\n")
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: len(one.workers()) == 2 and before not in one.workers(), "two new workers")
    wait_until(lambda: one.get().text.endswith(" blue"), "the new value")


# -- number of workers -----------------------------------------------------------------------------


def test_ttin_and_ttou_change_the_number_of_workers(server):
    one = server("hello:app")
    (oldest,) = one.workers()
    for count in (2, 3):
        one.send_signal(signal.SIGTTIN)
        wait_until(lambda count=count: len(one.workers()) == count, f"{count} workers")
        one.log.wait("Booting worker", count)
        assert one.get().status == 200
    for count in (2, 1):
        one.send_signal(signal.SIGTTOU)
        wait_until(lambda count=count: len(one.workers()) == count, f"{count} workers")
    assert oldest not in one.workers(), "the oldest leaves first"
    one.send_signal(signal.SIGTTOU)
    one.log.wait("Handling signal: ttou", 3)
    assert one.get().status == 200
    assert len(one.workers()) == 1, "one always stays"


def test_winch_is_ignored_in_the_foreground(server):
    one = server("hello:app")
    one.send_signal(signal.SIGWINCH)
    one.log.wait("Handling signal: winch")
    assert one.get().status == 200
    assert len(one.workers()) == 1


# -- death of a worker -----------------------------------------------------------------------------


def test_killed_worker_is_replaced_and_its_peers_lose_nothing(server):
    one = server("lifecycle", "--threads", "2", workers=2)
    with one.connect() as client:
        peer = client.request("GET", "/pid").text
        (victim,) = (pid for pid in one.booted() if str(pid) != peer)
        os.kill(victim, signal.SIGKILL)
        one.log.wait(rf"\[ERROR\] Worker \(pid:{victim}\) was sent SIGKILL! Perhaps out of memory\?")
        one.log.wait("Booting worker", 3)
        assert client.request("GET", "/pid").text == peer
        wait_until(lambda: len(one.workers()) == 2 and victim not in one.workers(), "two workers again")
        assert client.request("GET", "/pid").text == peer
    assert one.get().status == 200


def test_worker_that_exits_is_replaced(server):
    one = server("lifecycle")
    (worker,) = one.workers()
    with contextlib.suppress(Disconnected):
        one.get("/crash?7")
    one.log.wait(rf"\[ERROR\] Worker \(pid:{worker}\) exited with code 7")
    one.log.wait("Booting worker", 2)
    assert one.get("/pid").text != str(worker)


def test_term_of_a_worker_is_a_graceful_replacement(server, gates):
    one = server("lifecycle", "--threads", "2")
    (worker,) = one.workers()
    with one.connect() as client:
        client.send_request("GET", "/block?slow")
        gates.wait_reached("slow")
        os.kill(worker, signal.SIGTERM)
        gates.open("slow")
        assert client.read_response().text == "unblocked slow"
    one.log.wait("Booting worker", 2)
    assert one.get("/pid").text != str(worker)


@pytest.mark.skipif(not HAS_GIL, reason="no request can hold the interpreter")
def test_worker_that_holds_the_interpreter_is_timed_out(server, gates):
    one = server("lifecycle", "--threads", "2", "--timeout", "2")
    (worker,) = one.workers()
    with one.connect() as client:
        client.send_request("GET", "/hold_the_interpreter?30")
        gates.wait_reached("holding")
        one.log.wait(rf"\[CRITICAL\] WORKER TIMEOUT \(pid:{worker}\)")
        if IS_OURS:
            one.log.wait(rf"Worker \(pid:{worker}\): no Python code has run for \d+ s")
        one.log.wait("Booting worker", 2)
        assert client.read_to_end() == b""
    assert one.get("/pid").text != str(worker)
    assert one.stop() == 0


@pytest.mark.ours
def test_a_worker_whose_event_loop_stands_still_is_told_from_one_without_python(server):
    one = server("lifecycle", "--timeout", "1")
    assert one.get().status == 200, "it has booted"
    (worker,) = one.workers()
    assert one.get("/pid").text == str(worker), "it has booted"
    stop_process(worker)
    one.log.wait(rf"Worker \(pid:{worker}\): event loop stalled for \d+ s")
    one.log.wait("Booting worker", 2)
    assert one.get("/pid").text != str(worker)


def test_timeout_is_no_limit_for_a_request(server):
    one = server("lifecycle", "--threads", "2", "--timeout", "1")
    assert one.get("/sleep?3").text == "slept"
    assert "WORKER TIMEOUT" not in one.log.text


def test_workers_leave_when_the_arbiter_is_killed(server, gates):
    one = server("lifecycle", "--threads", "2", workers=3)
    os.kill(one.pid, signal.SIGKILL)
    one.wait_exit()
    one.wait_gone()
    assert not session_members(one.pid)


# -- max_requests ----------------------------------------------------------------------------------


def test_max_requests_replaces_the_worker(server):
    one = server("lifecycle", "--max-requests", "3", "--threads", "2")
    answers = {one.get("/pid").text for _ in range(3)}
    assert len(answers) == 1
    one.log.wait("Autorestarting worker after current request")
    wait_until(lambda: one.get("/pid").text not in answers, "another worker answers")


def test_max_requests_loses_nothing(server):
    one = server("lifecycle", "--max-requests", "10", "--max-requests-jitter", "5", "--threads", "2", workers=2)
    seen = set()
    wait_until(lambda: seen.add(one.get("/pid").text) or len(seen) >= 3, "a third worker answers")
