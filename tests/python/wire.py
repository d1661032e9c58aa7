"""A client that sends exactly the given bytes and reads exactly one response at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field


class Disconnected(Exception):
    """The peer closed where more was due; `partial` is what had come."""

    def __init__(self, partial: bytes) -> None:
        super().__init__(f"peer closed after {partial[:200]!r}")
        self.partial = partial


@dataclass
class Response:
    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    """Status codes of the 1xx responses that came before."""

    def header(self, name: str) -> str | None:
        """The one value of `name`; two would be a fault of the server."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} sent more than once: {values}"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def is_chunked(self) -> bool:
        return (self.header("Transfer-Encoding") or "").lower() == "chunked"


class Client:
    """One connection. `address` is (host, port) or the path of a unix socket."""

    def __init__(self, address: tuple[str, int] | str, timeout: float, receive_buffer: int = 0) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(address)
        self._read_buffer = bytearray()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close with a RST, as a crashed peer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.close()

    # -- out -------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_request(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        version: str = "HTTP/1.1",
    ) -> None:
        self.send(encode_request(method, target, headers, body, version))

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        version: str = "HTTP/1.1",
    ) -> Response:
        self.send_request(method, target, headers, body, version)
        return self.read_response(bodiless=method == "HEAD")

    # -- in --------------------------------------------------------------------------------------

    def _receive(self) -> bool:
        try:
            block = self.socket.recv(65536)
        except ConnectionResetError:
            block = b""
        self._read_buffer += block
        return bool(block)

    def _take(self, length: int) -> bytes:
        part = bytes(self._read_buffer[:length])
        del self._read_buffer[:length]
        return part

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self._read_buffer:
            if not self._receive():
                raise Disconnected(bytes(self._read_buffer))
        return self._take(self._read_buffer.index(mark) + len(mark))

    def read_exactly(self, length: int) -> bytes:
        while len(self._read_buffer) < length:
            if not self._receive():
                raise Disconnected(bytes(self._read_buffer))
        return self._take(length)

    def buffered(self) -> bytes:
        """What was read beyond what was asked for."""
        return self._take(len(self._read_buffer))

    def read_to_end(self) -> bytes:
        while self._receive():
            pass
        return self._take(len(self._read_buffer))

    def read_head(self) -> Response:
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head[:-4].split("\r\n")
        version, code, reason = (status_line + " ").split(" ", 2)
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon and name and name == name.strip(), f"not a header line: {line!r}"
            headers.append((name, value.strip()))
        return Response(version, int(code), reason.rstrip(" "), headers)

    def read_chunk(self) -> bytes:
        size = int(self.read_until(b"\r\n").split(b";")[0], 16)
        data = self.read_exactly(size)
        assert self.read_exactly(2) == b"\r\n"
        return data

    def read_response(self, bodiless: bool = False) -> Response:
        """The next whole response, framed as its head says; nothing after it is touched."""
        interim = []
        response = self.read_head()
        while 100 <= response.status < 200 and response.status != 101:
            interim.append(response.status)
            response = self.read_head()
        response.interim = interim
        if bodiless or response.status in (101, 204, 304):
            return response
        length = response.header("Content-Length")
        if response.is_chunked:
            assert length is None, "both Content-Length and Transfer-Encoding"
            while chunk := self.read_chunk():
                response.chunks.append(chunk)
            response.body = b"".join(response.chunks)
        elif length is not None:
            response.body = self.read_exactly(int(length))
        else:
            response.body = self.read_to_end()
        return response

    def is_closed(self) -> bool:
        """True once the peer closed and nothing was left unread; waits for either."""
        return not self._read_buffer and not self._receive()

    def has_nothing_to_read(self) -> bool:
        """True while the connection is open and silent. Observes, does not wait."""
        if self._read_buffer:
            return False
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
            return False
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(20)


def encode_request(
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
    version: str = "HTTP/1.1",
) -> bytes:
    fields = list(headers)
    names = {name.lower() for name, _ in fields}
    if "host" not in names and version != "HTTP/1.0":
        fields.insert(0, ("Host", "example.test"))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(body))))
    head = f"{method} {target} {version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    return head.encode("latin-1") + (body or b"")


def encode_chunks(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
