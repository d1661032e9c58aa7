"""Work goes where a thread is free: connections are spread over the workers, and do not wait behind a busy one."""

from __future__ import annotations

import collections
import threading
import time

import pytest

from harness import wait_until

pytestmark = pytest.mark.ours


def serving(server, *arguments, workers):
    """All workers have booted: the spread is measured among them."""
    one = server("shares", *arguments, "--admin-bind", "127.0.0.1:0", workers=workers)
    from test_health import figure

    wait_until(lambda: figure(one, 'workers{state="serving"}') == workers, "all serve")
    return one


@pytest.mark.parametrize("flags", [(), ("--preload",)])
def test_as_many_slow_requests_as_threads_are_spread_over_all_workers(server, flags):
    one = serving(server, "--threads", "2", *flags, workers=4)
    clients = [one.connect() for _ in range(8)]
    began = time.monotonic()
    for client in clients:
        client.send_request("GET", "/?0.5")
    workers = collections.Counter(client.read_response().text for client in clients)
    took = time.monotonic() - began
    for client in clients:
        client.close()
    assert sorted(workers.values()) == [2, 2, 2, 2], workers
    assert took < 0.95, "nobody waited for a second turn"


def test_kept_connections_are_spread_over_all_workers(server):
    one = serving(server, "--threads", "2", workers=4)
    # A worker that a busy machine lets stand still gets none meanwhile.
    assert any(is_even(one) for _ in range(5))


def is_even(one):
    """Whether 64 connections that are kept are spread evenly over four workers."""
    clients = [one.connect() for _ in range(64)]
    for client in clients:
        client.send_request("GET", "/")
    workers = collections.Counter(client.read_response().text for client in clients)
    for client in clients:
        client.close()
    wait_until(lambda: figure_of(one, "connections_open") == 0, "all are closed")
    return len(workers) == 4 and max(workers.values()) <= 1.2 * min(workers.values())


def test_a_request_does_not_wait_behind_a_busy_worker_while_another_is_free(server):
    one = serving(server, "--threads", "1", workers=2)
    clients = [one.connect() for _ in range(4)]
    homes = [client.request("GET", "/").text for client in clients]
    home, number = collections.Counter(homes).most_common(1)[0]
    assert number >= 2
    busy, kept = [client for client, its in zip(clients, homes, strict=True) if its == home][:2]
    busy.send_request("GET", "/?1.5")
    began = time.monotonic()
    wait_until(lambda: figure_busy(one) == 1, "the worker is busy")
    # Pipelined behind it: what was read travels with the connection.
    kept.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    first, second = kept.read_response(), kept.read_response()
    assert time.monotonic() - began < 1
    assert first.text == second.text
    # The connection stays where it went and goes on as any other.
    assert kept.request("GET", "/").text == first.text
    # A busy machine may have moved the slow one instead, before it began.
    assert busy.read_response().text != first.text
    for client in clients:
        client.close()


def figure_of(one, name):
    from test_health import figure

    return figure(one, name)


def figure_busy(one):
    return figure_of(one, "threads_busy")


def test_handover_can_be_switched_off(server):
    one = serving(server, "--threads", "1", "--no-handover", workers=2)
    clients = [one.connect() for _ in range(6)]
    homes = [client.request("GET", "/").text for client in clients]
    home, number = collections.Counter(homes).most_common(1)[0]
    assert number >= 3
    busy, kept = [client for client, its in zip(clients, homes, strict=True) if its == home][:2]
    busy.send_request("GET", "/?0.6")
    wait_until(lambda: figure_busy(one) == 1, "the worker is busy")
    began = time.monotonic()
    assert kept.request("GET", "/").text == home
    assert time.monotonic() - began > 0.3, "it waited for its own worker"
    assert busy.read_response().status == 200
    for client in clients:
        client.close()


def test_nothing_is_lost_while_connections_move_and_workers_change(server):
    one = serving(server, "--threads", "1", "--max-requests", "40", "--graceful-timeout", "10", workers=3)
    failures, served = [], []

    def ask(number):
        for round_ in range(40):
            try:
                with one.connect() as client:
                    for _ in range(3):
                        answer = client.request("GET", "/?0.02" if (number + round_) % 5 == 0 else "/")
                        served.append(answer.status)
                        if answer.header("Connection") == "close":
                            break
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:5]
    assert set(served) == {200}
