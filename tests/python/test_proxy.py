"""The PROXY protocol on a live server, side by side with gunicorn where that speaks it."""

from __future__ import annotations

import json
import re
import socket
import struct

import pytest

from harness import GUNICORN, Gates, Server
from wire import encode_request

pytest.importorskip("gunicorn")

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REQUEST = encode_request("GET", "/environ", [("Connection", "close")])


def v2(version_command: int, family: int, payload: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack(">BBH", version_command, family, len(payload)) + payload


def tcp4(client: str = "192.0.2.1", proxy: str = "198.51.100.2", ports: tuple[int, int] = (56324, 443)) -> bytes:
    return socket.inet_aton(client) + socket.inet_aton(proxy) + struct.pack(">HH", *ports)


TCP6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack(">HH", 1, 65535)
)
TLV = b"\x04\x00\x03abc"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"

PROXY_KEYS = ("REMOTE_ADDR", "REMOTE_PORT", "PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    arguments = ["probe:raw", "--threads", "2", "--access-logfile", "-", "--proxy-protocol"]
    both = []
    try:
        for command in (GUNICORN, None):
            both.append(Server(arguments, command=command, env=Gates(tmp_path_factory.mktemp("gates")).env))
        yield [one.wait_ready() for one in both]
    finally:
        assert [one.reap() for one in both] == [[]] * len(both)


def exchange(one, sent: bytes):
    with one.connect() as client:
        client.send(sent)
        return client.read_response()


def told(answer):
    assert answer.status == 200, answer
    environ = json.loads(answer.body)
    return {key: environ[key] for key in PROXY_KEYS if key in environ}


# -- the same as gunicorn --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        V1,
        b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 0\r\n",
        v2(0x21, 0x11, tcp4()),
        v2(0x21, 0x11, tcp4() + TLV),
        v2(0x21, 0x21, TCP6),
        v2(0x21, 0x21, TCP6 + TLV * 20),
    ],
)
def test_environ_and_log_line_agree(pair, header):
    theirs, ours = (told(exchange(one, header + REQUEST)) for one in pair)
    assert ours == theirs
    assert len(ours) == 5
    for one in pair:
        one.output.wait(rf"^{re.escape(ours['REMOTE_ADDR'])} - - ")


def test_every_request_of_the_connection_is_the_clients(pair):
    """gunicorn forgets the client after the first request."""
    theirs, ours = pair
    plain = encode_request("GET", "/environ")
    answers = []
    for one in (theirs, ours):
        with one.connect() as client:
            client.send(V1 + plain)
            first = told(client.read_response())
            client.send(plain)
            answers.append((first, told(client.read_response())))
    assert answers[1][0] == answers[0][0]
    assert answers[1][1] == answers[1][0]


def test_without_a_header_the_peer_is_the_client(pair):
    for one in pair:
        answer = told(exchange(one, REQUEST))
        assert answer.keys() == {"REMOTE_ADDR", "REMOTE_PORT"}
        assert answer["REMOTE_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.300 198.51.100.2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.2 1\r\n",
    ],
)
def test_malformed_lines_are_refused_alike(pair, line):
    theirs, ours = (exchange(one, line + REQUEST) for one in pair)
    assert (ours.status, ours.reason, ours.body) == (theirs.status, theirs.reason, theirs.body)
    assert ours.status == 400


def test_a_peer_that_may_not_send_one_is_refused_alike(server):
    arguments = ("probe:raw", "--proxy-protocol", "auto", "--proxy-allow-from", "10.9.8.7")
    answers = []
    for command in (GUNICORN, None):
        one = server(*arguments, command=command)
        refused = [exchange(one, header + REQUEST) for header in (V1, v2(0x21, 0x11, tcp4()))]
        answers.append([(answer.status, answer.reason, answer.body) for answer in refused])
        assert told(exchange(one, REQUEST))["REMOTE_ADDR"] == "127.0.0.1"
        one.log.wait(r"\[WARNING\] Invalid request from ip=127.0.0.1: Proxy request from '127.0.0.1' not allowed", 2)
    assert answers[1] == answers[0]
    assert answers[1][0][:2] == (403, "Forbidden")


@pytest.mark.parametrize(("mode", "other"), [("v1", v2(0x21, 0x11, tcp4())), ("v2", V1)])
def test_the_other_version_is_not_understood_alike(server, mode, other):
    statuses = []
    for command in (GUNICORN, None):
        one = server("probe:raw", "--proxy-protocol", mode, command=command)
        statuses.append(exchange(one, other + REQUEST).status)
    assert statuses == [400, 400]


# -- differences on purpose ------------------------------------------------------------------------


@pytest.mark.ours
@pytest.mark.parametrize(
    ("header", "protocol"),
    [
        (b"PROXY UNKNOWN\r\n", "UNKNOWN"),
        (b"PROXY UNKNOWN ffff::1 anything 1 2\r\n", "UNKNOWN"),
        (v2(0x20, 0x00), "LOCAL"),
        (v2(0x20, 0x11, tcp4()), "LOCAL"),
        (v2(0x21, 0x00), "UNSPEC"),
        (v2(0x21, 0x00, TLV), "UNSPEC"),
    ],
)
def test_a_header_without_addresses_keeps_the_real_peer(pair, header, protocol):
    """gunicorn refuses UNKNOWN, and gives the application None for REMOTE_ADDR with the others."""
    answer = told(exchange(pair[1], header + REQUEST))
    assert answer["PROXY_PROTOCOL"] == protocol
    assert answer["REMOTE_ADDR"] == "127.0.0.1"
    assert answer["REMOTE_PORT"].isdigit()
    assert "PROXY_ADDR" not in answer


@pytest.mark.ours
def test_unix_and_datagram_clients(pair):
    """gunicorn refuses both."""
    answer = told(exchange(pair[1], v2(0x21, 0x31, b"\0" * 216) + REQUEST))
    assert answer == {"REMOTE_ADDR": "", "PROXY_PROTOCOL": "UNIX"}
    answer = told(exchange(pair[1], v2(0x21, 0x12, tcp4()) + REQUEST))
    assert (answer["PROXY_PROTOCOL"], answer["REMOTE_ADDR"]) == ("UDP4", "192.0.2.1")


@pytest.mark.ours
@pytest.mark.parametrize(
    "header",
    [
        v2(0x31, 0x11, tcp4()),
        v2(0x22, 0x11, tcp4()),
        v2(0x21, 0x11, b"short"),
        v2(0x21, 0x51, tcp4()),
        v2(0x21, 0x1F, tcp4()),
        v2(0x21, 0x11, b"x" * 5000),
        b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
        b"PROXY " + b"x" * 300,
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
    ],
)
def test_malformed_headers_are_400_and_leave_no_traceback(pair, header):
    """gunicorn answers a malformed version 2 with 500 and a traceback."""
    one = pair[1]
    with one.connect() as client:
        client.send(header + REQUEST)
        assert client.read_response().status == 400
        assert client.is_closed()
    assert "Traceback" not in one.log.text
    assert exchange(one, V1 + REQUEST).status == 200


@pytest.mark.ours
def test_a_short_request_is_answered_at_once(pair):
    """gunicorn waits for twelve bytes."""
    with pair[1].connect() as client:
        client.send(b"G\r\n\r\n")
        assert client.read_response().status == 400


@pytest.mark.ours
def test_an_unfinished_header_has_the_time_of_a_head(server):
    one = server("probe:raw", "--proxy-protocol", "v1", "--client-header-timeout", "1")
    with one.connect() as client:
        client.send(V1[:30])
        assert client.is_closed()
    assert exchange(one, V1 + REQUEST).status == 200


@pytest.mark.ours
def test_proxy_header_and_forwarded_address_together(server):
    """The header names the last proxy but one; fields stay trusted by who is connected."""
    one = server("probe:raw", "--proxy-protocol", "auto", "--proxy-headers", "x-forwarded-for")
    request = encode_request("GET", "/environ", [("Connection", "close"), ("X-Forwarded-For", "203.0.113.9")])
    answer = told(exchange(one, V1 + request))
    assert (answer["REMOTE_ADDR"], answer["PROXY_PROTOCOL"]) == ("203.0.113.9", "TCP4")
    assert answer["PROXY_ADDR"] == "198.51.100.2"
