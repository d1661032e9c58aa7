"""What is done to a server: wrk as the fast client, and crowds of peers that are slow, unresponsive or idle."""

from __future__ import annotations

import concurrent.futures
import contextlib
import heapq
import os
import queue
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HANDSHAKES = str(Path(__file__).resolve().parent / "handshakes.py")
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def wrk(
    url: str,
    connections: int,
    seconds: float,
    threads: int = 2,
    cpu: int | None = None,
    headers: Sequence[str] = (),
    script: Sequence[str] = (),
) -> dict[str, float]:
    """Requests, requests per second, latencies in milliseconds, and everything that went wrong."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not on PATH; it is the load generator of every scenario")
    command = [program, f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    for header in headers:
        command += ["-H", header]
    # A script's arguments stand behind the address.
    command += ["-s", script[0], url, "--", *script[1:]] if script else [url]
    shown = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=pinned(cpu),
    ).stdout
    requests = int(re.search(r"(\d+) requests in", shown).group(1))
    result = {"requests": requests, "requests_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", shown).group(1))}
    for percent in ("50", "90", "99"):
        found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", shown, re.MULTILINE)
        # With no answer at all wrk prints zeros; there is no latency then.
        result[f"p{percent}_ms"] = float(found[1]) * UNITS[found[2]] if found and requests else None
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", shown)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", shown)
    result["errors"] = sum(map(int, errors.groups())) if errors else 0
    result["errors"] += int(refused[1]) if refused else 0
    return result


def pinned(cpu: int | None) -> Callable[[], None] | None:
    return None if cpu is None else lambda: os.sched_setaffinity(0, {cpu})


def h2load(url: str, clients: int, streams: int, seconds: float, cpu: int | None = None) -> dict[str, float | None]:
    """Requests on streams of HTTP/2, so many at once on each of the clients' connections."""
    program = shutil.which("h2load")
    if program is None:
        raise RuntimeError("h2load is not on PATH")
    words = [program, f"-c{clients}", f"-m{streams}", f"-D{max(1, round(seconds))}", "--warm-up-time=0", url]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 10, preexec_fn=pinned(cpu))
    except subprocess.TimeoutExpired:
        # It waits for the connections that no thread serves.
        raise RuntimeError("it does not serve all connections") from None
    shown = done.stdout
    counted = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", shown)
    requests, succeeded, failed, errored = map(int, counted.groups()) if counted else (0, 0, 0, 0)
    if "Application protocol: h2" not in shown or not succeeded:
        raise RuntimeError("it does not answer over HTTP/2")
    rate = float(re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", shown).group(1))
    return {"requests": requests, "requests_per_s": rate, "errors": failed + errored}


def handshakes(kind: str, port: int, authority: str, seconds: float, cpu: int | None = None) -> dict[str, float | None]:
    """A new connection of TLS 1.3 for each request: a full handshake, or one that resumes the session before it."""
    words = [sys.executable, HANDSHAKES, kind, str(port), authority, str(seconds)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, preexec_fn=pinned(cpu)).stdout
    requests, resumed, errors = map(int, shown.split())
    figures = {"requests": requests, "requests_per_s": requests / seconds, "errors": errors}
    if kind == "resumed":
        figures["resumed_percent"] = 100 * resumed / max(1, requests)
    return figures


class Crowd:
    """Connections to one server that are kept for the length of a `with` block."""

    def __init__(self, port: int, count: int) -> None:
        self.port, self.count = port, count
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> Crowd:
        raise_descriptor_limit()
        for _ in range(self.count):
            self.sockets.append(self.open())
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.sockets:
            one.close()

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)


class Dripping(Crowd):
    """Each sends one byte a second and never finishes."""

    REQUEST: bytes

    def __enter__(self) -> Dripping:
        super().__enter__()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._drip, daemon=True)
        self._thread.start()
        return self

    def _drip(self) -> None:
        for byte in self.REQUEST:
            for one in self.sockets:
                # A server may have given up on this peer.
                with contextlib.suppress(OSError):
                    one.send(bytes([byte]), socket.MSG_DONTWAIT)
            if self._leave.wait(1):
                return

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()
        super().__exit__()


class SlowHeads(Dripping):
    """Of its request's head."""

    REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: " + b"a" * 4000


class SlowBodies(Dripping):
    """Of its request's body."""

    REQUEST = b"a" * 4000

    def open(self) -> socket.socket:
        one = super().open()
        one.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\n\r\n")
        return one


class Asking(Crowd):
    """Each asks for one path, again and again."""

    def __init__(self, port: int, count: int, path: str) -> None:
        super().__init__(port, count)
        self.path = path

    def __enter__(self) -> Asking:
        super().__enter__()
        self._threads = [threading.Thread(target=self._ask, args=(one,), daemon=True) for one in self.sockets]
        for one in self._threads:
            one.start()
        return self

    def _ask(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                ask(one, self.path)

    def __exit__(self, *_: object) -> None:
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        super().__exit__()


class NonReaders(Crowd):
    """Each asks for 64 MiB and reads nothing."""

    def open(self) -> socket.socket:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(10)
        one.connect(("127.0.0.1", self.port))
        one.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        return one


class IdleConnections(Crowd):
    """Each had one request answered and stays."""

    def open(self) -> socket.socket:
        return keep_alive_connection(self.port)


def keep_alive_connection(port: int) -> socket.socket:
    """A connection that had one hello answered."""
    one = socket.create_connection(("127.0.0.1", port), 10)
    ask(one, "/")
    return one


def ask(one: socket.socket, path: str) -> None:
    """One request, answered with a body of a declared length."""
    one.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
    received, length = b"", None
    while length is None or len(received) < length:
        block = one.recv(4096)
        if not block:
            raise ConnectionError("closed instead of kept")
        received += block
        if length is None and (declared := re.search(rb"\r\ncontent-length: *(\d+)\r\n", received, re.IGNORECASE)):
            end = received.find(b"\r\n\r\n")
            length = end + 4 + int(declared[1]) if end >= 0 else None


class OpenLoop:
    """Requests that leave at their time whether or not others are answered; a seed makes each run the same."""

    SLOW_S, FAST_S, THREADS = 0.2, 0.001, 4

    def __init__(self, port: int, rate: int, seconds: float, slow_share: float = 0.0, clients: int = 64) -> None:
        self.port, self.clients = port, clients
        chance = random.Random(1)
        at, self.plan = 0.0, []
        while at < seconds:
            at += chance.expovariate(rate)
            self.plan.append((at, chance.random() < slow_share))

    def run(self) -> dict[str, float | None]:
        """Latencies of the fast requests from the moment they were due, and the least that any order could give."""
        spare: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        latencies: list[float] = []
        began = time.monotonic() + 0.1

        def one_request(due: float, is_slow: bool) -> None:
            try:
                one = spare.get_nowait()
            except queue.Empty:
                one = socket.create_connection(("127.0.0.1", self.port), 10)
            ask(one, "/slow" if is_slow else "/")
            if not is_slow:
                latencies.append((time.monotonic() - began - due) * 1000)
            spare.put(one)

        with concurrent.futures.ThreadPoolExecutor(self.clients) as pool:
            requests = []
            for due, is_slow in self.plan:
                # The schedule is the load: this is a clock, not a wait for something to happen.
                time.sleep(max(0.0, began + due - time.monotonic()))
                requests.append(pool.submit(one_request, due, is_slow))
            failed = sum(request.exception() is not None for request in requests)
        while not spare.empty():
            spare.get().close()
        return {
            "requests": len(self.plan),
            "p50_ms": percentile(latencies, 50),
            "p99_ms": percentile(latencies, 99),
            "errors": failed,
        }

    def least_p99_ms(self) -> float:
        """The same arrivals served first come, first served by four threads that cost nothing."""
        free = [0.0] * self.THREADS
        latencies = []
        for due, is_slow in self.plan:
            start = max(due, heapq.heappop(free))
            end = start + (self.SLOW_S if is_slow else self.FAST_S)
            heapq.heappush(free, end)
            if not is_slow:
                latencies.append((end - due) * 1000)
        return percentile(latencies, 99)


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
