"""Bodies that arrive a byte at a time, and clients that say nothing at all: neither keeps a place for ever."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time

import pytest

from harness import wait_until
from wire import Client, Disconnected, encode_request

pytestmark = [pytest.mark.ours, pytest.mark.slow]

APP = "bodies"
# Seconds of silence, and bytes in a second on average. The rate is asked for once the timeout has passed.
BOUNDED = {"FERRICORN_CLIENT_BODY_TIMEOUT": "1", "FERRICORN_CLIENT_BODY_MIN_RATE": "1000"}


def drip(client, pieces, pause):
    """Send the pieces one by one until the server answers; returns seconds until it did, None if it did not."""
    began = time.monotonic()
    client.socket.settimeout(pause)
    for piece in pieces:
        try:
            client.send(piece)
            client.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        except OSError:
            pass
        return time.monotonic() - began
    return None


DRIPS = {
    "length": ([("Content-Length", "100000")], b"x"),
    "chunks": ([("Transfer-Encoding", "chunked")], b"1\r\nx\r\n"),
    "extension": ([("Transfer-Encoding", "chunked")], b"1;a=b\r\nx\r\n"),
}


@pytest.mark.parametrize(
    ("kind", "how"), [("length", "buffered"), ("chunks", "buffered"), ("extension", "buffered"), ("length", "streamed")]
)
def test_a_body_that_arrives_a_byte_at_a_time_is_ended(server, kind, how):
    """Setting `client_body_min_rate`; each byte comes within the timeout."""
    buffering = ("--no-request-buffering",) if how == "streamed" else ()
    one = server(APP, "--threads", "2", *buffering, env=BOUNDED)
    headers, piece = DRIPS[kind]
    with one.connect() as client:
        client.send_request("POST", "/upload", headers)
        took = drip(client, [piece] * 30, 0.2)
        assert took is not None and took < 5
        client.socket.settimeout(5)
        with contextlib.suppress(Disconnected):
            assert client.read_response().status == 408
    assert one.get("/").status == 200


@pytest.mark.parametrize("tail", [b"1", b"X: ", b"0"], ids=["size", "trailer", "last"])
def test_a_chunk_head_or_trailer_that_arrives_a_byte_at_a_time_is_ended(server, tail):
    one = server(APP, "--threads", "2", env=BOUNDED)
    with one.connect() as client:
        client.send_request("POST", "/upload", [("Transfer-Encoding", "chunked")])
        client.send(b"1\r\nx\r\n" + (b"0\r\n" if tail != b"1" else b"") + (tail if tail != b"0" else b""))
        took = drip(client, [b"0" if tail == b"1" else b"y"] * 14, 0.3)
        assert took is not None and took < 4.5


def test_a_body_that_arrives_slowly_but_fast_enough_is_taken(server):
    one = server(APP, "--threads", "2", env=BOUNDED)
    body = bytes(range(256)) * 40
    with one.connect() as client:
        client.send_request("POST", "/upload", [("Content-Length", str(len(body)))])
        for at in range(0, len(body), 512):
            client.send(body[at : at + 512])
            time.sleep(0.12)
        assert client.read_response().text == f"{len(body)} {hashlib.sha1(body).hexdigest()}"


def test_a_body_that_pauses_for_less_than_the_timeout_is_taken(server):
    """A burst, a pause, a burst."""
    one = server(APP, "--threads", "2", env=BOUNDED)
    body = b"x" * 200_000
    with one.connect() as client:
        client.send_request("POST", "/upload", [("Content-Length", str(2 * len(body)))])
        client.send(body)
        time.sleep(0.7)
        client.send(body)
        assert client.read_response().text.startswith(f"{2 * len(body)} ")


def test_a_client_whose_bytes_the_application_does_not_take_is_not_slow(server, gates):
    """It is the server that does not read: longer than the timeout, at no rate at all."""
    one = server(APP, "--threads", "2", "--no-request-buffering", env=BOUNDED)
    body = b"x" * (8 << 20)
    with one.connect() as client:
        client.send_request("POST", "/upload?gate=read", [("Content-Length", str(len(body)))])
        sender = threading.Thread(target=client.send, args=(body,))
        sender.start()
        gates.wait_reached("read")
        time.sleep(2.5)
        gates.open("read")
        sender.join(10)
        assert client.read_response().text.startswith(f"{len(body)} ")


# -- at worker_connections -------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [10, 40])
def test_who_has_sent_nothing_makes_room_for_who_waits(server, silent):
    one = server(APP, "--threads", "2", "--worker-connections", "10")
    with contextlib.ExitStack() as stack:
        for _ in range(silent):
            stack.enter_context(one.connect())
        began = time.monotonic()
        with Client(one.address, 4) as client:
            assert client.request("GET", "/").status == 200
        assert time.monotonic() - began < 4


HALVES = {
    "head": b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ",
    "line": b"GE",
    "handshake": bytes.fromhex("1603010200010001fc0303"),
    "nothing": b"",
}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("drips", [False, True])
def test_who_has_sent_half_a_head_or_handshake_makes_room(server, tmp_path, half, drips):
    """Long before `client_header_timeout`, and also when there is a byte of it now and then."""
    if drips and half in ("nothing", "line"):
        pytest.skip("nothing to go on with")
    arguments, context = (), None
    if half == "handshake":
        authority = pytest.importorskip("authorities").Authority(tmp_path)
        certificate, key = authority.sign("server")
        arguments, context = ("--certfile", str(certificate), "--keyfile", str(key)), authority.client()
    one = server(APP, "--threads", "2", "--worker-connections", "10", *arguments)
    with contextlib.ExitStack() as stack:
        halves = [stack.enter_context(Client(one.address, 10)) for _ in range(30)]
        for client in halves:
            client.send(HALVES[half])
        is_over = threading.Event()

        def drip_all():
            while not is_over.wait(0.3):
                for client in halves:
                    with contextlib.suppress(OSError):
                        client.send(b"x")

        dripping = threading.Thread(target=drip_all)
        if drips:
            dripping.start()
            stack.callback(dripping.join)
            stack.callback(is_over.set)
        began = time.monotonic()
        with Client(one.address, 12) as client:
            if context:
                client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
            assert client.request("GET", "/").status == 200
        assert time.monotonic() - began < 10


def test_half_a_head_that_made_room_is_in_the_access_log(server, tmp_path):
    log = tmp_path / "access.log"
    one = server(APP, "--threads", "2", "--worker-connections", "2", "--access-logfile", str(log))
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            client = stack.enter_context(one.connect())
            client.send(HALVES["head"])
        assert one.get("/").status == 200
    wait_until(lambda: " 408 " in log.read_text(), "its line")


def test_at_the_limit_a_client_that_stands_still_makes_room_at_last(server):
    """Halves of bodies and responses that are not read keep their places for 10 s."""
    one = server(APP, "--threads", "4", "--worker-connections", "6")
    with contextlib.ExitStack() as stack:
        for number in range(6):
            client = stack.enter_context(Client(one.address, 10, receive_buffer=4096))
            if number % 2:
                client.send_request("POST", "/upload", [("Content-Length", "10")], b"half.")
            else:
                client.send_request("GET", "/made?size=8000000")
        with Client(one.address, 20) as client:
            assert client.request("GET", "/").status == 200


def test_who_is_about_to_send_is_not_taken_for_silent(server):
    """Three times as many as there are places for; each sends a moment after it has connected."""
    one = server(APP, "--threads", "2", "--worker-connections", "10")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(one.connect()) for _ in range(30)]
        time.sleep(0.2)
        for client in clients:
            client.send_request("GET", "/", [("Connection", "close")])
        for client in clients:
            assert client.read_response().status == 200


def test_who_waits_for_an_answer_or_sends_a_body_does_not_make_room(server, gates):
    one = server(APP, "--threads", "12", "--worker-connections", "10")
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(one.connect()) for _ in range(4)]
        for client in waiting:
            client.send_request("GET", "/sleep?s=1.5")
        sending = [stack.enter_context(one.connect()) for _ in range(4)]
        for client in sending:
            client.send_request("POST", "/upload", [("Content-Length", "10")], b"half.")
        for _ in range(6):
            with contextlib.suppress(TimeoutError, Disconnected), Client(one.address, 3) as client:
                client.request("GET", "/")
        for client in waiting:
            assert client.read_response().text == "slept"
        for client in sending:
            client.send(b"half.")
            assert client.read_response().text.startswith("10 ")


def test_half_a_head_is_ended_by_its_time_however_it_arrives(server):
    one = server(APP, "--threads", "2", env={"FERRICORN_CLIENT_HEADER_TIMEOUT": "1"})
    with one.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ")
        took = drip(client, [b"x"] * 20, 0.2)
        assert took is not None and took < 3
    with one.connect() as client:
        client.send(encode_request("GET", "/")[:-2])
        took = drip(client, [b"X-%d: y\r\n" % number for number in range(20)], 0.2)
        assert took is not None and took < 3
