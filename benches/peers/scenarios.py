"""What is measured: a table of plain loads, and the scenarios that need more than wrk."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from certificates import certificate
from loads import (
    Asking,
    Crowd,
    IdleConnections,
    NonReaders,
    OpenLoop,
    SlowBodies,
    SlowHeads,
    h2load,
    handshakes,
    keep_alive_connection,
    wrk,
)
from servers import Peer, Running, Shape

SCRIPTS = Path(__file__).resolve().parent / "wrk"
Figures = dict[str, float | None]
BROWSER = (
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Cache-Control: no-cache",
    "Cookie: sessionid=4fb7e3d06b2c4f1d; csrftoken=hQzXlPuE9KxW7c; theme=dark",
    "DNT: 1",
    "Pragma: no-cache",
    "Priority: u=0, i",
    "Referer: https://shop.example/catalogue/page-2.html",
    'Sec-CH-UA: "Chromium";v="141", "Not A Brand";v="8"',
    "Sec-CH-UA-Mobile: ?0",
    'Sec-CH-UA-Platform: "Linux"',
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-User: ?1",
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "X-Requested-With: XMLHttpRequest",
)


@dataclass(frozen=True)
class Load:
    """One line of the table: an application, a shape of server, and what wrk does to it."""

    about: str
    app: str
    connections: int = 64
    path: str = "/"
    headers: tuple[str, ...] = ()
    script: tuple[str, ...] = ()
    workers: int = 1
    threads: int = 2
    key: str | None = None
    """TLS, with a key of this kind."""
    streams: int = 0
    """HTTP/2, with so many streams at once on each connection."""
    handshakes: str | None = None
    """A new connection of TLS for each request, "full" or "resumed"."""
    pinned: bool = True
    """May be pinned to a core: not when what is asked is how cores are shared."""


def _threads(count: int) -> Load:
    return Load(f"Flask with {count} threads, nothing pinned", "flask_hello:app", threads=count, pinned=False)


def _waiting(count: int) -> Load:
    return Load(f"10 ms of waiting, {count} threads", "waiting:io", threads=count)


LOADS = {
    "hello_1": Load("A raw WSGI hello, 1 connection", "hello:app", 1),
    "hello_16": Load("A raw WSGI hello, 16 connections", "hello:app", 16),
    "hello": Load("A raw WSGI hello, 64 connections", "hello:app"),
    "hello_256": Load("A raw WSGI hello, 256 connections", "hello:app", 256),
    "hello_headers": Load("The same with a browser's 20 header fields", "hello:app", headers=BROWSER),
    "hello_new": Load("A new connection for each request, 16 clients", "hello:app", 16, headers=("Connection: close",)),
    "hello_unpinned": Load("A raw WSGI hello, 64 connections, nothing pinned", "hello:app", pinned=False),
    "flask_1": Load("One Flask route with JSON, 1 connection", "flask_hello:app", 1),
    "flask": Load("One Flask route with JSON, 64 connections", "flask_hello:app"),
    "flask_w2": Load("The same with two workers, nothing pinned", "flask_hello:app", workers=2, pinned=False),
    "flask_w4": Load("The same with four workers, nothing pinned", "flask_hello:app", workers=4, pinned=False),
    "django": Load("A Django view that renders a template", "django_page:app"),
    "body_10k": Load("10 KiB of response", "bodies:app", path="/10k"),
    "body_1m": Load("1 MiB of response", "bodies:app", path="/1m"),
    "stream": Load("A generator of 64 pieces of 16 KiB", "bodies:app", path="/stream"),
    "upload_64k": Load("64 KiB of request", "bodies:app", script=("upload.lua", "65536")),
    "upload_1m": Load("1 MiB of request", "bodies:app", script=("upload.lua", "1048576")),
    "upload_chunked": Load("64 KiB of request in chunks", "bodies:app", script=("upload.lua", "65536", "chunked")),
    "tls_hello_1": Load("hello over TLS, 1 connection", "hello:app", 1, key="ecdsa"),
    "tls_hello": Load("hello over TLS, 64 connections", "hello:app", key="ecdsa"),
    "tls_new_ecdsa": Load(
        "A full TLS 1.3 handshake for each request, P-256, one client", "hello:app", 1, key="ecdsa", handshakes="full"
    ),
    "tls_new_rsa": Load("The same with RSA-2048", "hello:app", 1, key="rsa", handshakes="full"),
    "tls_body_1m": Load("1 MiB of response over TLS, 4 connections", "bodies:app", 4, path="/1m", key="ecdsa"),
    "tls_resumed_w2": Load(
        "A resumed TLS 1.3 handshake for each request, two workers, one client",
        "hello:app",
        1,
        workers=2,
        key="ecdsa",
        handshakes="resumed",
    ),
    "h2_1x100": Load("hello over HTTP/2, 1 connection with 100 streams", "hello:app", 1, key="ecdsa", streams=100),
    "h2_16x10": Load("hello over HTTP/2, 16 connections with 10 streams", "hello:app", 16, key="ecdsa", streams=10),
    "h2_body_1m": Load(
        "1 MiB of response over HTTP/2, 4 connections with 1 stream",
        "bodies:app",
        4,
        path="/1m",
        key="ecdsa",
        streams=1,
    ),
    **{f"flask_t{count}": _threads(count) for count in (1, 2, 4, 16)},
    **{f"waiting_t{count}": _waiting(count) for count in (2, 8, 32, 64)},
}


@dataclass
class Bench:
    """The settings of one run; its methods are the scenarios that are not in the table."""

    seconds: float
    server_cpu: int | None
    client_cpu: int | None
    idle: int = 10_000
    slow_peers: int | None = None
    special: dict[str, Callable[[Peer], Figures]] = field(init=False)

    def __post_init__(self) -> None:
        self.special = {
            "slow_heads": self.slow_heads,
            "slow_bodies": self.slow_bodies,
            "non_readers": self.non_readers,
            "beside_sleep": self.beside_sleep,
            "beside_burn": self.beside_burn,
            "beside_gil": self.beside_gil,
            "idle_connections": self.idle_connections,
            "mixed": self.mixed,
            "flask_paced": self.flask_paced,
            "start_stop": self.start_stop,
            "memory": self.memory,
        }

    def run(self, name: str, peer: Peer) -> Figures:
        load = LOADS.get(name)
        if load is None:
            return self.special[name](peer)
        if peer.one_thread and (load.workers, load.threads) not in ((1, 2), (1, 1)):
            raise RuntimeError("one thread is all it has")
        cpu = self.server_cpu if load.pinned else None
        if load.key and not peer.tls:
            raise RuntimeError("it has no TLS")
        if load.streams and peer.h2 is None:
            raise RuntimeError("it has no HTTP/2")
        flags = peer.h2 if load.streams else ()
        with Running(peer, Shape(load.app, load.workers, load.threads, flags, cpu, load.key)) as server:
            return self.load(server, load)

    def load(self, server: Running, load: Load) -> Figures:
        """wrk, and what it cost the server."""
        client_cpu = self.client_cpu if load.pinned else None

        def drive(seconds: float) -> Figures:
            script = [str(SCRIPTS / load.script[0]), *load.script[1:]] if load.script else []
            threads = 1 if client_cpu is not None or load.connections == 1 else 2
            url = f"{'https' if load.key else 'http'}://127.0.0.1:{server.port}{load.path}"
            if load.streams:
                return h2load(url, load.connections, load.streams, seconds, client_cpu)
            if load.handshakes:
                return handshakes(load.handshakes, server.port, certificate(load.key)[0], seconds, client_cpu)
            return wrk(url, load.connections, seconds, threads, client_cpu, load.headers, script)

        drive(1)
        before = server.cpu_seconds()
        figures: Figures = dict(drive(self.seconds))
        spent = server.cpu_seconds() - before
        figures["cpu_us_per_request"] = spent * 1e6 / figures["requests"] if figures["requests"] else None
        figures["memory_mib"] = server.memory_kib() / 1024
        return figures

    def slow_heads(self, peer: Peer) -> Figures:
        """A fast client (8 connections) beside 200 peers that send a header byte a second."""
        return self.beside(peer, lambda server: SlowHeads(server.port, self.slow_peers or 200))

    def slow_bodies(self, peer: Peer) -> Figures:
        """A fast client (8 connections) beside 200 peers that send a body byte a second."""
        return self.beside(peer, lambda server: SlowBodies(server.port, self.slow_peers or 200))

    def beside_sleep(self, peer: Peer) -> Figures:
        """A fast client (8 connections) beside one whose requests sleep for a second; 2 threads."""
        return self.beside_view(peer, "/sleep")

    def beside_burn(self, peer: Peer) -> Figures:
        """A fast client (8 connections) beside one whose requests compute for a second; 2 threads."""
        return self.beside_view(peer, "/burn")

    def beside_gil(self, peer: Peer) -> Figures:
        """A fast client (8 connections) beside one whose requests keep the GIL in C for 100 ms; 2 threads."""
        return self.beside_view(peer, "/keep")

    def beside_view(self, peer: Peer, path: str) -> Figures:
        if peer.one_thread:
            raise RuntimeError("one thread is all it has")
        return self.beside(peer, lambda server: Asking(server.port, 1, path), "heavy:app")

    def non_readers(self, peer: Peer) -> Figures:
        """A fast client (8 connections) beside 50 peers that never read their 64 MiB."""
        return self.beside(peer, lambda server: NonReaders(server.port, self.slow_peers or 50))

    def beside(self, peer: Peer, crowd: Callable[[Running], Crowd], app: str = "large:app") -> Figures:
        fast = Load("", app, 8)
        with Running(peer, Shape(app, cpu=self.server_cpu)) as server:
            alone = self.load(server, fast)
            with crowd(server):
                figures = self.load(server, fast)
        figures["p99_alone_ms"] = alone["p99_ms"]
        figures["p99_ratio"] = figures["p99_ms"] / alone["p99_ms"] if figures["p99_ms"] and alone["p99_ms"] else None
        return figures

    def idle_connections(self, peer: Peer) -> Figures:
        """Ten thousand kept-alive connections that do nothing: memory of each, and a fast client beside them."""
        fast = Load("", "hello:app", 64)
        with Running(peer, Shape("hello:app", flags=peer.many_connections, cpu=self.server_cpu)) as server:
            alone = self.load(server, fast)
            before = server.memory_kib()
            with IdleConnections(server.port, self.idle):
                bytes_each = (server.memory_kib() - before) * 1024 / self.idle
                figures = self.load(server, fast)
        figures["bytes_per_connection"] = bytes_each
        figures["cpu_alone_us"] = alone["cpu_us_per_request"]
        if figures["cpu_us_per_request"] and alone["cpu_us_per_request"]:
            figures["cpu_ratio"] = figures["cpu_us_per_request"] / alone["cpu_us_per_request"]
        return figures

    def mixed(self, peer: Peer) -> Figures:
        """200 requests a second at fixed times: 95 % work 1 ms, 5 % sleep 200 ms; 4 threads. The fast ones' latency."""
        if peer.one_thread:
            raise RuntimeError("one thread is all it has")
        with Running(peer, Shape("waiting:mixed", threads=4, cpu=self.server_cpu)) as server:
            before = server.cpu_seconds()
            load = OpenLoop(server.port, rate=200, seconds=max(self.seconds, 5) * 2, slow_share=0.05)
            figures = load.run()
            spent = server.cpu_seconds() - before
        figures["least_p99_ms"] = load.least_p99_ms()
        figures["cpu_us_per_request"] = spent * 1e6 / figures["requests"]
        return figures

    def flask_paced(self, peer: Peer) -> Figures:
        """Flask, 200 requests a second at fixed times on up to four connections: a server that is mostly idle."""
        with Running(peer, Shape("flask_hello:app", cpu=self.server_cpu)) as server:
            OpenLoop(server.port, rate=200, seconds=1, clients=4).run()
            before = server.cpu_seconds()
            figures = OpenLoop(server.port, rate=200, seconds=max(self.seconds, 5), clients=4).run()
            spent = server.cpu_seconds() - before
        figures["cpu_us_per_request"] = spent * 1e6 / figures["requests"]
        return figures

    def start_stop(self, peer: Peer) -> Figures:
        """Four workers, nothing pinned: from exec to the first 200; SIGTERM to the end beside an idle connection."""
        if peer.one_thread:
            raise RuntimeError("one thread is all it has")
        starts, stops = [], []
        for _ in range(5):
            with Running(peer, Shape("hello:app", workers=4)) as server:
                starts.append(server.seconds_to_answer * 1000)
                with keep_alive_connection(server.port):
                    # Not the stop of a connection just used: that is given a moment for a request on its way.
                    server.let_idle(1.5)
                    stops.append(server.stop() * 1000)
        return {"start_ms": statistics.median(starts), "stop_ms": statistics.median(stops)}

    def memory(self, peer: Peer) -> Figures:
        """Flask, four workers, two threads, after a second of load."""
        if peer.one_thread:
            raise RuntimeError("one thread is all it has")
        figures: Figures = {}
        preload = {"granian": None, "uwsgi": None, "waitress": None}.get(peer.name, ("--preload",))
        for key, flags in (("memory_mib", ()), ("memory_preload_mib", preload)):
            if flags is not None:
                with Running(peer, Shape("flask_hello:app", workers=4, flags=flags)) as server:
                    wrk(f"http://127.0.0.1:{server.port}/", 64, 1)
                    figures[key] = server.memory_kib() / 1024
        return figures
