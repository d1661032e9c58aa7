"""With one thread the application runs where it was imported, on the main thread, and `timeout` bounds its requests."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import pytest

from harness import IS_OURS, wait_until
from wire import Disconnected

ONE_THREAD = pytest.mark.parametrize(
    "arguments", [("-k", "sync"), ("-k", "sync", "--preload")], ids=["sync", "preload"]
)


@ONE_THREAD
@pytest.mark.parametrize(
    ("view", "answer"),
    [
        ("thread", "True MainThread"),
        ("alarm", "late"),
        ("local", "thread-local"),
        ("variable", "context variable"),
        ("database", "a row"),
        ("event_loop", "asyncio"),
        ("set_handler", "set"),
    ],
)
def test_what_was_made_at_import_works_in_a_view(server, arguments, view, answer):
    if view == "event_loop" and "--preload" in arguments and sys.version_info >= (3, 12):
        pytest.skip("asyncio forgets its loop at a fork, since CPython 3.12")
    one = server("main_thread", *arguments)
    for _ in range(2):
        assert one.get(f"/{view}").text == answer
    assert one.stop() == 0


@pytest.mark.ours
@pytest.mark.parametrize("arguments", [(), ("-k", "gthread", "--threads", "1"), ("--threads", "1")])
def test_one_thread_is_the_main_thread_however_it_is_asked_for(server, arguments):
    one = server("main_thread", *arguments)
    assert one.get("/thread").text == "True MainThread"
    assert one.get("/alarm").text == "late"
    assert one.stop() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("-k", "sync"),
        # gunicorn's worker resets what was set before its fork.
        pytest.param(("-k", "sync", "--preload"), marks=pytest.mark.ours),
    ],
    ids=["sync", "preload"],
)
def test_a_handler_of_the_application_runs_while_the_worker_is_idle(server, gates, arguments):
    one = server("main_thread", *arguments)
    worker = int(one.get("/pid").text)
    os.kill(worker, signal.SIGUSR2)
    assert gates.wait_notes("usr2") == ["True"]
    os.kill(worker, signal.SIGUSR2)
    assert gates.wait_notes("usr2", 2) == ["True", "True"]
    assert one.stop() == 0


@ONE_THREAD
@pytest.mark.parametrize("view", ["/block?never", "/spin"])
def test_a_request_that_never_ends_costs_its_worker_at_timeout(server, gates, tmp_path, arguments, view):
    conf = tmp_path / "conf.py"
    conf.write_text("import gate\ndef worker_abort(worker): gate.note('abort', worker.pid)\n")
    one = server("main_thread", *arguments, "--timeout", "1", "-c", str(conf), env={"PYTHONPATH": "."})
    worker = one.get("/pid").text
    begun = time.monotonic()
    with one.connect() as client:
        client.send_request("GET", view)
        gates.wait_reached("never" if "never" in view else "spin")
        one.log.wait(r"WORKER TIMEOUT \(pid:" + worker)
        assert time.monotonic() - begun < 4
        one.log.wait("Booting worker with pid", 2)
        assert one.get("/pid").text != worker
        with contextlib.suppress(Disconnected, OSError):
            assert client.read_response().status == 500
    assert gates.wait_notes("abort") == [worker]
    if IS_OURS:
        # The stack: which line of the application it was.
        assert "main_thread.py" in one.log.text
        assert f"GET {view.partition('?')[0]}" in one.log.text
    assert one.stop() == 0


def answers(one):
    try:
        return one.get("/pid").status == 200
    except (Disconnected, OSError):
        return False


def test_two_workers_that_are_both_stuck_serve_again(server, gates):
    one = server("main_thread", "-k", "sync", "--timeout", "1", workers=2)
    clients = [one.connect(), one.connect()]
    for name, client in zip(("first", "second"), clients, strict=True):
        client.send_request("GET", f"/block?{name}")
        gates.wait_reached(name)
    wait_until(lambda: answers(one), "a worker serves again", patience=5)
    for client in clients:
        client.__exit__()
    assert one.stop() == 0


@pytest.mark.slow
@pytest.mark.ours
@ONE_THREAD
def test_a_large_upload_that_waits_behind_a_stuck_request_gets_a_503(server, gates, arguments):
    """Its body is in this worker, and too large to be sent to another. The answer says when to come again."""
    one = server("main_thread", *arguments, "--timeout", "2")
    with one.connect() as stuck, one.connect() as first, one.connect() as second:
        stuck.send_request("GET", "/block?never")
        gates.wait_reached("never")
        for waiting in (first, second):
            waiting.send_request("POST", "/pid", body=b"x" * 100_000)
        for waiting in (first, second):
            response = waiting.read_response()
            assert response.status == 503
            assert response.header("Retry-After") == "1"
            assert response.header("Connection") == "close"
        with pytest.raises((Disconnected, OSError)):
            stuck.read_response()
    wait_until(lambda: answers(one), "a worker serves again")
    assert one.stop() == 0


@pytest.mark.slow
@ONE_THREAD
def test_requests_within_timeout_are_left_alone(server, gates, arguments):
    one = server("main_thread", *arguments, "--timeout", "2")
    worker = one.get("/pid").text
    # Two in a row are longer than the time together.
    for name in ("first", "second"):
        with one.connect() as client:
            client.send_request("GET", f"/block?{name}")
            gates.wait_reached(name)
            time.sleep(1.3)
            gates.open(name)
            assert client.read_response().status == 200
    assert one.get("/pid").text == worker
    assert "TIMEOUT" not in one.log.text
    assert one.stop() == 0


SWITCHING = """
import signal, time
import greenlet

def hub():
    while True:
        greenlet.getcurrent().parent.switch()
        # The main greenlet's part of the stack is elsewhere meanwhile, and the event loop goes on.
        time.sleep(0.3)

# It begins here, further up the stack than requests run.
switched = greenlet.greenlet(hub)
switched.switch()

def application(environ, start_response):
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    switched.switch()
    start_response("200 OK", [("Content-Length", "1")])
    return [str(len(rung)).encode()]
"""


@pytest.mark.ours
@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["worker", "preload"])
def test_greenlets_of_the_import_may_run_on_the_main_threads_stack(server, tmp_path, arguments):
    """gunicorn has no thread beside it that could see the stack change."""
    pytest.importorskip("greenlet")
    (tmp_path / "switching.py").write_text(SWITCHING)
    one = server(*arguments, "switching", cwd=tmp_path)
    workers = one.workers()
    for _ in range(3):
        assert one.get("/").text == "1"
    assert one.workers() == workers
