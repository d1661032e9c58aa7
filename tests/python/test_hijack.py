"""Connections that leave HTTP: flask-sock, the raw socket, and what the server still knows of them."""

from __future__ import annotations

import signal
import time

import pytest
import websocket

from harness import HAS_GIL

GREEN = pytest.mark.skipif(not HAS_GIL, reason="greenlets are not safe without a GIL")
pytestmark = pytest.mark.ours

APP = "sockets:application"
UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "loud")]


def open_websocket(one, path: str) -> websocket.WebSocket:
    return websocket.create_connection(f"ws://{one.address[0]}:{one.port}{path}", timeout=20)


def test_flask_sock_echoes_ten_thousand_messages_and_the_client_closes(server, gates):
    one = server(APP, "--threads", "2", "--access-logfile", "-")
    client = open_websocket(one, "/echo")
    for number in range(10_000):
        client.send(f"message {number}")
        assert client.recv() == f"message {number}"
    client.send_binary(b"\x00" * 100_000)
    assert client.recv() == b"\x00" * 100_000
    client.close()
    gates.wait_notes("echo")
    one.output.wait(r'"GET /echo HTTP/1.1" 101 0')
    assert one.get("/").text == "plain"
    assert one.stop() == 0
    assert "Traceback" not in one.log.text, one.log.text


def test_flask_sock_closes_from_the_servers_side(server):
    one = server(APP, "--threads", "2", "--access-logfile", "-")
    client = open_websocket(one, "/bye")
    assert client.recv() == "bye"
    opcode, _ = client.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    client.sock.settimeout(20)
    assert client.sock.recv(1) == b"", "the connection ends with the conversation"
    one.output.wait(r'"GET /bye HTTP/1.1" 101 0')
    assert "Traceback" not in one.log.text, one.log.text


@pytest.mark.parametrize(
    "kind", ["gthread", pytest.param("gevent", marks=GREEN), pytest.param("eventlet", marks=GREEN)]
)
@pytest.mark.parametrize("propagates", ["", "1"], ids=["answered", "raised"])
def test_a_conversation_that_fails_ends_the_connection(server, kind, propagates):
    """simple-websocket goes on to read: without an end the client would wait for ever."""
    one = server(APP, "-k", kind, env={"PROPAGATE": propagates})
    client = open_websocket(one, "/fails")
    client.send("last")
    assert client.recv() == "last"
    assert client.sock.recv(1) == b""
    one.log.wait("the conversation has failed")
    assert one.get("/").text == "plain"


def test_a_client_that_vanishes_ends_the_conversation(server, gates):
    one = server(APP, "--access-logfile", "-")
    client = open_websocket(one, "/echo")
    gates.wait_reached("connected")
    client.sock.close()
    gates.wait_notes("echo")
    # The only thread is free again.
    assert one.get("/").text == "plain"


def test_one_thread_serves_one_websocket_after_the_other(server):
    one = server(APP)
    for _ in range(20):
        client = open_websocket(one, "/echo")
        client.send("x")
        assert client.recv() == "x"
        client.close()


def test_the_drain_waits_for_a_websocket(server, gates):
    one = server(APP, "--threads", "2", "--graceful-timeout", "20")
    client = open_websocket(one, "/echo")
    gates.wait_reached("connected")
    one.send_signal(signal.SIGTERM)
    one.log.wait("Handling signal: term")
    client.send("still there")
    assert client.recv() == "still there"
    assert one.process.poll() is None
    client.close()
    assert one.wait_exit() == 0


def test_graceful_timeout_bounds_a_websocket(server, gates):
    one = server(APP, "--threads", "2", "--graceful-timeout", "1")
    client = open_websocket(one, "/echo")
    gates.wait_reached("connected")
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 10
    assert "1 connection(s) with a request in progress were cut" in one.log.text
    assert "GET /echo" in one.log.text, "the request that was cut is named"
    with pytest.raises((OSError, websocket.WebSocketConnectionClosedException)):
        client.recv()


def test_the_socket_is_a_plain_one_once_it_is_used(server, gates):
    one = server(APP, "--threads", "2", "--access-logfile", "-")
    with one.connect() as client:
        client.send_request("GET", "/raw", UPGRADE)
        assert client.read_head().status == 101
        client.send(b"hello\n")
        assert client.read_until(b"\n") == b"HELLO\n"
        client.socket.shutdown(1)
        assert client.read_to_end() == b""
    assert gates.wait_notes("type") == ["True <socket.socket that this request may hijack>"]
    assert gates.wait_notes("after") == ["socket None"]
    one.output.wait(r'"GET /raw HTTP/1.1" 101 0')


def test_an_upgrade_may_be_refused_in_http(server, gates):
    one = server(APP, "--access-logfile", "-")
    with one.connect() as client:
        for _ in range(3):
            answer = client.request("GET", "/refuses", UPGRADE)
            assert (answer.status, answer.text, answer.header("Connection")) == (426, "no", "keep-alive")
        assert client.request("GET", "/").text == "plain"
    assert gates.notes("offered") == ["True"] * 3


@pytest.mark.parametrize(
    "headers",
    [[], [("Upgrade", "loud")], [("Connection", "Upgrade")], [("Connection", "close"), ("Upgrade", "loud")]],
)
def test_the_socket_is_offered_to_upgrades_only(server, gates, headers):
    one = server(APP)
    with one.connect() as client:
        client.request("GET", "/refuses", headers)
    assert gates.notes("offered") == ["False"]


def test_bytes_behind_the_head_stay_http(server, gates):
    one = server(APP)
    with one.connect() as client:
        head = b"GET /refuses HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: loud\r\n\r\n"
        client.send(head + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 426
        assert client.read_response().text == "plain"
    assert gates.notes("offered") == ["False"]


def test_the_socket_cannot_be_taken_from_a_response(server):
    one = server(APP)
    with one.connect() as client:
        answer = client.request("GET", "/late", UPGRADE)
        assert answer.text == "firstthe response has begun: the client's socket is the server's"
        assert client.request("GET", "/").text == "plain"
