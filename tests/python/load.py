"""Continuous load while something happens to the server: what was sent, what failed, how, and the slowest answer.

Every request carries a word of its own, and the answer must repeat it: an answer that reached the wrong client is seen.
A keep-alive client never retries: a request that is sent on a connection which the server has just closed counts as
reset, although browsers would hide it. A worker that stops leaves a connection half a second for the next request. On a
busy machine the client itself may come later: if it can see then that the connection is closed, it takes another.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

PATIENCE_S = 30.0
# A worker that stops closes no connection that was made, or on which a request was sent, within this time.
UNCLOSED_S = 0.5


@dataclass
class Counters:
    """What came of the requests."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    reset: int = 0
    refused: int = 0
    wrong: int = 0
    late: int = 0
    """Connections that had to be closed, because the client did not use them in time."""
    slowest: float = 0.0
    workers: Counter = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.failed + self.reset + self.refused + self.wrong

    def fault(self, kind: str, detail: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.details) < 20:
            self.details.append(f"{kind} at {time.monotonic():.3f}: {detail}")


class TooLate(Exception):
    """The client had no processor for so long that it may not expect its connection to be open, and it is not."""


class Load:
    """`keep_alive` + `one_shot` clients, each asking again `pause` seconds after its answer, until left."""

    def __init__(
        self,
        address,
        *,
        keep_alive: int = 4,
        one_shot: int = 4,
        pause: float = 0.0,
        path: str = "/echo",
        until_refused: bool = False,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.context = context
        self.address, self.path, self.pause, self.until_refused = address, path, pause, until_refused
        self.kinds = [True] * keep_alive + [False] * one_shot
        self.counters = Counters()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        self.wait_answered(len(self.kinds) * 3)
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> Counters:
        self._leave.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "clients still wait for an answer"
        return self.counters

    def join(self) -> Counters:
        """The clients of a server that stops leave by themselves."""
        self._thread.join(PATIENCE_S)
        return self.stop()

    def wait_answered(self, count: int) -> None:
        """Until `count` requests were answered, from the start."""
        deadline = time.monotonic() + PATIENCE_S
        while self.counters.answered < count:
            assert time.monotonic() < deadline, f"{self.counters.answered} of {count} answers; {self.counters.details}"
            assert self._thread.is_alive(), f"all clients left; {self.counters.details}"
            time.sleep(0.005)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number, kept) for number, kept in enumerate(self.kinds)))

    async def _client(self, number: int, kept: bool) -> None:
        streams = None
        count, started = 0, 0.0
        while not self._leave.is_set():
            count += 1
            word = f"{number}-{count}"
            self.counters.sent += 1
            since, started = started, time.monotonic()
            step = "connect"
            try:
                if streams is None:
                    since, streams = started, await self._connect()
                step = "new" if since == started else "reused"
                closes = await asyncio.wait_for(self._ask(streams, word, kept, since), PATIENCE_S)
            except TooLate:
                self.counters.late += 1
                self.counters.sent -= 1
                closes = True
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                is_refused = isinstance(error, ConnectionRefusedError)
                # A listener that closes also resets a connection that it has begun: nothing was sent on it.
                is_cut_off = step == "connect" and self.context is None and isinstance(error, ConnectionResetError)
                if self.until_refused and (is_refused or is_cut_off):
                    self.counters.sent -= 1
                    return
                self.counters.fault("refused" if is_refused else "reset", f"{step} {error!r}")
                closes = True
                await asyncio.sleep(0.01 if is_refused else 0)
            except (OSError, ValueError, asyncio.TimeoutError) as error:
                self.counters.fault("failed", f"{step} {error!r}")
                closes = True
            self.counters.slowest = max(self.counters.slowest, time.monotonic() - started)
            if streams is not None and (closes or not kept):
                streams[1].close()
                streams = None
            await asyncio.sleep(self.pause)
        if streams is not None:
            streams[1].close()

    async def _connect(self):
        if isinstance(self.address, str):
            return await asyncio.open_unix_connection(self.address)
        reader, writer = await asyncio.open_connection(
            *self.address, ssl=self.context, server_hostname="localhost" if self.context else None
        )
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return reader, writer

    def _is_closed(self, streams) -> bool:
        """Whether the server has closed the connection, as far as its client can know before it sends."""
        reader, writer = streams
        poll = select.poll()
        poll.register(writer.get_extra_info("socket").fileno(), select.POLLIN)
        # Over TLS it may also be a ticket.
        return reader.at_eof() or (self.context is None and bool(poll.poll(0)))

    async def _ask(self, streams, word: str, kept: bool, since: float) -> bool:
        if time.monotonic() - since >= UNCLOSED_S and self._is_closed(streams):
            raise TooLate
        reader, writer = streams
        ending = "" if kept else "Connection: close\r\n"
        writer.write(f"GET {self.path}?{word} HTTP/1.1\r\nHost: load\r\n{ending}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = (await reader.readexactly(int(fields["content-length"]))).decode()
        if not head.startswith("HTTP/1.1 200"):
            self.counters.fault("failed", head.split("\r\n")[0])
        elif body.split(" ")[0] != word:
            self.counters.fault("wrong", f"{body!r} for {word!r}")
        else:
            self.counters.answered += 1
            self.counters.workers[body.split(" ")[1]] += 1
        return fields.get("connection") == "close"
