"""A worker leaves as the interpreter does, in every way: threads joined, exit handlers, finalizers, buffers."""

from __future__ import annotations

import os
import signal

import pytest

from harness import IS_OURS, wait_until

WAYS = pytest.mark.parametrize("way", ["term", "int", "hup", "max_requests", "worker_term"])
PRELOAD = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
THREADS = pytest.mark.parametrize("threads", ["2", "1"])


def leave(one, way):
    """Makes the worker leave; the server stops at the end."""
    if way in ("term", "int"):
        one.send_signal(signal.SIGTERM if way == "term" else signal.SIGINT)
    elif way == "hup":
        one.send_signal(signal.SIGHUP)
    elif way == "worker_term":
        os.kill(one.workers()[-1], signal.SIGTERM)
    else:
        one.get("/")


def options(way):
    return ("--max-requests", "2") if way == "max_requests" else ()


def finish(one):
    if one.process.poll() is None:
        one.send_signal(signal.SIGTERM)
    assert one.wait_exit() == 0
    one.wait_gone()
    return one.log.join()


@WAYS
@PRELOAD
@THREADS
def test_buffers_finalizers_and_exit_handlers(server, gates, way, preload, threads):
    one = server("leaving_things", "--threads", threads, *preload, *options(way))
    assert one.get("/").status == 200
    leave(one, way)
    gates.wait_notes("atexit")
    wait_until(lambda: gates.notes("finalized"), "the finalizer runs")
    wait_until(lambda: "buffered" in (gates.directory / "buffered").read_text(), "the buffer is written")
    log = finish(one)
    assert "SIGKILL" not in log


@WAYS
@pytest.mark.parametrize("target", ["thread", "executor"])
@THREADS
def test_threads_of_views_are_joined(server, gates, way, target, threads):
    if not IS_OURS and threads == "1" and way == "worker_term":
        pytest.skip("gunicorn's sync worker looks at its flag once a second")
    one = server("leaving_things", "--threads", threads, *options(way), "--graceful-timeout", "15")
    assert one.get(f"/{target}?own").status == 200
    gates.wait_reached("own")
    leave(one, way)
    if way in ("term", "int"):
        one.log.wait("Handling signal")
    gates.open("own")
    assert gates.wait_notes("threads") == ["own"]
    log = finish(one)
    assert "SIGKILL" not in log
    assert gates.notes("atexit")


ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)


@pytest.mark.ours
@PRELOAD
@THREADS
@pytest.mark.parametrize("who", ["master", "worker"])
def test_an_interpreter_that_ends_is_not_cut_by_a_signal(server, gates, tmp_path, who, preload, threads):
    """A service manager sends TERM to all processes, and the master does to its workers; people press Ctrl-C twice."""
    (tmp_path / "conf.py").write_text("import slow_finalizer\nslow_finalizer.delay_end()\n" if who == "master" else "")
    app = {"master": "hello:app", "worker": "slow_finalizer"}[who]
    one = server(app, "--threads", threads, "-c", str(tmp_path / "conf.py"), *preload)
    assert one.get("/").status == 200
    ending = one.process.pid if who == "master" else one.workers()[-1]
    one.send_signal(signal.SIGTERM)
    gates.wait_reached("finalizer")
    for number in ENDING:
        os.kill(ending, number)
    gates.open("finalizer")
    assert one.wait_exit() == 0
    one.wait_gone()
    assert "was sent" not in one.log.join()


@pytest.mark.ours
@PRELOAD
def test_a_thread_that_does_not_end_is_named_and_cut(server, gates, preload):
    one = server("leaving_things", "--threads", "2", "--graceful-timeout", "1", *preload)
    assert one.get("/thread?never").status == 200
    gates.wait_reached("never")
    assert one.stop() == 0
    log = one.log.join()
    assert "1 thread(s) of the application did not end in time and are abandoned: own-never" in log
    assert "SIGKILL" not in log
    assert gates.notes("atexit"), "exit handlers run"
    assert "buffered" in (gates.directory / "buffered").read_text(), "buffers are written"


@pytest.mark.ours
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@THREADS
def test_exit_handlers_run_beside_a_request_that_does_not_end(server, gates, number, threads):
    one = server("leaving_things", "--threads", threads, "--graceful-timeout", "1")
    one.get("/")
    with one.connect() as client:
        client.send_request("GET", "/block?never")
        gates.wait_reached("never")
        assert one.stop(number, patience=10) == 0
    log = one.log.join()
    assert "SIGKILL" not in log
    assert len(gates.notes("atexit")) == 1
    assert "buffered" in (gates.directory / "buffered").read_text()
