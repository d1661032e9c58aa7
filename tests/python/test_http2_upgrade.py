"""`Upgrade: h2c`: a request of HTTP/1.1 that becomes the first stream of HTTP/2."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import pytest
from frames import NO_ERROR, PREFACE, PROTOCOL_ERROR, Frames
from hyperframe.frame import DataFrame, SettingsFrame

from harness import PATIENCE_S, Server, stop_process

pytestmark = pytest.mark.ours

SETTINGS = "AAMAAABkAAQAAP__"
WORDS = ("--threads", "2", "--http-protocols", "h1,h2", "--http2-cleartext")


@pytest.fixture(params=["upgrade", "both"])
def one(server, request) -> Server:
    return server("streams:application", *WORDS, request.param, "--access-logfile", "-")


def asking(path: str = "/", *more: str, settings: str = SETTINGS, method: str = "GET") -> bytes:
    fields = ["Host: localhost", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"HTTP2-Settings: {settings}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, *more, "", ""]).encode()


@contextlib.contextmanager
def upgraded(one: Server, data: bytes):
    """A client that has got its 101."""
    with Frames(one.address, PATIENCE_S, begin=False) as client:
        client.send_bytes(data)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
        assert b"\r\nUpgrade: h2c\r\n" in head
        client._next = 3
        # Before the preface the client may send nothing else.
        client.acknowledges = False
        yield client


def test_the_request_is_the_first_stream_and_others_follow(one):
    with upgraded(one, asking("/environ?q=1", "X-A: 1", "Cookie: a=1", "User-Agent: x")) as client:
        client.send_bytes(PREFACE)
        client.send(SettingsFrame(0))
        reply = client.reply(1)
        environ = reply.body.decode("latin-1").splitlines()
        for line in (
            "SERVER_PROTOCOL='HTTP/2.0'",
            "HTTP_HOST='localhost'",
            "RAW_URI='/environ?q=1'",
            "HTTP_X_A='1'",
            "HTTP_COOKIE='a=1'",
            "HTTP_USER_AGENT='x'",
            "wsgi.url_scheme='http'",
        ):
            assert line in environ
        assert not any(line.startswith(("HTTP_UPGRADE", "HTTP_HTTP2", "HTTP_CONNECTION")) for line in environ)
        assert client.reply(client.ask("/echo", "POST", body=b"more")).body == b"more"
        # One acknowledgement: that of the settings that were a frame.
        assert [frame.flags for frame in client.frames if isinstance(frame, SettingsFrame)] == [set(), {"ACK"}]
    one.output.wait(r'"GET /environ\?q=1 HTTP/2.0" 200')
    assert "HTTP/1.1" not in one.output.text


def test_the_answer_needs_no_preface_and_its_window_is_that_of_the_settings(one):
    # SETTINGS_INITIAL_WINDOW_SIZE of 5.
    with upgraded(one, asking(settings="AAQAAAAF")) as client:
        client.credits = False
        while not any(isinstance(frame, DataFrame) for frame in client.frames):
            assert client.step()
        assert client.replies[1].body == b"hello"
    with upgraded(one, asking("/large", settings="AAQAAAAF")) as client:
        client.credits = False
        client.send_bytes(PREFACE)
        client.send(SettingsFrame(0))
        while not any(isinstance(frame, DataFrame) for frame in client.frames):
            assert client.step()
        assert client.reply(client.ask("/nothing")).status == 204
        assert client.replies[1].body == b"xxxxx"


def test_head_and_options(one):
    with upgraded(one, asking("/", method="HEAD")) as client:
        reply = client.reply(1)
        assert (reply.status, reply.body, reply.header("content-length")) == (200, b"", b"5")


def test_everything_may_come_at_once(one):
    with upgraded(one, asking() + PREFACE + SettingsFrame(0).serialize()) as client:
        assert client.reply(1).body == b"hello"
        assert client.reply(client.ask()).body == b"hello"


BODIES = (
    ("Content-Length: 2", b"ab", b"ab"),
    # As large as the window of a stream.
    ("Content-Length: 65535", b"x" * 65_535, b"x" * 65_535),
    ("Transfer-Encoding: chunked", b"3\r\nabc\r\n4;a\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n", b"abcdefg"),
    ("Content-Length: 0", b"", b""),
)


@pytest.mark.parametrize(("framing", "sent", "body"), BODIES)
def test_a_body_is_read_before_the_protocol_changes(one, framing, sent, body):
    asked = asking("/echo", framing, method="POST")
    for begun in (b"", PREFACE + SettingsFrame(0).serialize()):
        with upgraded(one, asked + sent + begun) as client:
            # Not even credit may be given before the preface.
            client.credits = bool(begun)
            if len(body) < 1000:
                assert client.reply(1).body == body
            client.credits = True
            if not begun:
                client.send_bytes(PREFACE)
                client.send(SettingsFrame(0))
            assert client.reply(client.ask("/echo", "POST", body=b"m" * 9_000)).body == b"m" * 9_000
            assert client.reply(1).body == body
    # A client that waits with its body until it is asked for it.
    with Frames(one.address, PATIENCE_S, begin=False) as client:
        client.acknowledges = client.credits = False
        client.send_bytes(asking("/echo", framing, "Expect: 100-continue", method="POST"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.socket.recv(1)
        if body:
            assert head.startswith(b"HTTP/1.1 100 Continue")
            client.send_bytes(sent)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        assert client.reply(1).body == body


@pytest.mark.parametrize("length", [60_000, 65_535])
def test_a_body_takes_nothing_from_the_window_of_what_follows_at_once(one, length):
    with Frames(one.address, PATIENCE_S, begin=False) as client:
        client._next, client.acknowledges = 3, False
        # The worker reads the end of the body and what follows it in one call.
        (worker,) = one.booted()
        stop_process(worker)
        client.send_bytes(asking("/echo", f"Content-Length: {length}", method="POST") + b"x" * length)
        client.send_bytes(PREFACE)
        client.send(SettingsFrame(0))
        # No more than a client may send that has heard nothing yet.
        streams = [client.ask("/echo", "POST", body=b"m" * size) for size in (9_000, 40_000, 16_535)]
        os.kill(worker, signal.SIGCONT)
        while b"\r\n\r\n" not in client._buffer:
            client._buffer += client.socket.recv(65_536)
        head, _, client._buffer = client._buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert [client.reply(stream).body for stream in streams] == [b"m" * 9_000, b"m" * 40_000, b"m" * 16_535]
        assert client.reply(1).body == b"x" * length


@pytest.mark.parametrize(
    ("arguments", "length"),
    [
        # More than the window of a stream, than memory holds, and a body that is not read before the application runs.
        ((), 65_536),
        # A larger one is the client's when it has been told of it.
        (("--http2-initial-window-size", "1048576"), 65_536),
        (("--http2-initial-window-size", "5"), 6),
        (("--body-buffer-size", "100"), 101),
        (("--no-request-buffering",), 2),
    ],
)
def test_a_body_that_does_not_fit_is_answered_over_http_1(server, arguments, length):
    one = server("streams:application", *WORDS, "upgrade", *arguments)
    with one.connect() as client:
        for _ in range(2):
            client.send(asking("/echo", f"Content-Length: {length}", method="POST") + b"x" * length)
            response = client.read_response()
            assert (response.status, response.body) == (200, b"x" * length)


def test_a_body_over_the_limits_is_refused_before_the_protocol_changes(server):
    one = server("streams:application", *WORDS, "upgrade", "--limit-request-body", "10")
    with one.connect() as client:
        client.send(asking("/echo", "Content-Length: 11", method="POST") + b"x" * 11)
        assert client.read_response().status == 413
    # A body that is cut is no request, and nothing is switched.
    with one.connect() as client:
        client.send(asking("/echo", "Content-Length: 9", method="POST") + b"x")
        client.socket.shutdown(1)
        assert b"101" not in client.read_to_end()


def test_something_else_than_a_preface_ends_the_connection(one):
    for wrong in (PREFACE.replace(b"SM", b"XX"), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        with upgraded(one, asking()) as client:
            assert client.reply(1).body == b"hello"
            client.send_bytes(wrong)
            assert [code for _, code in client.end()] == [PROTOCOL_ERROR]
    one.log.wait("the preface of HTTP/2 does not follow the upgrade")


def test_what_does_not_ask_as_it_should_is_answered_over_http_1(one):
    for data in (
        asking().replace(b"HTTP2-Settings: ", b"X: "),
        asking().replace(b"Upgrade, HTTP2-Settings", b"Upgrade"),
        asking(settings="!"),
        asking().replace(b"h2c", b"h2"),
    ):
        with one.connect() as client:
            client.send(data)
            response = client.read_response()
            assert (response.status, response.body) == (200, b"hello")


def test_only_trusted_peers_and_only_when_it_is_switched_on(server):
    for words in (
        (*WORDS, "upgrade", "--forwarded-allow-ips", "192.0.2.1"),
        (*WORDS, "off"),
        ("--http2-cleartext", "upgrade"),
    ):
        one = server("streams:application", *words)
        with one.connect() as client:
            client.send(asking())
            assert client.read_response().status == 200


def test_a_pipelined_request_before_it_is_answered_first(one):
    first = b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"
    with Frames(one.address, PATIENCE_S, begin=False) as client:
        client.acknowledges = False
        client.send_bytes(first + asking())
        head = b""
        while head.count(b"\r\n\r\n") < 2:
            head += client.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 204") and b"HTTP/1.1 101" in head
        assert client.reply(1).body == b"hello"


def test_a_stop_ends_it_in_order(one, gates):
    with upgraded(one, asking("/gate/a")) as client:
        client.send_bytes(PREFACE)
        client.send(SettingsFrame(0))
        gates.wait_reached("a")
        one.send_signal(15)
        gates.open("a")
        assert client.reply(1).body == b"gated"
        assert client.end()[-1] == (1, NO_ERROR)
    assert one.wait_exit() == 0


def test_curl_and_nghttp_upgrade(one):
    url = f"http://127.0.0.1:{one.port}"
    line = ["curl", "-sS", "--http2", "--max-time", "30", "-w", "%{http_version} ", f"{url}/", f"{url}/large"]
    done = subprocess.run([*line, "-o", "-", "-o", "/dev/null"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["hello2", "2"]
    one.output.wait(r'"GET /large HTTP/2.0" 200 1048576')
    done = subprocess.run(["nghttp", "-u", f"{url}/"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "hello"), done.stderr
