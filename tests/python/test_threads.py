"""The pool: real threads with names and thread-locals, as many as asked, and Python at its ease in them."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from harness import IS_OURS


def told(one, count=1):
    return [json.loads(one.get("/thread").body) for _ in range(count)]


def test_requests_run_in_ordinary_threads(server):
    one = server("lifecycle", "--threads", "2")
    for thread in told(one, 5):
        assert thread["class"] == "Thread"
        assert thread["listed"]
        assert not thread["main"]
        assert thread["limit"] >= 1000
        if IS_OURS:
            assert re.fullmatch(r"ferricorn-thread_[01]", thread["name"])
            assert not thread["daemon"], "threads that views start would inherit it"
            assert {"ferricorn-thread_0", "ferricorn-thread_1", "MainThread"} <= set(thread["threads"])


def test_thread_locals_last(server):
    one = server("lifecycle", "--threads", "2")
    threads = told(one, 40)
    assert len({thread["ident"] for thread in threads}) <= 2
    last = {thread["ident"]: thread["count"] for thread in threads}
    assert sum(last.values()) == 40, "each thread counted its own requests and forgot none"


def test_as_many_requests_run_as_there_are_threads(server, gates):
    one = server("lifecycle", "--threads", "3")
    clients = {name: one.connect() for name in "abcd"}
    for name in "abc":
        clients[name].send_request("GET", f"/block?{name}")
    for name in "abc":
        gates.wait_reached(name)
    clients["d"].send_request("GET", "/block?d")
    gates.open("a")
    assert clients["a"].read_response().text == "unblocked a"
    # A thread came free, and only now may the fourth have started.
    gates.wait_reached("d")
    for name in "bcd":
        gates.open(name)
        assert clients[name].read_response().text == f"unblocked {name}"
        clients[name].close()


def test_one_thread_runs_one_request_at_a_time(server, gates):
    one = server("lifecycle", "--threads", "1")
    with one.connect() as first, one.connect() as second:
        first.send_request("GET", "/block?first")
        gates.wait_reached("first")
        second.send_request("GET", "/pid")
        assert second.has_nothing_to_read()
        gates.open("first")
        assert first.read_response().text == "unblocked first"
        assert second.read_response().status == 200


def test_a_blocking_request_does_not_block_others(server, gates):
    one = server("lifecycle", "--threads", "2")
    with one.connect() as slow:
        slow.send_request("GET", "/block?slow")
        gates.wait_reached("slow")
        for _ in range(20):
            assert one.get("/pid").status == 200
        gates.open("slow")
        assert slow.read_response().text == "unblocked slow"


def test_pipelined_requests_of_one_connection_never_run_at_once(server, gates):
    one = server("lifecycle", "--threads", "2")
    with one.connect() as client:
        client.send_request("GET", "/block?first")
        client.send_request("GET", "/block?next")
        gates.wait_reached("first")
        assert one.get("/pid").status == 200
        assert not gates.reached("next")
        gates.open("first")
        gates.open("next")
        assert [client.read_response().text for _ in range(2)] == ["unblocked first", "unblocked next"]


def test_application_is_imported_in_the_main_thread(server, gates):
    server("lifecycle", "--threads", "2")
    assert gates.wait_notes("import") == ["main thread"]


def test_signal_handlers_of_the_application_run(server, gates):
    """Also while no request is there to wake the worker."""
    one = server("lifecycle", "--threads", "2")
    one.get("/pid")
    (worker,) = one.workers()
    for count in (1, 2):
        os.kill(worker, signal.SIGALRM)
        assert gates.wait_notes("alarm", count) == ["main thread"] * count
    assert one.get("/pid").text == str(worker)


def test_background_threads_of_the_application_run_while_the_server_is_idle(server, gates):
    server("lifecycle", "--threads", "2", env={"TICK": "1"})
    assert gates.wait_notes("tick", 20) == [str(number) for number in range(20)]


def test_application_may_run_programs(server):
    assert server("lifecycle", "--threads", "2").get("/run_program").text == "out\n3"


def test_application_may_run_an_event_loop(server):
    assert server("lifecycle", "--threads", "2").get("/run_asyncio").text == "asyncio"


@pytest.mark.ours
def test_idle_connections_cost_no_thread(server):
    one = server("lifecycle", "--threads", "2", "--worker-connections", "1000")
    (worker,) = one.workers()
    one.get("/pid")
    before = len(list(Path(f"/proc/{worker}/task").iterdir()))
    clients = [one.connect() for _ in range(300)]
    try:
        for client in clients:
            assert client.request("GET", "/pid").header("Connection") in (None, "keep-alive")
        assert len(list(Path(f"/proc/{worker}/task").iterdir())) == before
    finally:
        for client in clients:
            client.close()


@pytest.mark.ours
def test_worker_at_rest_does_not_spin(server):
    """Almost no CPU time passes between two moments that an idle server's heartbeat separates."""
    one = server("lifecycle", "--threads", "2", workers=2)
    one.get("/pid")

    def cpu_ticks():
        return sum(
            sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]))
            for pid in [one.pid, *one.workers()]
        )

    before = cpu_ticks()
    assert one.get("/sleep?2").text == "slept"
    assert cpu_ticks() - before <= 0.2 * os.sysconf("SC_CLK_TCK")


@pytest.mark.ours
def test_threads_that_take_one_lock_again_and_again_do_not_fall_into_step(server):
    """Each use of the lock would be two switches of threads, hundreds in a request that takes a millisecond."""
    one = server("locks", "--threads", "2")
    [worker] = one.workers()
    count, clients = 100, [one.connect() for _ in range(16)]
    before = times_waited(worker)
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * count)
    for client in clients:
        for _ in range(count):
            assert client.read_response().text == "15000"
        client.close()
    waited = times_waited(worker) - before
    assert waited / (count * len(clients)) < 60, "most requests were served by one thread at a time"


def times_waited(pid):
    """How often the threads of a process have given up their processor so far."""
    texts = [(thread / "status").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.MULTILINE).group(1)) for text in texts)
