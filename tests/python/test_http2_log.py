"""What an operator sees of clients that break HTTP/2: lines in both logs, and counts."""

from __future__ import annotations

import re

import pytest
from frames import CANCEL, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, Frames
from hyperframe.frame import RstStreamFrame, SettingsFrame
from test_http2_violations import GET, POST, WINDOW_UPDATE, field, frame, get, post, u32

from harness import PATIENCE_S, Server, wait_until
from wire import Client

pytestmark = pytest.mark.ours

LINES = ("--access-logfile", "-", "--access-logformat", "%(r)s %(s)s")
ARGUMENTS = ("--threads", "2", "--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")


@pytest.fixture
def one(server) -> Server:
    return server("streams:application", *ARGUMENTS, *LINES)


def reset_by(one: Server, data: bytes, code: int) -> None:
    with Frames(one.address, PATIENCE_S) as client:
        client.send_bytes(data)
        assert client.reply(1).reset == code
        client._next = 11
        assert client.reply(client.ask("/hello")).body == b"hello", "the connection goes on"


# What resets the stream, with this code and this line in the access log.
FAULTS = {
    "a field of HTTP/1": (get(1, GET + field("connection", "close")), PROTOCOL_ERROR, "- 400"),
    "a second method": (get(1, b"\x82" + GET), PROTOCOL_ERROR, "- 400"),
    "a forbidden name": (get(1, GET + field("X", "1")), PROTOCOL_ERROR, "- 400"),
    "a forbidden value": (get(1, GET + field("x", "\n")), PROTOCOL_ERROR, "- 400"),
    "a body that is too short": (
        post(1, POST + field("content-length", "9")) + frame(0, 1, 1, b"four"),
        PROTOCOL_ERROR,
        "POST / HTTP/2.0 400",
    ),
    "a window past its end": (
        post(1) + frame(WINDOW_UPDATE, 0, 1, u32(0x7FFFFFFF)) * 2,
        FLOW_CONTROL_ERROR,
        "POST / HTTP/2.0 400",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stream_that_is_reset_is_logged_with_its_peer_and_the_reason(one, fault):
    data, code, line = FAULTS[fault]
    reset_by(one, data, code)
    one.log.wait(r"\[INFO\] HTTP/2 stream is reset for ip=127\.0\.0\.1: [a-z ]+ \((PROTOCOL|FLOW_CONTROL)_ERROR\)$")
    # The other request was answered later, and is logged behind it.
    one.output.wait(r"^GET /hello HTTP/2\.0 200$")
    assert one.output.text.splitlines() == [line, "GET /hello HTTP/2.0 200"]


def test_many_are_two_lines(one):
    for _ in range(5):
        reset_by(one, FAULTS["a second method"][0], PROTOCOL_ERROR)
    more = r"4 more HTTP/2 streams were reset within 5 s, the last for ip=127\.0\.0\.1: malformed request"
    one.log.wait(more)
    assert one.log.text.count("HTTP/2 stream is reset") == 1
    assert one.output.text.count("- 400\n") == 5


def test_those_of_just_before_the_worker_ends_are_logged(one):
    for _ in range(3):
        reset_by(one, FAULTS["a second method"][0], PROTOCOL_ERROR)
    one.stop()
    assert "2 more HTTP/2 streams were reset within 5 s, the last for ip=127.0.0.1: malformed" in one.log.join()


def test_a_client_that_resets_streams_itself_is_no_fault(one):
    with Frames(one.address, PATIENCE_S) as client:
        client.send_bytes(post(1))
        client.send(RstStreamFrame(1, CANCEL))
        client._next = 3
        assert client.reply(client.ask("/hello")).body == b"hello"
    one.output.wait(r"^GET /hello HTTP/2\.0 200$")
    assert one.output.text.splitlines()[0] == "POST / HTTP/2.0 400"
    assert "is reset" not in one.log.text


def test_more_streams_than_allowed_are_logged_and_are_no_requests(server, gates):
    one = server("streams:application", *ARGUMENTS, *LINES, "--http2-max-concurrent-streams=2")
    with Frames(one.address, PATIENCE_S) as client:
        streams = [client.ask(f"/gate/{name}") for name in "abc"]
        assert client.reply(streams[2]).reset == REFUSED_STREAM
        one.log.wait(r"HTTP/2 stream is reset for ip=127\.0\.0\.1: more than http2_max_concurrent_streams")
        gates.open("a")
        gates.open("b")
        assert [client.reply(stream).status for stream in streams[:2]] == [200, 200]
    one.output.wait(r"^GET /gate/. HTTP/2\.0 200$", 2)
    assert len(one.output.text.splitlines()) == 2


def test_a_header_list_that_is_too_large_is_in_both_logs(one):
    with Frames(one.address, PATIENCE_S) as client:
        stream = client.ask(fields=[(f"x-{number}", "y" * 8000) for number in range(9)])
        assert client.reply(stream).status == 431
        assert client.reply(client.ask("/hello")).body == b"hello"
    one.output.wait(r"^GET /hello HTTP/2\.0 200$")
    assert one.output.text.splitlines()[0] == "- 431"
    one.log.wait(r"\[WARNING\] Invalid request from ip=127\.0\.0\.1: ")


# What ends the connection, found by the library that knows the states of streams.
ENDED = {
    "DATA on an idle stream": frame(0, 0, 1, b"x"),
    "PING on a stream": frame(6, 0, 1, bytes(8)),
    "ENABLE_PUSH of 2": frame(4, 0, 0, b"\0\2" + u32(2)),
    "the number of an earlier stream": get(5) + get(3),
    "a window past its end": frame(WINDOW_UPDATE, 0, 0, u32(0x7FFFFFFF)) * 2,
}


def test_every_connection_that_is_ended_is_logged_and_counted(server, tmp_path):
    admin = tmp_path / "admin"
    one = server("streams:application", *ARGUMENTS, "--admin-bind", f"unix:{admin}")
    for data in ENDED.values():
        with Frames(one.address, PATIENCE_S) as client:
            client.wait(SettingsFrame)
            client.send_bytes(data)
            assert client.end()[-1][1] in (PROTOCOL_ERROR, FLOW_CONTROL_ERROR)
    one.log.wait(r"\[INFO\] HTTP/2 connection from ip=127\.0\.0\.1 is closed: .+\.$", len(ENDED))

    def counted() -> bool:
        with Client(str(admin), PATIENCE_S) as client:
            client.send_request("GET", "/metrics")
            text = client.read_response().body.decode()
        found = re.search(r'^ferricorn_http2_ended_total\{guard="protocol"\} (\d+)$', text, re.MULTILINE)
        return found is not None and int(found.group(1)) == len(ENDED)

    wait_until(counted, "all are counted")


def test_an_end_in_order_is_no_fault(one):
    with Frames(one.address, PATIENCE_S) as client:
        assert client.reply(client.ask("/hello")).body == b"hello"
        client.send_bytes(frame(7, 0, 0, bytes(8)))
        assert client.end()[-1][1] == 0
    with Frames(one.address, PATIENCE_S) as client:
        client.wait(SettingsFrame)
    reset_by(one, get(1, GET + field("te", "gzip")), PROTOCOL_ERROR)
    one.log.wait("HTTP/2 stream is reset")
    assert "is closed" not in one.log.text


def test_late_frames_of_a_request_that_was_refused_disturb_nobody(one):
    head = frame(1, 4, 1, POST + field("connection", "close"))
    reset_by(one, head + frame(0, 0, 1, b"late") * 3 + frame(0, 1, 1), PROTOCOL_ERROR)
    one.output.wait(r"^GET /hello HTTP/2\.0 200$")
    assert one.output.text.splitlines()[0] == "- 400"


def test_a_waiting_request_that_is_reset_for_a_fault_is_not_run(one, gates):
    """Its client opens its window too far while both threads are busy."""
    with Frames(one.address, PATIENCE_S) as client:
        busy = [client.ask(f"/gate/{name}") for name in "ab"]
        waiting = client.ask("/note/never")
        client.send_bytes(frame(WINDOW_UPDATE, 0, waiting, u32(0x7FFFFFFF)))
        assert client.reply(waiting).reset == FLOW_CONTROL_ERROR
        one.output.wait(r"^GET /note/never HTTP/2\.0 400$")
        gates.open("a")
        gates.open("b")
        assert [client.reply(stream).status for stream in busy] == [200, 200]
        assert client.reply(client.ask("/note/last")).body == b"noted"
    assert gates.notes("ran") == ["/note/last"]


def test_too_many_bad_requests_at_once_end_the_connection_without_another_event(one):
    """It sends them together, and nothing more that would wake its connection."""
    bad = b"".join(get(stream, GET + field("connection", "close")) for stream in range(1, 403, 2))
    with Frames(one.address, PATIENCE_S) as client:
        client.wait(SettingsFrame)
        client.send_bytes(bad)
        assert client.end()[-1][1] == ENHANCE_YOUR_CALM
