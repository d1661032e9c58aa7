"""A client of HTTP/2 that sends exactly the given frames."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11


@dataclass
class Reply:
    """What came on a stream."""

    status: int | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    def header(self, name: str) -> bytes | None:
        values = [value for key, value in self.headers if key == name.encode()]
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Frames:
    """One connection."""

    def __init__(self, address: tuple[str, int], timeout: float, *, begin: bool = True, settings=None) -> None:
        self.socket = socket.create_connection(address, timeout)
        # As programs have it: small frames would wait 40 ms for one another's acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.replies: dict[int, Reply] = {}
        self.frames: list[Frame] = []
        self.goaways: list[tuple[int, int]] = []
        self.closed = False
        self._buffer = b""
        self._next = 1
        self.credits = self.acknowledges = True
        if begin:
            self.send_bytes(PREFACE)
            self.send(SettingsFrame(0, settings=settings or {}))

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send(self, *frames: Frame) -> None:
        self.send_bytes(b"".join(frame.serialize() for frame in frames))

    def block(self, headers: Iterable[tuple[str | bytes, str | bytes]]) -> bytes:
        return self.encoder.encode(list(headers))

    def head(self, target: str = "/", method: str = "GET", fields=(), authority: str | None = "localhost"):
        named = [(":method", method), (":scheme", "http"), (":path", target)]
        return named + ([(":authority", authority)] if authority is not None else []) + list(fields)

    def headers_frame(self, stream: int, headers, *flags: str) -> HeadersFrame:
        return HeadersFrame(stream, self.block(headers), flags=["END_HEADERS", *flags])

    def header_frames(self, stream: int, headers, *flags: str) -> list[Frame]:
        """As many frames as it takes."""
        block = self.block(headers)
        parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
        frames: list[Frame] = [HeadersFrame(stream, parts[0], flags=list(flags))]
        frames += [ContinuationFrame(stream, part) for part in parts[1:]]
        frames[-1].flags.add("END_HEADERS")
        return frames

    def ask(self, target: str = "/", method: str = "GET", fields=(), body: bytes | None = None, **options) -> int:
        """Send a request. Returns its stream."""
        stream, self._next = self._next, self._next + 2
        ends = ["END_STREAM"] if body is None else []
        self.send(*self.header_frames(stream, self.head(target, method, fields, **options), *ends))
        if body is not None:
            for at in range(0, max(len(body), 1), 16384):
                last = at + 16384 >= len(body)
                self.send(DataFrame(stream, body[at : at + 16384], flags=["END_STREAM"] if last else []))
        return stream

    def begin(self, target: str = "/", fields=()) -> int:
        """Send the head of a request whose body follows. Returns its stream."""
        stream, self._next = self._next, self._next + 2
        self.send(*self.header_frames(stream, self.head(target, "POST", fields)))
        return stream

    def _read(self) -> Frame | None:
        while True:
            if len(self._buffer) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(self._buffer)[:9])
                if len(self._buffer) >= 9 + length:
                    frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
                    self._buffer = self._buffer[9 + length :]
                    return frame
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                self.closed = True
                return None
            self._buffer += data

    def _take(self, frame: Frame) -> None:
        self.frames.append(frame)
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            if self.acknowledges:
                self.send(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append((frame.last_stream_id, frame.error_code))
        elif isinstance(frame, HeadersFrame | ContinuationFrame):
            assert "END_HEADERS" in frame.flags
            reply = self.replies.setdefault(frame.stream_id, Reply())
            decoded = [(bytes(name), bytes(value)) for name, value in self.decoder.decode(frame.data, raw=True)]
            status = dict(decoded).get(b":status")
            if status is not None and status.startswith(b"1"):
                reply.interim.append(int(status))
            elif status is not None:
                assert reply.status is None, "two heads"
                reply.status, reply.headers = int(status), decoded
            else:
                reply.trailers += decoded
            reply.ended |= "END_STREAM" in frame.flags
        elif isinstance(frame, DataFrame):
            reply = self.replies.setdefault(frame.stream_id, Reply())
            reply.body += frame.data
            reply.ended |= "END_STREAM" in frame.flags
            if self.credits and frame.flow_controlled_length:
                size = frame.flow_controlled_length
                self.send(WindowUpdateFrame(0, size), WindowUpdateFrame(frame.stream_id, size))
        elif isinstance(frame, RstStreamFrame):
            self.replies.setdefault(frame.stream_id, Reply()).reset = frame.error_code

    def step(self) -> bool:
        """Take in a frame. Returns False at the end of the connection."""
        frame = self._read()
        if frame is None:
            return False
        self._take(frame)
        return True

    def reply(self, stream: int) -> Reply:
        """Wait until the stream is over."""
        while not self.replies.setdefault(stream, Reply()).over:
            assert self.step(), f"the connection ended: {self.goaways}, {self.replies}"
        return self.replies[stream]

    def wait(self, kind: type[Frame]) -> Frame:
        seen = len(self.frames)
        while True:
            for frame in self.frames[seen:]:
                if isinstance(frame, kind):
                    return frame
            seen = len(self.frames)
            assert self.step(), f"the connection ended: {self.goaways}"

    def end(self) -> list[tuple[int, int]]:
        """Wait for the end of the connection. Returns what GOAWAY frames said."""
        while self.step():
            pass
        return self.goaways

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._read()) is not None:
            self._take(frame)
            yield frame
