"""What the access log says of responses that are broken off: what the client has seen of them."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from frames import CANCEL, FLOW_CONTROL_ERROR, PROTOCOL_ERROR, Frames
from hyperframe.frame import DataFrame, PingFrame, RstStreamFrame
from test_disconnect import let_the_loop_see
from test_http2_violations import PING, WINDOW_UPDATE, frame, post, u32

from harness import PATIENCE_S, Server

pytestmark = pytest.mark.ours

FORMAT = "%(m)s %(U)s %(s)s %(B)s %({content-type}o)s %({reason}x)s"
LINES = ("--threads", "4", "--access-logfile", "-", "--access-logformat", FORMAT)
HTTP2 = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")


def seen(client: Frames) -> None:
    """The loop has handled what came before."""
    client.send(PingFrame(0, b"12345678"))
    while not any(isinstance(frame, PingFrame) for frame in client.frames):
        assert client.step()


def begun(one: Server, name: str) -> Frames:
    client = Frames(one.address, PATIENCE_S)
    client.ask(f"/begun/{name}")
    client.wait(DataFrame)
    return client


def test_a_client_of_http1_that_leaves(server, gates):
    one = server("streams:application", *LINES)
    client = one.connect()
    client.send_request("GET", "/begun/held")
    client.read_until(b"x" * 1000)
    client.reset()
    let_the_loop_see(one)
    gates.open("held")
    one.output.wait(r"^GET /begun/held 200 1000 text/plain client gone$")


def leave(client: Frames) -> None:
    client.close()


def reset(client: Frames) -> None:
    client.send(RstStreamFrame(1, CANCEL))
    seen(client)


def break_the_stream(client: Frames) -> None:
    client.send_bytes(frame(WINDOW_UPDATE, 0, 1, u32(0x7FFFFFFF)))
    assert client.reply(1).reset == FLOW_CONTROL_ERROR


def break_the_connection(client: Frames) -> None:
    client.send_bytes(frame(PING, 0, 1, bytes(8)))
    assert client.end()[-1][1] == PROTOCOL_ERROR


def send_a_wrong_length(client: Frames) -> None:
    client.send_bytes(frame(WINDOW_UPDATE, 0, 0, b""))
    client.end()


ENDS: dict[str, tuple[Callable[[Frames], None], str]] = {
    "the connection is closed": (leave, "client gone"),
    "the stream is reset": (reset, "client gone"),
    "the stream breaks a rule": (break_the_stream, r"more than a window has \(FLOW_CONTROL_ERROR\)"),
    "the connection breaks a rule": (break_the_connection, "a frame or a setting is not allowed there"),
    "a frame has a wrong length": (send_a_wrong_length, "a frame has a length that it cannot have"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_client_of_http2(server, gates, end):
    one = server("streams:application", *HTTP2, *LINES)
    act, reason = ENDS[end]
    with begun(one, "held") as client:
        act(client)
    with Frames(one.address, PATIENCE_S) as other:
        assert other.reply(other.ask("/hello")).body == b"hello"
    gates.open("held")
    one.output.wait(rf"^GET /begun/held 200 1000 text/plain {reason}$")


def test_a_request_that_is_not_answered_when_its_connection_breaks_a_rule(server, gates):
    one = server("streams:application", *HTTP2, *LINES)
    with Frames(one.address, PATIENCE_S) as client:
        client.ask("/gate/held")
        gates.wait_reached("held")
        break_the_connection(client)
    gates.open("held")
    one.output.wait(r"^GET /gate/held 499 0 - a frame or a setting is not allowed there$")


def test_a_request_that_breaks_a_rule_while_the_application_has_it(server, gates):
    """Its body is read as it arrives."""
    one = server("streams:application", *HTTP2, *LINES, "--no-request-buffering")
    with Frames(one.address, PATIENCE_S) as client:
        client.send_bytes(post(1, client.block(client.head("/reads", "POST"))))
        gates.wait_reached("reads")
        client.send_bytes(frame(WINDOW_UPDATE, 0, 1, u32(0x7FFFFFFF)))
        assert client.reply(1).reset == FLOW_CONTROL_ERROR
    one.output.wait(r"^POST /reads 400 0 - more than a window has \(FLOW_CONTROL_ERROR\)$")


def test_a_whole_streamed_response_over_http2_shows_its_headers(server):
    one = server("streams:application", *HTTP2, *LINES)
    with Frames(one.address, PATIENCE_S) as client:
        assert client.reply(client.ask("/items")).status == 200
    one.output.wait(r"^GET /items 200 1000000 text/plain -$")


@pytest.mark.parametrize("protocol", ["HTTP/1", "HTTP/2"])
def test_a_response_that_the_stop_cuts(server, protocol):
    """Its thread waits for the client, and is back at once."""
    options = HTTP2 if protocol == "HTTP/2" else ()
    one = server("streams:application", *options, *LINES, "--graceful-timeout", "1")
    if protocol == "HTTP/2":
        client = Frames(one.address, PATIENCE_S)
        client.credits = False
        client.ask("/endless")
        client.wait(DataFrame)
    else:
        client = one.connect()
        client.send_request("GET", "/endless")
        client.read_until(b"x" * 1000)
    with client:
        one.send_signal(signal.SIGTERM)
        one.output.wait(r"^GET /endless 200 [1-9]\d* text/plain cut by the stop$")


@pytest.mark.parametrize("protocol", ["HTTP/1", "HTTP/2"])
def test_a_client_that_reads_nothing(server, protocol):
    options = HTTP2 if protocol == "HTTP/2" else ()
    one = server("streams:application", *options, *LINES, env={"FERRICORN_SEND_TIMEOUT": "1"})
    if protocol == "HTTP/2":
        client = Frames(one.address, PATIENCE_S)
        client.ask("/endless")
    else:
        client = one.connect()
        client.send_request("GET", "/endless")
    with client:
        one.output.wait(r"^GET /endless 200 [1-9]\d* text/plain send_timeout$")


HALF = {
    "a head": (b"GET /half HTTP/1.1\r\nHost:", "-"),
    "a body": (b"POST /half HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", "POST /half"),
}


@pytest.mark.parametrize("end", ["left", "reset", "stop", "quick stop"])
@pytest.mark.parametrize("half", HALF)
def test_half_a_request_of_http1_has_a_line_however_it_ends(server, half, end):
    sent, shown = HALF[half]
    one = server("streams:application", *LINES[:-1], "%(r)s %(s)s %({reason}x)s", "--graceful-timeout", "1")
    with one.connect() as client:
        client.send(sent)
        let_the_loop_see(one)
        if end == "left":
            client.close()
        elif end == "reset":
            client.reset()
        else:
            one.send_signal(signal.SIGTERM if end == "stop" else signal.SIGINT)
        reason = "cut by the stop" if "stop" in end else "client gone before the end of the request"
        one.output.wait(rf"^{shown}( HTTP/1\.1)? 400 {reason}$")


@pytest.mark.parametrize("end", ["reset", "stop"])
def test_half_a_request_of_http2_has_the_same_line(server, end):
    one = server("streams:application", *HTTP2, *LINES, "--graceful-timeout", "1")
    with Frames(one.address, PATIENCE_S) as client:
        client.send_bytes(post(1, client.block(client.head("/half", "POST"))) + frame(0, 0, 1, b"half"))
        seen(client)
        if end == "reset":
            reset(client)
        else:
            one.send_signal(signal.SIGTERM)
        reason = "cut by the stop" if end == "stop" else "client gone before the end of the request"
        one.output.wait(rf"^POST /half 400 0 - {reason}$")
