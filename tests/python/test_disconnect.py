"""Clients that leave while their request waits or runs."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.ours

APP = "leaving:application"


def let_the_loop_see(one) -> None:
    """The loop has handled what came before when it has refused something that came after; no thread is needed."""
    with one.connect() as client:
        client.send(b"BAD\r\n\r\n")
        client.read_to_end()


def test_an_application_can_ask_and_stop(server, gates):
    one = server(APP, "--threads", "2", "--access-logfile", "-")
    client = one.connect()
    client.send_request("GET", "/watches")
    gates.wait_reached("watching")
    client.reset()
    assert gates.wait_notes("watched") == ["True"]
    one.output.wait(r'"GET /watches HTTP/1.1" 499 0')


def test_a_client_that_waits_is_there_even_when_it_has_closed_its_side(server, gates):
    one = server(APP, "--threads", "2")
    with one.connect() as client:
        client.send_request("GET", "/waits")
        gates.wait_reached("go")
        client.socket.shutdown(1)
        let_the_loop_see(one)
        gates.open("go")
        assert client.read_response().text == "done"
    assert gates.notes("before") + gates.notes("after") == ["False", "False"]


def test_queued_requests_of_clients_that_are_gone_never_run(server, gates):
    one = server(APP, "--threads", "1", "--access-logfile", "-")
    with one.connect() as running, one.connect() as behind:
        running.send_request("GET", "/waits")
        gates.wait_reached("go")
        leaving = [one.connect() for _ in range(10)]
        for number, client in enumerate(leaving):
            client.send_request("GET", f"/left/{number}")
        behind.send_request("GET", "/behind")
        let_the_loop_see(one)
        for client in leaving:
            client.reset()
        let_the_loop_see(one)
        gates.open("go")
        assert running.read_response().text == "done"
        assert behind.read_response().text == "ok"
    assert gates.notes("run") == ["/waits", "/behind"]
    one.output.wait(r'"GET /left/\d HTTP/1.1" 499 0', 10)
