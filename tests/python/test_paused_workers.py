"""A worker that had no processor for a while reads what came meanwhile, although its deadlines are over by then.

A machine that is short of processors does that for tenths of a second, a container that is frozen for hours.
"""

from __future__ import annotations

import os
import signal
import time

import pytest
from test_control import ask, path_of

from harness import kill_session, stop_process, wait_until
from wire import Client, encode_request

pytestmark = [pytest.mark.ours, pytest.mark.slow]

BODY = b"x" * 1000
UPLOAD = encode_request("POST", "/upload", [("Content-Length", str(len(BODY)))], BODY)
# The longest of these timeouts, and a tick of the worker's clock.
TIMEOUT_S = 1.2


@pytest.fixture(autouse=True)
def by_force(server):
    """Processes that stand still do not end by themselves."""
    yield
    for one in server.started:
        kill_session(one.pid)


def pause(pid: int, then) -> None:
    """Stop the worker, do something, and let it go on when its deadlines are over."""
    stop_process(pid)
    then()
    time.sleep(TIMEOUT_S)
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("begun", [0, 30, len(UPLOAD) - 500], ids=["keepalive", "head", "body"])
def test_what_came_in_the_pause_is_read_before_a_deadline_is_over(server, begun):
    """The deadline of an idle connection, of a head or of a body; the rest of the request came in time."""
    one = server("large", "--keep-alive", "1", "--client-header-timeout", "1", "--client-body-timeout", "1")
    (worker,) = one.workers()
    for _ in range(5):
        with one.connect() as client:
            assert client.request().text == "fast"
            client.send(UPLOAD[:begun])
            pause(worker, lambda client=client: client.send(UPLOAD[begun:]))
            assert client.read_response().text == str(len(BODY))


def test_a_pause_is_not_the_clients_time(server):
    """The whole machine stood still, and the client with it: it goes on where it was."""
    one = server("large", "--keep-alive", "3")
    (worker,) = one.workers()
    with one.connect() as client:
        assert client.request().text == "fast"
        pause(worker, lambda: time.sleep(3))
        assert client.request().text == "fast"


def test_a_client_that_has_read_in_the_pause_gets_the_rest(server):
    one = server("large", "--send-timeout", "1")
    (worker,) = one.workers()
    with Client(one.address, 20, receive_buffer=4096) as client:
        client.send_request("GET", "/large")
        assert client.read_head().status == 200
        rest = []
        pause(worker, lambda: rest.append(take_what_is_there(client)))
        (taken,) = rest
        assert 0 < taken < 16 * 1024 * 1024
        client.read_exactly(16 * 1024 * 1024 - taken)


def take_what_is_there(client: Client) -> int:
    """Until a tenth of a second brings nothing. Returns how many bytes that was."""
    taken = len(client.buffered())
    client.socket.settimeout(0.1)
    try:
        while block := client.socket.recv(1 << 20):
            taken += len(block)
    except TimeoutError:
        pass
    client.socket.settimeout(20)
    return taken


def is_draining(one, pid: int) -> bool:
    lines = [line for line in ask(one, "show workers").splitlines() if str(pid) in line.split()]
    return any("stopping" in line for line in lines)


def draining_worker_with_a_kept_connection(one) -> tuple[int, Client]:
    """A reload is under way, and the worker awaits a last request on the client's connection. It stands still."""
    for _ in range(10):
        before = one.workers()
        client = one.connect()
        worker = int(client.request("GET", "/echo?x").text.split(" ")[1])
        one.send_signal(signal.SIGHUP)
        wait_until(lambda worker=worker: is_draining(one, worker) or worker not in one.workers(), "it drains")
        try:
            stop_process(worker)
        except ProcessLookupError:
            pass
        else:
            if client.has_nothing_to_read():
                return worker, client
            os.kill(worker, signal.SIGCONT)
        # The machine was slow: the half second for a last request is over.
        client.close()
        wait_until(lambda before=before: not set(before) & set(one.workers()), "the reload is over")
    raise AssertionError("the worker was never seen while it drains")


def test_a_last_request_that_came_in_the_pause_of_a_reload_is_answered(server):
    one = server("echo", "--threads", "2", "--graceful-timeout", "60")
    path_of(one)
    worker, client = draining_worker_with_a_kept_connection(one)
    with client:
        pause(worker, lambda: client.send_request("GET", "/echo?last"))
        answer = client.read_response()
        assert (answer.text, answer.header("Connection")) == (f"last {worker}", "close")
    wait_until(lambda: worker not in one.workers(), "it has left")
