"""No stream is lost while workers come and go: those that the last GOAWAY counts are answered,
the others may be sent again.

`HTTP2_STREAMS=20000` is the long run; by default each case sends a few thousand.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import threading

import pytest
from authorities import Authority
from frames import PREFACE, REFUSED_STREAM, Frames
from hyperframe.frame import PingFrame, SettingsFrame

from harness import PATIENCE_S, Server, wait_until

pytestmark = pytest.mark.ours

STREAMS = int(os.environ.get("HTTP2_STREAMS", "1500"))
CONNECTIONS, AT_ONCE = 3, 10


class Streams:
    """Clients that ask on several streams at a time, on a new connection whenever one says goodbye."""

    def __init__(self, one: Server, context: ssl.SSLContext | None = None) -> None:
        self.address, self.context = one.address, context
        self.answered, self.lost, self.goodbyes = 0, [], 0
        self.is_over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CONNECTIONS)]

    def __enter__(self) -> Streams:
        for thread in self._threads:
            thread.start()
        self.wait_answered(100)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S * 4)
            assert not thread.is_alive(), "a client still waits for an answer"

    def wait_answered(self, count: int) -> None:
        wait_until(lambda: self.answered >= count or self.lost, f"{count} streams are answered", PATIENCE_S * 6)

    def _connect(self) -> Frames | None:
        try:
            client = Frames(self.address, PATIENCE_S, begin=False)
        except ConnectionError:
            return None
        try:
            if self.context is not None:
                client.socket = self.context.wrap_socket(client.socket, server_hostname="localhost")
            client.send_bytes(PREFACE)
            client.send(SettingsFrame(0))
        except OSError:
            # It was in the accept queue of a server that has stopped; nothing was asked.
            client.close()
        return client

    def _run(self) -> None:
        while not self.is_over.is_set():
            client = self._connect()
            if client is None:
                return
            self._talk(client)
            client.close()

    def _talk(self, client: Frames) -> None:
        """Answers are short: no window is ever opened, so nothing is sent but requests and answers to PING."""
        client.credits = False
        waiting: set[int] = set()
        asks = True
        while waiting or asks:
            try:
                while (asks := asks and self._asks(client)) and len(waiting) < AT_ONCE:
                    waiting.add(client._next)
                    client.ask()
                if not client.step():
                    break
                if isinstance(client.frames[-1], PingFrame):
                    client.send(PingFrame(0, opaque_data=client.frames[-1].opaque_data, flags=["ACK"]))
            except OSError:
                # The server has closed; what it has said before is still read.
                asks = False
                continue
            over = {stream for stream in waiting if stream in client.replies and client.replies[stream].over}
            waiting -= over
            self._count([client.replies.pop(stream) for stream in over])
        self.goodbyes += bool(client.goaways)
        last = client.goaways[-1][0] if client.goaways else 0x7FFFFFFF
        if counted := sorted(stream for stream in waiting if stream <= last):
            self._lose(f"streams {counted} of a connection that ended with {client.goaways}")

    def _asks(self, client: Frames) -> bool:
        return not (client.goaways or client.closed or self.is_over.is_set() or client._next > 10_000)

    def _count(self, replies) -> None:
        with self._lock:
            for reply in replies:
                if reply.body == b"hello":
                    self.answered += 1
                elif reply.reset != REFUSED_STREAM:
                    self._lose(repr(reply))

    def _lose(self, what: str) -> None:
        self.lost.append(what)


def start(server, *arguments: str, **options) -> Server:
    words = ("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge", "--threads", "2")
    return server("streams:application", *words, *arguments, workers=2, **options)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["HUP", "TERM", "TTOU", "max_requests", "USR2"])
def test_no_stream_is_lost(server, what):
    one = start(server, *(("--max-requests", str(STREAMS // 5)) if what == "max_requests" else ()))
    one.log.wait("Booting worker", 2)
    successor = None
    with Streams(one) as streams:
        if what in ("HUP", "TTOU"):
            for share in (4, 2):
                streams.wait_answered(STREAMS // share)
                one.send_signal(getattr(signal, f"SIG{what}"))
                if what == "TTOU":
                    one.log.wait("Worker exiting")
                    one.send_signal(signal.SIGTTIN)
        elif what == "USR2":
            streams.wait_answered(STREAMS // 4)
            one.send_signal(signal.SIGUSR2)
            one.log.wait("Booting worker", 4)
            successor = int(one.log.wait(r"Listening at: .+ \((\d+)\)$", 2)[1].group(1))
            one.send_signal(signal.SIGTERM)
            assert one.wait_exit(PATIENCE_S * 3) == 0
        elif what == "TERM":
            streams.wait_answered(STREAMS)
            one.send_signal(signal.SIGTERM)
            streams.join()
        streams.wait_answered(STREAMS)
        # With one worker less, all connections may have been with the other.
        if what != "TTOU":
            wait_until(lambda: streams.goodbyes or streams.lost, "a connection says goodbye", PATIENCE_S * 3)
    assert streams.lost == []
    print(f"{what}: {streams.answered} streams answered, {streams.goodbyes} connections said goodbye, 0 lost")
    if successor is not None:
        os.kill(successor, signal.SIGTERM)
        one.wait_gone()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_stream_is_lost_while_certificates_are_exchanged(server, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server")
    one = start(server, "--certfile", str(certificate), "--keyfile", str(key))
    context = authority.client()
    context.set_alpn_protocols(["h2"])
    with Streams(one, context) as streams:
        for number, share in enumerate((4, 2), 1):
            streams.wait_answered(STREAMS // share)
            for new, old in zip(authority.sign(f"next{number}"), (certificate, key), strict=True):
                shutil.move(new, old)
            one.log.wait("TLS certificate: ", number + 1)
        streams.wait_answered(STREAMS)
    assert streams.lost == []
