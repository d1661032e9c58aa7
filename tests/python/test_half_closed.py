"""Clients that end their side of the connection once they have asked, and still read: they get all their answers."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import hpack
import pytest
from authorities import Authority
from frames import CANCEL, NO_ERROR, PREFACE
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from harness import PATIENCE_S, Server

pytestmark = pytest.mark.ours


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> tuple[Authority, tuple[Path, Path]]:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    return authority, authority.sign("server")


class HalfClosing:
    """A client that can end its side alone, over TLS too, which Python's sockets cannot."""

    def __init__(self, one: Server, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(one.address, PATIENCE_S)
        self.tls, self._early = None, b""
        if context is not None:
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
            self._run(self.tls.do_handshake)

    def _flush(self) -> None:
        if data := self._out.read():
            self.socket.sendall(data)

    def _run(self, step, *arguments):
        while True:
            try:
                done = step(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                received = self.socket.recv(65536)
                self._in.write(received) if received else self._in.write_eof()
            else:
                self._flush()
                return done

    def send(self, data: bytes) -> None:
        if self.tls is None:
            self.socket.sendall(data)
        else:
            self._run(self.tls.write, data)

    def end(self, how: str) -> None:
        """`notify`: close_notify. `fin`: the end of the socket's stream. `both`."""
        if how != "fin" and self.tls is not None:
            # What was received with the handshake would be an error of `unwrap`.
            with pytest.raises(ssl.SSLWantReadError):
                while True:
                    self._early += self.tls.read(65536)
            with pytest.raises(ssl.SSLWantReadError):
                self.tls.unwrap()
            self._flush()
        if how != "notify":
            self.socket.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """All that comes until the server ends its side."""
        received = [self._early]
        while True:
            try:
                part = self.socket.recv(65536) if self.tls is None else self._run(self.tls.read, 65536)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                part = b""
            if not part:
                return b"".join(received)
            received.append(part)

    def __enter__(self) -> HalfClosing:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def frames(data: bytes) -> list[Frame]:
    found = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data)[:9])
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


def request(encoder: hpack.Encoder, stream: int, path: str, method: str = "GET", *, ends: bool = True) -> bytes:
    head = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "localhost")]
    flags = ["END_HEADERS", "END_STREAM"] if ends else ["END_HEADERS"]
    return HeadersFrame(stream, encoder.encode(head), flags=flags).serialize()


def bodies(found: list[Frame]) -> dict[int, bytes]:
    """Of the streams that have ended in order."""
    ended = {frame.stream_id for frame in found if "END_STREAM" in frame.flags}
    all_data = {stream: b"" for stream in ended}
    for frame in found:
        if isinstance(frame, DataFrame) and frame.stream_id in ended:
            all_data[frame.stream_id] += frame.data
    return all_data


WAYS = [("plain", "fin")] + [(version, how) for version in ("TLSv1_2", "TLSv1_3") for how in ("notify", "fin", "both")]


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way))
def way(request, server, certificates):
    """Starts a server that is spoken to in one of the ways: returns (start, open, how)."""
    version, how = request.param
    authority, (certificate, key) = certificates
    context = None
    if version != "plain":
        context = authority.client()
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]

    def start(*arguments: str) -> Server:
        words = ["--threads", "2", "--http-protocols", "h2,h1"]
        if context is None:
            words += ["--http2-cleartext", "prior-knowledge"]
        else:
            words += ["--certfile", str(certificate), "--keyfile", str(key)]
        return server("streams:application", *words, *arguments)

    def connect(one: Server, protocol: str) -> HalfClosing:
        if context is not None:
            context.set_alpn_protocols([protocol])
        return HalfClosing(one, context)

    return start, connect, how


def test_every_stream_is_answered(way, gates):
    start, connect, how = way
    one, encoder = start(), hpack.Encoder()
    with connect(one, "h2") as client:
        # Two run, the others wait for a place.
        paths = ["/gate/a", "/gate/b", "/hello", "/note/x", "/hello"]
        asked = b"".join(request(encoder, 2 * at + 1, path) for at, path in enumerate(paths))
        client.send(PREFACE + SettingsFrame(0).serialize() + asked)
        client.end(how)
        gates.wait_reached("a")
        gates.wait_reached("b")
        gates.open("a")
        gates.open("b")
        found = frames(client.rest())
    assert bodies(found) == {1: b"gated", 3: b"gated", 5: b"hello", 7: b"noted", 9: b"hello"}
    assert [frame.error_code for frame in found if isinstance(frame, GoAwayFrame)] == [NO_ERROR]


def test_what_does_not_fit_the_window_is_not_waited_for(way):
    start, connect, how = way
    one, encoder = start(), hpack.Encoder()
    with connect(one, "h2") as client:
        client.send(PREFACE + SettingsFrame(0).serialize() + request(encoder, 1, "/items"))
        client.end(how)
        # The client cannot open the window any more.
        found = frames(client.rest())
    sent = sum(len(frame.data) for frame in found if isinstance(frame, DataFrame))
    resets = [frame.error_code for frame in found if isinstance(frame, RstStreamFrame)]
    assert (sent, resets) == (65535, [CANCEL])


def test_a_request_that_will_never_be_whole_is_not_waited_for(way, gates):
    start, connect, how = way
    one, encoder = start("--access-logfile", "-"), hpack.Encoder()
    with connect(one, "h2") as client:
        asked = request(encoder, 1, "/gate/a") + request(encoder, 3, "/echo", "POST", ends=False)
        client.send(PREFACE + SettingsFrame(0).serialize() + asked + DataFrame(3, b"half").serialize())
        gates.wait_reached("a")
        client.end(how)
        one.output.wait(r'"POST /echo HTTP/2.0" ')
        gates.open("a")
        assert bodies(frames(client.rest())) == {1: b"gated"}


def test_a_pipeline_of_http_1_is_answered(way, gates):
    start, connect, how = way
    one = start("--http2-cleartext", "off")
    with connect(one, "http/1.1") as client:
        paths = ["/gate/a", "/hello", "/note/x"]
        client.send(b"".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for path in paths))
        client.end(how)
        gates.wait_reached("a")
        gates.open("a")
        answered = client.rest()
    assert [answered.count(body) for body in (b"HTTP/1.1 200", b"gated", b"hello", b"noted")] == [3, 1, 1, 1]


def test_a_client_that_is_gone_is_told_from_one_that_still_reads(way, gates):
    start, connect, _ = way
    one, encoder = start("--access-logfile", "-"), hpack.Encoder()
    with connect(one, "h2") as client:
        asked = b"".join(request(encoder, 2 * at + 1, f"/gate/g{at}") for at in range(2))
        client.send(PREFACE + SettingsFrame(0).serialize() + asked + request(encoder, 5, "/note/never"))
        gates.wait_reached("g0")
        gates.wait_reached("g1")
        client.end("both")
    # Its socket is closed, and refuses what it is asked: the request that waits is dropped, which is logged.
    one.output.wait("/note/never")
    gates.open("g0")
    gates.open("g1")
    assert sorted(gates.wait_notes("gone", 2)) == ["g0 True", "g1 True"]
    assert gates.notes("ran") == []
