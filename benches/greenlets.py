"""`-k gevent` beside gunicorn's: CPU, latency and memory, in interleaved rounds, server and client on a core each.

    python benches/greenlets.py [--rounds 3] [--server NAME=COMMAND ...] [CASE ...]
    python benches/greenlets.py --write docs/gevent.md     # every case; the page's table becomes that of this run

CPU is that of all processes of the server, from /proc. Only ratios of one run are to be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import select
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

APP = """
import time

def app(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/sleep":
        time.sleep(float(query))
    if path == "/events":
        return events(float(query))
    if path == "/large":
        return large()
    if path == "/read":
        return [str(len(environ["wsgi.input"].read())).encode()]
    return [b"Hello, world!"]

def events(every):
    while True:
        yield b"data: x\\n\\n"
        time.sleep(every)

def large():
    for _ in range(1000):
        yield b"x" * 65536
"""
TICK = os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, command: list[str], directory: Path, connections: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        line = ["taskset", "-c", "0", *command, "-b", f"127.0.0.1:{self.port}", "--backlog", "8192"]
        line += ["--worker-connections", str(connections), "--keep-alive", "75", "app:app"]
        with (directory / "log").open("ab") as log:
            self.process = subprocess.Popen(line, cwd=directory, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.ask(b"/")
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    print((directory / "log").read_text(), file=sys.stderr)
                    raise
                time.sleep(0.05)

    def ask(self, path: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.port), 10) as one:
            one.sendall(request(path, b"Connection: close\r\n"))
            if not one.recv(100).startswith(b"HTTP/1.1 200"):
                raise OSError("no answer")

    def processes(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def cpu_s(self) -> float:
        total = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def memory_bytes(self) -> int:
        """Of the workers, without what is shared."""
        total = 0
        for pid in self.processes()[1:]:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Private"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def request(path: bytes, more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n"


def connected(port: int, count: int) -> list[socket.socket]:
    made = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port), 20)
        one.setblocking(False)
        made.append(one)
    return made


def gather(clients: list[socket.socket], is_whole) -> list[float]:
    """When the answer of each was whole."""
    poll = select.epoll()
    by_number = {one.fileno(): (one, bytearray()) for one in clients}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    ended, deadline = [], time.monotonic() + 60
    while len(ended) < len(clients) and time.monotonic() < deadline:
        for number, _ in poll.poll(1):
            one, text = by_number[number]
            data = one.recv(65536)
            text += data
            if not data or is_whole(text):
                poll.unregister(number)
                ended.append(time.monotonic() if data else float("inf"))
    poll.close()
    return ended


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def hello(server: Server, seconds: float = 4) -> dict[str, float]:
    """64 connections that ask without a pause."""
    clients = connected(server.port, 64)
    poll = select.epoll()
    by_number = {one.fileno(): one for one in clients}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    before, count, until = server.cpu_s(), 0, time.monotonic() + seconds
    text = request(b"/")
    for one in clients:
        one.send(text)
    while time.monotonic() < until:
        for number, _ in poll.poll(1):
            one = by_number[number]
            if one.recv(4096):
                count += 1
                one.send(text)
    spent = server.cpu_s() - before
    for one in clients:
        one.close()
    return {"CPU us per request": spent / count * 1e6}


def sleepers(server: Server, count: int) -> dict[str, float]:
    """All ask at once for an answer that takes a second."""
    clients = connected(server.port, count)
    time.sleep(0.5)
    before, begun = server.cpu_s(), time.monotonic()
    for one in clients:
        one.send(request(b"/sleep?1"))
    peak = []
    watch = threading.Timer(0.9, lambda: peak.append(server.memory_bytes()))
    watch.start()
    ended = gather(clients, lambda text: text.endswith(b"Hello, world!") or b"Hello, world!\r\n0" in text)
    watch.join()
    spent = server.cpu_s() - before
    for one in clients:
        one.close()
    return {
        "CPU us per request": spent / count * 1e6,
        "p99 ms": (percentile(ended, 0.99) - begun) * 1000,
        "memory MB": peak[0] / 1e6,
    }


def idle(server: Server, count: int = 10_000) -> dict[str, float]:
    """Connections that have been answered once and are kept."""
    before = server.memory_bytes()
    clients = connected(server.port, count)
    for first in range(0, count, 100):
        some = clients[first : first + 100]
        for one in some:
            one.send(request(b"/"))
        gather(some, lambda text: b"Hello, world!" in text)
    time.sleep(1)
    used = server.memory_bytes() - before
    for one in clients:
        one.close()
    return {"bytes per connection": used / count}


def events(server: Server, count: int = 5000, seconds: float = 5) -> dict[str, float]:
    """Event streams, an event a second each."""
    clients = connected(server.port, count)
    for one in clients:
        one.send(request(b"/events?1"))
    gather(clients, lambda text: b"data" in text)
    poll = select.epoll()
    by_number = {one.fileno(): one for one in clients}
    for number in by_number:
        poll.register(number, select.EPOLLIN)

    def read_for(seconds: float) -> int:
        seen, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            for number, _ in poll.poll(1, 1000):
                seen += by_number[number].recv(65536).count(b"data:")
        return seen

    # What has piled up while the streams began was paid for before.
    read_for(2)
    before = server.cpu_s()
    seen = read_for(seconds)
    spent = server.cpu_s() - before
    for one in clients:
        one.close()
    return {"CPU us per event": spent / seen * 1e6, "events": seen}


def fast_client(server: Server, seconds: float) -> list[float]:
    times = []
    with socket.create_connection(("127.0.0.1", server.port), 20) as one:
        until = time.monotonic() + seconds
        while (begun := time.monotonic()) < until:
            one.sendall(request(b"/"))
            text = b""
            while b"Hello, world!" not in text:
                text += one.recv(4096)
            times.append(time.monotonic() - begun)
    return times


def slow(server: Server, count: int = 200) -> dict[str, float]:
    """A client that asks without a pause, alone and beside slow heads, bodies and readers."""
    alone = percentile(fast_client(server, 3), 0.99)
    peers = connected(server.port, 3 * count)
    is_over = threading.Event()

    def trickle() -> None:
        for number, one in enumerate(peers):
            if number % 3 == 0:
                one.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
            elif number % 3 == 1:
                one.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
            else:
                one.send(request(b"/large"))
        while not is_over.wait(0.2):
            for number, one in enumerate(peers):
                with contextlib.suppress(OSError):
                    one.send(b"x") if number % 3 < 2 else one.recv(1024)

    thread = threading.Thread(target=trickle)
    thread.start()
    time.sleep(1)
    beside = percentile(fast_client(server, 3), 0.99)
    is_over.set()
    thread.join()
    for one in peers:
        one.close()
    return {"p99 alone ms": alone * 1000, "p99 beside ms": beside * 1000, "ratio": beside / alone}


CASES = {
    "hello": (hello, 1000),
    "sleepers_1000": (lambda server: sleepers(server, 1000), 6000),
    "sleepers_5000": (lambda server: sleepers(server, 5000), 6000),
    "idle": (idle, 11000),
    "events": (events, 6000),
    "slow": (slow, 1000),
}


# Of the table: the row, its case, and its figures with what they are multiplied by and their format.
ROWS = [
    ("hello, 64 connections: CPU per request", "hello", [("CPU us per request", 1, "{:.1f} µs")]),
    (
        "1,000 requests of `time.sleep(1)` at once: CPU, p99",
        "sleepers_1000",
        [("CPU us per request", 1, "{:.0f} µs"), ("p99 ms", 1, "{:.0f} ms")],
    ),
    (
        "5,000 the same: CPU, p99",
        "sleepers_5000",
        [("CPU us per request", 1, "{:.0f} µs"), ("p99 ms", 1, "{:.0f} ms")],
    ),
    ("5,000 the same: private memory of the worker", "sleepers_5000", [("memory MB", 1, "{:.0f} MB")]),
    ("10,000 idle connections: memory of each", "idle", [("bytes per connection", 1e-3, "{:.1f} KB")]),
    ("5,000 event streams, an event a second each: CPU per event", "events", [("CPU us per event", 1, "{:.1f} µs")]),
    (
        "200 slow heads, 200 slow bodies and 200 slow readers: p99 of a fast client beside them, to that alone",
        "slow",
        [("ratio", 1, "{:.1f}")],
    ),
]
Medians = dict[str, dict[str, dict[str, float]]]


def table(medians: Medians, rounds: int) -> list[str]:
    """Of `medians[case][server]`, with the ratio of the first figure."""
    from importlib.metadata import version
    from platform import python_version

    versions = [f"CPython {python_version()}", *(f"{name} {version(name)}" for name in ("gevent", "gunicorn"))]
    lines = [
        f"Medians of {rounds} interleaved rounds, {', '.join(versions)}:",
        "",
        "| | gunicorn -k gevent | ferricorn -k gevent | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for title, case, shown in ROWS:
        theirs, ours = medians[case]["gunicorn"], medians[case]["ferricorn"]
        cells = [", ".join(form.format(one[key] * by) for key, by, form in shown) for one in (theirs, ours)]
        first = shown[0][0]
        ratio = "" if first == "ratio" else f"{ours[first] / theirs[first]:.2f}"
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {ratio} |")
    return lines


def write(page: Path, lines: list[str]) -> None:
    old = page.read_text().splitlines()
    first = next(number for number, line in enumerate(old) if line.startswith("Medians of "))
    last = next(number for number in range(first + 2, len(old) + 1) if number == len(old) or not old[number])
    page.write_text("\n".join([*old[:first], *lines, *old[last:]]) + "\n")


def measure(case: str, servers: dict[str, list[str]], rounds: int, directory: Path) -> dict[str, dict[str, float]]:
    """The medians of each server."""
    run, connections = CASES[case]
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, command in servers.items():
            server = Server(command, directory, connections)
            try:
                figures[name].append(run(server))
            except OSError as error:
                print(f"{case} {name}: {error}", flush=True)
            finally:
                server.stop()
    medians = {}
    for name, shown in figures.items():
        medians[name] = {key: statistics.median(one[key] for one in shown) for key in (shown[0] if shown else ())}
        print(
            f"{case:14} {name:12} " + ", ".join(f"{key} {value:.4g}" for key, value in medians[name].items()),
            flush=True,
        )
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=[*CASES], metavar="CASE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", action="append", metavar="NAME=COMMAND")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    python = shlex.quote(sys.executable)
    given = options.server or [
        f"ferricorn={python} -m ferricorn -k gevent",
        f"gunicorn={python} -m gunicorn -k gevent --no-control-socket",
    ]
    servers = {name: shlex.split(command) for name, _, command in (one.partition("=") for one in given)}
    if options.write and (set(options.cases) != set(CASES) or set(servers) != {"ferricorn", "gunicorn"}):
        parser.error("--write needs every case and both servers")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "app.py").write_text(APP)
        medians = {case: measure(case, servers, options.rounds, Path(directory)) for case in options.cases}
    if options.write:
        write(options.write, table(medians, options.rounds))


if __name__ == "__main__":
    main()
