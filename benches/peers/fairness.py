"""How evenly a server with several workers uses them: the figures behind "fair", for ferricorn and gunicorn.

    .venv/bin/python benches/peers/fairness.py                          # everything, about two minutes
    .venv/bin/python benches/peers/fairness.py --measure handover --seconds 8

Three measures, each with `-w 4 --threads 2`:

- `slow`: eight connections at once, each with one request of 0.5 s: how many each worker gets, and how long the last
  one takes (0.5 s when every thread has one).
- `kept`: 64 kept-alive connections that ask for hello: requests of the busiest worker over those of the idlest.
- `handover`: 32 kept-alive connections with a mean of 60 % load, 5 % of the requests sleep 500 ms, the others take 1 ms:
  p50 and p99 of the fast ones. ferricorn also runs with `--no-handover`.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from servers import APPS, free_port

WORKERS, THREADS = 4, 2
SHAPE = ("-w", str(WORKERS), "--threads", str(THREADS), "--keep-alive", "75")
SERVERS = {
    "ferricorn": (sys.executable, "-m", "ferricorn", *SHAPE),
    "ferricorn --no-handover": (sys.executable, "-m", "ferricorn", *SHAPE, "--no-handover"),
    "gunicorn": (sys.executable, "-m", "gunicorn", "-k", "gthread", "--no-control-socket", *SHAPE),
}
SLOW_SHARE, SLOW_S, FAST_S, LOAD = 0.05, 0.5, 0.001, 0.6


class Server:
    """One server on a free port; its workers answer before it is used."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self.port = free_port()
        line = [*command, "-b", f"127.0.0.1:{self.port}", "shares:application"]
        self.process = subprocess.Popen(line, cwd=APPS, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 20
        seen: set[str] = set()
        while len(seen) < WORKERS:
            if time.monotonic() > deadline:
                raise SystemExit(f"{command}: only {len(seen)} of {WORKERS} workers answered")
            try:
                burst = [self.connect() for _ in range(WORKERS * THREADS)]
                for one in burst:
                    one.request("GET", "/?0.05")
                seen |= {one.getresponse().read().decode() for one in burst}
                for one in burst:
                    one.close()
            except OSError:
                time.sleep(0.05)

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def stop(self) -> None:
        os.kill(self.process.pid, signal.SIGTERM)
        self.process.wait(40)


def ask(connection: http.client.HTTPConnection, target: str) -> str:
    connection.request("GET", target)
    return connection.getresponse().read().decode()


def measure_slow(server: Server, seconds: float) -> dict[str, object]:
    spreads, lasts = [], []
    for _ in range(max(1, int(seconds))):
        connections = [server.connect() for _ in range(WORKERS * THREADS)]
        began = time.monotonic()
        for one in connections:
            one.request("GET", "/?0.5")
        shares = collections.Counter(one.getresponse().read().decode() for one in connections)
        lasts.append(time.monotonic() - began)
        spreads.append(sorted(shares.values(), reverse=True))
        for one in connections:
            one.close()
    worst = max(spreads, key=lambda spread: (spread[0], -len(spread)))
    return {"worst spread": worst, "slowest s": round(max(lasts), 2), "median s": round(statistics.median(lasts), 2)}


def measure_kept(server: Server, seconds: float) -> dict[str, object]:
    shares: collections.Counter[str] = collections.Counter()
    lock, end = threading.Lock(), time.monotonic() + seconds

    def run() -> None:
        connections = [server.connect() for _ in range(8)]
        own: collections.Counter[str] = collections.Counter()
        while time.monotonic() < end:
            for one in connections:
                one.request("GET", "/")
            own.update(one.getresponse().read().decode() for one in connections)
        with lock:
            shares.update(own)

    in_threads(run, 8)
    ordered = [count for _, count in shares.most_common()] + [0] * (WORKERS - len(shares))
    ratio = round(ordered[0] / ordered[-1], 2) if ordered[-1] else "inf"
    return {"busiest/idlest": ratio, "requests": sum(ordered)}


def measure_handover(server: Server, seconds: float) -> dict[str, object]:
    connections_count = 32
    mean_s = SLOW_SHARE * SLOW_S + (1 - SLOW_SHARE) * FAST_S
    pause_s = connections_count / (LOAD * WORKERS * THREADS / mean_s)
    fast: list[float] = []
    lock, end = threading.Lock(), time.monotonic() + seconds

    def run(number: int) -> None:
        chance = random.Random(number)
        connection = server.connect()
        own = []
        due = time.monotonic() + chance.random() * pause_s
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            is_slow = chance.random() < SLOW_SHARE
            began = time.monotonic()
            ask(connection, f"/?{SLOW_S if is_slow else FAST_S}")
            if not is_slow:
                own.append(time.monotonic() - began)
            # The pace does not wait for the answer's lateness, but one connection asks one thing at a time.
            due = max(due + chance.expovariate(1 / pause_s), time.monotonic())
        with lock:
            fast.extend(own)

    in_threads(run, connections_count, numbered=True)
    fast.sort()
    at = lambda share: round(fast[min(len(fast) - 1, int(len(fast) * share))] * 1000, 1)  # noqa: E731
    return {"p50 ms": at(0.50), "p99 ms": at(0.99), "fast requests": len(fast)}


def in_threads(run, count: int, numbered: bool = False) -> None:
    threads = [threading.Thread(target=run, args=(number,) if numbered else ()) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


MEASURES = {"slow": measure_slow, "kept": measure_kept, "handover": measure_handover}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="append", choices=MEASURES)
    parser.add_argument("--server", action="append", choices=SERVERS)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    figures: list[dict[str, object]] = []
    for measure in options.measure or MEASURES:
        for name in options.server or SERVERS:
            if "handover" in name and measure != "handover":
                continue
            server = Server(SERVERS[name])
            try:
                result = MEASURES[measure](server, options.seconds)
            finally:
                server.stop()
            figures.append({"measure": measure, "server": name, **result})
            shown = ", ".join(f"{key} {value}" for key, value in result.items())
            print(f"{measure:9} {name:24} {shown}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
