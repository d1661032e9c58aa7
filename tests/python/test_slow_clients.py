"""Slow, silent and absent peers hold no thread: with two threads a fast client is always served.

The bounds are loose on purpose: without the behaviour these tests hang for minutes, with it they take a moment.
"""

from __future__ import annotations

import time

import pytest

from harness import PATIENCE_S
from wire import Client, encode_request

pytestmark = pytest.mark.ours

FAST_REQUESTS = 50


@pytest.fixture
def clients():
    opened: list[Client] = []
    yield opened
    for client in opened:
        client.close()


def assert_fast(one):
    """Fifty requests, on old and new connections, in far less time than any timeout."""
    started = time.monotonic()
    with one.connect() as client:
        for _ in range(FAST_REQUESTS // 2):
            assert client.request().text == "fast"
    for _ in range(FAST_REQUESTS // 2):
        assert one.get().text == "fast"
    assert time.monotonic() - started < PATIENCE_S / 2


def test_half_heads(server, clients):
    one = server("large", "--threads", "2")
    for _ in range(50):
        clients.append(one.connect())
        clients[-1].send(b"GET /slow HTTP/1.1\r\nHost: a\r\nX-Half")
    assert_fast(one)
    for client in clients:
        client.send(b": 1\r\n\r\n")
        assert client.read_response().text == "fast"


def test_half_bodies(server, clients):
    one = server("large", "--threads", "2")
    for _ in range(50):
        clients.append(one.connect())
        clients[-1].send_request("POST", "/upload", [("Content-Length", "10")], b"half.")
    assert_fast(one)
    for client in clients:
        client.send(b"half.")
        assert client.read_response().text == "10"


def test_silent_connections(server, clients):
    one = server("large", "--threads", "2")
    clients.extend(one.connect() for _ in range(100))
    assert_fast(one)


def test_peers_that_do_not_read(server, clients):
    one = server("large", "--threads", "2")
    for _ in range(20):
        clients.append(Client(one.address, PATIENCE_S, receive_buffer=4096))
        clients[-1].send_request("GET", "/large")
        assert clients[-1].read_head().status == 200
    assert_fast(one)
    assert len(clients[0].read_exactly(16 * 1024 * 1024)) == 16 * 1024 * 1024, "a client that reads late gets all of it"


def test_peers_that_pipeline_and_do_not_read(server, clients):
    one = server("large", "--threads", "2")
    for _ in range(20):
        clients.append(Client(one.address, PATIENCE_S, receive_buffer=4096))
        clients[-1].send(encode_request("GET", "/large") * 20)
        assert clients[-1].read_head().status == 200
    assert_fast(one)


def test_stream_to_a_peer_that_does_not_read_is_cut_in_time(server, clients):
    """A generator belongs to its thread, so its peer has `send_timeout` to take something."""
    one = server("large", "--threads", "2", env={"FERRICORN_SEND_TIMEOUT": "1"})
    for _ in range(4):
        clients.append(Client(one.address, PATIENCE_S, receive_buffer=4096))
        clients[-1].send_request("GET", "/large_stream")
    for client in clients[:2]:
        assert client.read_head().status == 200
    assert one.get().text == "fast"


def test_peers_that_keep_their_side_open_after_a_close(server, clients):
    one = server("large", "--threads", "2")
    for _ in range(30):
        clients.append(one.connect())
        assert clients[-1].request("GET", "/", [("Connection", "close")]).text == "fast"
    assert_fast(one)


def test_more_connections_than_allowed_wait_their_turn(server, clients):
    """At worker_connections idle connections make room for new ones."""
    one = server("large", "--threads", "2", "--worker-connections", "10")
    for _ in range(10):
        clients.append(one.connect())
        assert clients[-1].request().text == "fast"
    assert_fast(one)


def test_slow_reader_gets_everything(server):
    one = server("large", "--threads", "2")
    with Client(one.address, PATIENCE_S, receive_buffer=4096) as client:
        client.send_request("GET", "/large_stream")
        answer = client.read_response()
        assert len(answer.body) == 16 * 1024 * 1024


def test_peers_that_reset_do_no_harm(server):
    one = server("large", "--threads", "2")
    for sent in (b"", b"GET / HT", encode_request("GET", "/large"), encode_request("GET", "/large_stream")):
        for _ in range(10):
            client = one.connect()
            client.send(sent)
            client.reset()
    assert_fast(one)
    assert "Traceback" not in one.log.text
    assert "panicked" not in one.log.text
