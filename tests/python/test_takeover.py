"""A view that never returns costs its worker at `timeout`. What waits behind it is answered by the next worker."""

from __future__ import annotations

import contextlib
import signal

import pytest
from test_health import figure

from harness import HAS_GIL, wait_until
from wire import Disconnected, encode_chunks, encode_request

pytestmark = pytest.mark.slow

ARGUMENTS = pytest.mark.parametrize(
    ("arguments", "workers"),
    [
        (("-k", "sync"), 1),
        (("-k", "sync"), 2),
        (("-k", "sync", "--preload"), 1),
        # What waits at the socket of a worker of gunicorn is lost with it.
        pytest.param(("-k", "sync", "--reuse-port"), 2, marks=pytest.mark.ours),
    ],
    ids=["one", "two", "preload", "reuse-port"],
)


@contextlib.contextmanager
def all_stuck(one, gates, workers):
    """Clients whose views do not return, in every worker."""
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(workers):
            client = stack.enter_context(one.connect())
            client.send_request("GET", f"/stuck?stuck{number}")
            gates.wait_reached(f"stuck{number}")
            clients.append(client)
        yield clients


def is_cut(client):
    """gunicorn 27 answers 500 where the exception of its handler passes through the view."""
    try:
        return client.read_response().status == 500
    except (Disconnected, OSError):
        return True


@ARGUMENTS
def test_what_waits_behind_stuck_views_is_answered_by_the_next_worker_once(server, gates, arguments, workers):
    one = server("stuck", *arguments, "--timeout", "2", workers=workers)
    before = {str(pid) for pid in one.booted()}
    with all_stuck(one, gates, workers) as stuck, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(one.connect(30)) for _ in range(20)]
        for number, client in enumerate(waiting):
            client.send_request("GET", f"/?{number}")
        responses = [client.read_response() for client in waiting]
        assert [response.status for response in responses] == [200] * 20
        assert not before & {response.text.split()[0] for response in responses}
        assert {response.text.split()[1] for response in responses} == {str(one.port)}
        assert all(is_cut(client) for client in stuck)
    assert sorted(gates.notes("ran")) == sorted(f"{number}=" for number in range(20))
    assert one.stop() == 0


@pytest.mark.ours
def test_whatever_a_client_has_sent_so_far_reaches_the_next_worker(server, gates):
    """gunicorn's worker would wait for the client that sends nothing, and serve no other."""
    one = server("stuck", "-k", "sync", "--timeout", "2")
    body = "x" * 20_000
    head = encode_request("GET", "/?half")
    with all_stuck(one, gates, 1), contextlib.ExitStack() as stack:
        silent, half, counted, chunked, pipelined = (stack.enter_context(one.connect(30)) for _ in range(5))
        half.send(head[:10])
        counted.send(encode_request("POST", "/?counted", [("Content-Length", str(len(body)))], body.encode()))
        chunked.send(encode_request("POST", "/?chunked", [("Transfer-Encoding", "chunked")]))
        chunked.send(encode_chunks(b"one ", body.encode()))
        pipelined.send(encode_request("GET", "/?first") + encode_request("GET", "/?second"))
        assert counted.read_response().text.endswith(f" {body}")
        assert chunked.read_response().text.endswith(f" one {body}")
        half.send(head[10:])
        silent.send(encode_request("GET", "/?silent"))
        assert half.read_response().status == silent.read_response().status == 200
        assert [pipelined.read_response().status for _ in range(2)] == [200] * 2
    names = [note.partition("=")[0] for note in gates.notes("ran")]
    assert sorted(names) == ["chunked", "counted", "first", "half", "second", "silent"]
    assert one.stop() == 0


@pytest.mark.ours
def test_five_hundred_clients_wait_for_the_next_worker(server, gates):
    one = server("stuck", "-k", "sync", "--timeout", "3")
    with all_stuck(one, gates, 1), contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(one.connect(60)) for _ in range(500)]
        for number, client in enumerate(waiting):
            client.send_request("GET", f"/?{number}")
        assert [client.read_response().status for client in waiting] == [200] * 500
    assert sorted(gates.notes("ran")) == sorted(f"{number}=" for number in range(500))
    assert one.stop() == 0


@pytest.mark.ours
def test_a_worker_that_is_stuck_at_the_end_of_graceful_timeout_leaves_what_waits_to_the_others(server, gates):
    """gunicorn's worker waits for its view without a limit of its own, and is killed; it has accepted nothing else."""
    one = server("stuck", "-k", "sync", "--graceful-timeout", "2", "--admin-bind", "127.0.0.1:0")
    (before,) = one.booted()
    with all_stuck(one, gates, 1), contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(one.connect(30)) for _ in range(5)]
        for number, client in enumerate(waiting):
            client.send_request("GET", f"/?{number}")
        wait_until(lambda: figure(one, "queue_length") == 5, "all of them wait in the worker")
        one.send_signal(signal.SIGHUP)
        responses = [client.read_response() for client in waiting]
        assert [response.status for response in responses] == [200] * 5
        assert str(before) not in {response.text.split()[0] for response in responses}
    assert one.stop() == 0


@pytest.mark.ours
def test_what_waits_is_not_left_when_the_server_stops(server, gates):
    """No worker will come: the clients are cut at graceful_timeout, and the log says how many."""
    one = server("stuck", "-k", "sync", "--graceful-timeout", "1", "--admin-bind", "127.0.0.1:0")
    with all_stuck(one, gates, 1), one.connect() as waiting:
        waiting.send_request("GET", "/?late")
        wait_until(lambda: figure(one, "queue_length") == 1, "it waits in the worker")
        one.send_signal(signal.SIGTERM)
        assert is_cut(waiting)
    assert one.wait_exit() == 0
    one.log.wait("2 connection\\(s\\) with a request in progress were cut")


@pytest.mark.ours
@pytest.mark.skipif(not HAS_GIL, reason="no request can hold the interpreter")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_what_waits_behind_c_code_that_holds_the_interpreter_is_answered_too(server, gates, threads):
    one = server("stuck", "--threads", threads, "--timeout", "2")
    (before,) = one.booted()
    with contextlib.ExitStack() as stack:
        holding = stack.enter_context(one.connect(30))
        holding.send_request("GET", "/hold?c")
        gates.wait_reached("c")
        waiting = [stack.enter_context(one.connect(30)) for _ in range(5)]
        for number, client in enumerate(waiting):
            client.send_request("GET", f"/?{number}")
        answers = {client.read_response().text.split()[0] for client in waiting}
        assert str(before) not in answers
        assert is_cut(holding)
    # A signal ends the sleep of the main thread.
    ran = [note for note in gates.notes("ran") if note != "c="]
    assert sorted(ran) == [f"{number}=" for number in range(5)]
    assert one.stop() == 0
