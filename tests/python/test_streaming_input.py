"""`request_buffering = False`: the application runs before the body has arrived, and reads it as it comes."""

from __future__ import annotations

import pytest

from wire import encode_chunks

pytestmark = pytest.mark.ours

APP = "uploads:application"


@pytest.fixture
def unbuffered(server):
    def start(*arguments):
        return server(APP, "--no-request-buffering", "--threads", "2", *arguments)

    return start


def head(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


def test_lines_are_answered_as_they_come(unbuffered, gates):
    one = unbuffered()
    with one.connect() as client:
        client.send(head("/lines", "Transfer-Encoding: chunked"))
        client.send(b"6\r\nfirst\n\r\n")
        answer = client.read_head()
        assert (answer.status, answer.header("Connection")) == (200, "close")
        assert client.read_chunk() == b"FIRST\n"
        client.send(b"3\r\nsec\r\n")
        client.send(b"4\r\nond\n\r\n")
        assert client.read_chunk() == b"SECOND\n"
        client.send(b"4\r\ntail\r\n0\r\n\r\n")
        assert client.read_chunk() == b"TAIL"
        assert client.read_chunk() == b""
        assert client.is_closed()
    assert gates.notes("lines") == ["b'first\\n'", "b'second\\n'", "b'tail'"]


@pytest.mark.parametrize("size", [0, 1, 100_000, 20_000_000])
def test_bodies_arrive_whole_and_the_connection_goes_on(unbuffered, size):
    one = unbuffered()
    with one.connect() as client:
        for _ in range(2):
            answer = client.request("POST", "/count", body=b"x" * size)
            assert (answer.text, answer.header("Connection")) == (str(size), "keep-alive")
            client.send(head("/count", "Transfer-Encoding: chunked") + encode_chunks(b"y" * 10, b"z" * 30))
            assert client.read_response().text == "40"


def test_an_application_that_does_not_read_holds_the_client_back(unbuffered, gates):
    one = unbuffered()
    with one.connect() as client:
        total = 64 << 20
        client.send(head("/held", f"Content-Length: {total}"))
        gates.wait_reached("read")
        client.socket.settimeout(0.3)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < total:
                sent += client.socket.send(b"x" * (1 << 18))
        assert sent < total // 2
        client.socket.settimeout(20)
        gates.open("read")
        while sent < total:
            sent += client.socket.send(b"x" * min(1 << 18, total - sent))
        assert client.read_response().text == str(total)


def test_a_truncated_body_is_an_oserror(unbuffered, gates):
    one = unbuffered()
    with one.connect() as client:
        client.send(head("/reports", "Content-Length: 10") + b"01234")
        gates.wait_reached("began")
        client.socket.shutdown(1)
        assert client.read_response().text == "handled"
    (error,) = gates.wait_notes("error")
    assert error.startswith("OSError: the client closed the connection before the end")
    assert gates.wait_notes("again") == ["yes"]


def test_a_reset_client_is_an_oserror(unbuffered, gates):
    one = unbuffered()
    client = one.connect()
    client.send(head("/reports", "Content-Length: 10") + b"01234")
    gates.wait_reached("began")
    client.reset()
    (error,) = gates.wait_notes("error")
    assert error.startswith("ConnectionResetError")


def test_a_body_that_stops_is_a_timeout(unbuffered, gates):
    one = unbuffered("--client-body-timeout", "1")
    with one.connect() as client:
        client.send(head("/reports", "Content-Length: 10") + b"01234")
        assert client.read_response().text == "handled"
    assert gates.wait_notes("error")[0].startswith("TimeoutError")


@pytest.mark.parametrize(
    ("body", "status"), [(b"zz\r\n", 400), (b"ffffffffffffffffff\r\n", 400), (b"30\r\n" + b"x" * 0x30, 413)]
)
def test_what_the_application_leaves_to_us_is_answered_as_the_clients_fault(unbuffered, body, status):
    one = unbuffered("--limit-request-body", "20")
    with one.connect() as client:
        client.send(head("/count", "Transfer-Encoding: chunked") + body)
        assert client.read_response().status == status
        assert client.is_closed()


def test_continue_is_sent_when_the_application_reads(unbuffered, gates):
    one = unbuffered()
    with one.connect() as client:
        client.send(head("/held", "Content-Length: 4", "Expect: 100-continue"))
        gates.wait_reached("read")
        assert client.has_nothing_to_read()
        gates.open("read")
        assert client.read_head().status == 100
        client.send(b"body")
        assert client.read_response().text == "4"


def test_a_refusal_spares_the_client_the_body(unbuffered):
    one = unbuffered()
    with one.connect() as client:
        client.send(head("/refuses", "Content-Length: 1000000", "Expect: 100-continue"))
        answer = client.read_response()
        assert (answer.status, answer.interim, answer.header("Connection")) == (403, [], "close")
        assert client.is_closed()
