"""A connection of HTTP/2 without streams ends after `keepalive`, whatever it did before and whatever else it sends."""

from __future__ import annotations

import itertools
import time

import pytest
from frames import CANCEL, NO_ERROR, PROTOCOL_ERROR, Frames
from hyperframe.frame import DataFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from harness import PATIENCE_S, Server

pytestmark = pytest.mark.ours

H2C = ("--http-protocols", "h2", "--http2-cleartext", "prior-knowledge", "--threads", "2")
IDLE_S = 1
# `client_header_timeout` and a moment.
SLACK_S = 2 + 3
# Between two frames of a client that has nothing to ask.
PAUSE_S = 0.15


@pytest.fixture
def one(server) -> Server:
    timeouts = ("--client-header-timeout", "2", "--client-body-timeout", "1", "--request-timeout", "1")
    limits = (*timeouts, "--limit-request-body", "1000")
    return server("streams:application", *H2C, "--keep-alive", str(IDLE_S), *limits)


def end(client: Frames, pieces) -> float:
    """Send a piece now and then until the connection ends. Returns how long that took."""
    began = time.monotonic()
    client.socket.settimeout(PAUSE_S)
    while (waited := time.monotonic() - began) < PATIENCE_S:
        try:
            if not client.step():
                return waited
        except TimeoutError:
            try:
                client.send_bytes(next(pieces))
            except OSError:
                client.closed = True
                return waited
    raise AssertionError(f"still open after {PATIENCE_S} s: {client.goaways}")


PING = PingFrame(0, opaque_data=b"12345678").serialize()
PIECES = {
    "nothing": [b""],
    "pings": [PING],
    "pings in halves": [PING[:5], PING[5:]],
    "pings across writes": [PING[8:] + PING[:8]],
    "settings": [SettingsFrame(0).serialize()],
    "windows": [WindowUpdateFrame(0, 1).serialize()],
    "priorities": [PriorityFrame(101, 0, 16).serialize()],
    "unknown frames": [b"\0\0\2\x50\0\0\0\0\0ab"],
}


@pytest.mark.parametrize("what", PIECES)
def test_frames_that_ask_for_nothing_extend_nothing(one, what):
    with Frames(one.address, PATIENCE_S) as client:
        assert client.reply(client.ask()).body == b"hello"
        pieces = itertools.cycle(PIECES[what])
        if what == "pings across writes":
            client.send_bytes(PING[:8])
        assert end(client, pieces) < IDLE_S + SLACK_S
        assert client.goaways == [(1, NO_ERROR)]


def slow_body(client: Frames, gates) -> None:
    stream = client.begin("/echo")
    client.send(DataFrame(stream, b"a"))
    assert client.reply(stream).status == 408


def large_body(client: Frames, gates) -> None:
    stream = client.begin("/echo", [("content-length", "2000")])
    assert client.reply(stream).status == 413


def long_path(client: Frames, gates) -> None:
    assert client.reply(client.ask("/" + "a" * 5000)).status == 414


def large_field(client: Frames, gates) -> None:
    assert client.reply(client.ask(fields=[("x", "a" * 9000)])).status == 431


def reset_by_client(client: Frames, gates) -> None:
    stream = client.begin("/echo")
    client.send(RstStreamFrame(stream, CANCEL))


def reset_while_running(client: Frames, gates) -> None:
    stream = client.ask("/gate/running")
    gates.wait_reached("running")
    client.send(RstStreamFrame(stream, CANCEL))
    gates.open("running")


def reset_by_server(client: Frames, gates) -> None:
    stream = client.begin("/echo", [("content-length", "1")])
    client.send(DataFrame(stream, b"ab"))
    assert client.reply(stream).reset == PROTOCOL_ERROR


def long_request(client: Frames, gates) -> None:
    stream = client.ask("/gate/long")
    gates.wait_reached("long")
    assert client.reply(stream).status == 504
    gates.open("long")


def early_answer(client: Frames, gates) -> None:
    """The response is whole, the body never is."""
    assert client.reply(client.begin("/")).status in (200, 408)


ENDS = [
    slow_body,
    large_body,
    long_path,
    large_field,
    reset_by_client,
    reset_while_running,
    reset_by_server,
    long_request,
    early_answer,
]


@pytest.mark.parametrize("what", ["nothing", "pings"])
@pytest.mark.parametrize("ended", ENDS, ids=lambda ended: ended.__name__)
def test_however_the_last_stream_has_ended(one, gates, ended, what):
    with Frames(one.address, PATIENCE_S) as client:
        ended(client, gates)
        assert end(client, itertools.cycle(PIECES[what])) < IDLE_S + SLACK_S
        assert [code for _, code in client.goaways] == [NO_ERROR]


def test_a_request_that_is_refused_at_once_extends_it(one):
    with Frames(one.address, PATIENCE_S) as client:
        began = time.monotonic()
        while time.monotonic() - began < 1.5 * IDLE_S:
            assert client.reply(client.ask("/" + "a" * 5000)).status == 414


def test_without_keepalive_it_ends_with_its_last_stream(server, gates):
    with Frames(server("streams:application", *H2C, "--keep-alive", "0").address, PATIENCE_S) as client:
        gated = client.ask("/gate/last")
        gates.wait_reached("last")
        assert client.reply(client.ask()).body == b"hello"
        gates.open("last")
        assert client.reply(gated).body == b"gated"
        assert end(client, itertools.cycle([PING])) < SLACK_S
        assert {code for _, code in client.goaways} == {NO_ERROR}
