"""Clients that read their responses a little at a time: they keep a place for as long as they read fast enough."""

from __future__ import annotations

import time

import pytest
from frames import CANCEL, Frames, WindowUpdateFrame

from wire import Client, Disconnected

pytestmark = [pytest.mark.ours, pytest.mark.slow]

APP = "bodies"
MIB = 1 << 20


def slow_reader(server, tmp_path, rate, shape):
    """A client on a unix socket, whose server notices each 160 KB that are read."""
    settings = {"FERRICORN_SEND_TIMEOUT": "2", "FERRICORN_SEND_MIN_RATE": str(rate)}
    one = server(APP, "--threads", "2", bind=[f"unix:{tmp_path}/s"], env=settings)
    client = one.connect()
    client.send_request("GET", f"/made?size={32 * MIB}&shape={shape}")
    return one, client


def read_slowly(client: Client, seconds):
    """500 KB per second. Returns when the server ended the connection; `None`: it did not."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        try:
            client.read_exactly(100_000)
        except Disconnected:
            return time.monotonic() - began
        time.sleep(0.2)
    return None


@pytest.mark.parametrize("shape", ["list", "stream"])
def test_a_client_that_reads_too_slowly_is_ended(server, tmp_path, shape):
    """Each time it reads within `send_timeout`."""
    one, client = slow_reader(server, tmp_path, 4_000_000, shape)
    with client:
        client.read_head()
        took = read_slowly(client, 10)
        assert took is not None and took > 1
    assert one.get("/").status == 200


@pytest.mark.parametrize("rate", [0, 50_000])
@pytest.mark.parametrize("shape", ["list", "stream"])
def test_a_client_that_reads_fast_enough_is_served(server, tmp_path, rate, shape):
    _, client = slow_reader(server, tmp_path, rate, shape)
    with client:
        client.read_head()
        assert read_slowly(client, 5) is None


def test_a_stream_of_which_nothing_waits_is_not_slow(server, gates):
    """The application is silent for longer than the timeout, as long polls and event streams are."""
    settings = {"FERRICORN_SEND_TIMEOUT": "1", "FERRICORN_SEND_MIN_RATE": "1000000"}
    one = server("events", "--threads", "2", env=settings)
    with one.connect() as client:
        client.send_request("GET", "/")
        client.read_head()
        for number in range(4):
            assert client.read_chunk() == b"data: %d\n\n" % number
            time.sleep(0.7)
            gates.open(f"event-{number}")
        assert client.read_chunk() == b""


# -- HTTP/2: the client opens its windows as slowly as it likes -----------------------------------


def http2_reader(server, rate, shape, step, pause, seconds):
    """A client that opens the windows by `step` bytes each `pause`. Returns its reply."""
    settings = {"FERRICORN_SEND_TIMEOUT": "2", "FERRICORN_SEND_MIN_RATE": str(rate)}
    arguments = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")
    one = server(APP, "--threads", "2", *arguments, env=settings)
    with Frames(one.address, 20) as client:
        client.credits = False
        stream = client.ask(f"/made?size={4 * MIB}&shape={shape}")
        until = time.monotonic() + seconds
        client.socket.settimeout(pause)
        while time.monotonic() < until and not (stream in client.replies and client.replies[stream].over):
            try:
                while client.step():
                    pass
            except TimeoutError:
                client.send(WindowUpdateFrame(0, step), WindowUpdateFrame(stream, step))
        client.socket.settimeout(20)
        assert client.reply(client.ask("/")).status == 200, "the connection lives on"
        return client.replies[stream]


@pytest.mark.parametrize("shape", ["list", "stream"])
def test_a_client_of_http2_that_opens_its_window_a_byte_at_a_time_is_ended(server, shape):
    """Each byte within `send_timeout`, which held a response and a thread for ever."""
    reply = http2_reader(server, 240, shape, 1, 0.2, 15)
    assert reply.reset == CANCEL


@pytest.mark.parametrize("rate", [0, 10_000])
@pytest.mark.parametrize("shape", ["list", "stream"])
def test_a_client_of_http2_that_reads_fast_enough_is_served(server, rate, shape):
    reply = http2_reader(server, rate, shape, 20_000, 0.2, 5)
    assert reply.reset is None and len(reply.body) > 200_000
