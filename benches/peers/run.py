"""Compare servers end to end: `python benches/peers/run.py`, or `make peers`. See README.md for what and how.

Each round runs every server once per scenario, one after the other, so that a noisy minute hits all of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

from loads import IdleConnections, NonReaders, SlowHeads, raise_descriptor_limit, wrk
from servers import PEERS, THREADS, Peer, Running

RESULTS = Path(__file__).resolve().parent / "results"
Figures = dict[str, float | None]


class Bench:
    """The settings of one run, and the scenarios."""

    def __init__(self, seconds: float, pin: bool, idle: int, slow_peers: int | None) -> None:
        self.seconds, self.idle = seconds, idle
        self.slow_peers = slow_peers
        cpus = sorted(os.sched_getaffinity(0))
        self.server_cpu, self.client_cpu = (cpus[0], cpus[1]) if pin and len(cpus) > 1 else (None, None)

    def start(self, peer: Peer, application: str, flags: tuple[str, ...] = ()) -> Running:
        return Running(peer, application, flags, self.server_cpu)

    def load(self, server: Running, connections: int) -> Figures:
        """wrk, and what it cost the server."""
        wrk(server.url, connections, 1, cpu=self.client_cpu)
        before = server.cpu_seconds()
        figures: Figures = dict(wrk(server.url, connections, self.seconds, cpu=self.client_cpu))
        spent = server.cpu_seconds() - before
        figures["cpu_us_per_request"] = spent * 1e6 / figures["requests"] if figures["requests"] else None
        figures["memory_mib"] = server.memory_kib() / 1024
        return figures

    # -- scenarios: one function each, figures of one server in one round ------------------------------

    def hello(self, peer: Peer) -> Figures:
        """A raw WSGI hello, 64 connections."""
        with self.start(peer, "hello:app") as server:
            return self.load(server, 64)

    def flask(self, peer: Peer) -> Figures:
        """One Flask route with JSON, 64 connections."""
        with self.start(peer, "flask_hello:app") as server:
            return self.load(server, 64)

    def slow_heads(self, peer: Peer) -> Figures:
        """A fast client (8 connections) beside 200 peers that send a header byte a second."""
        return self.beside(peer, lambda server: SlowHeads(server.port, self.slow_peers or 200))

    def non_readers(self, peer: Peer) -> Figures:
        """A fast client (8 connections) beside 50 peers that never read their 64 MiB."""
        return self.beside(peer, lambda server: NonReaders(server.port, self.slow_peers or 50))

    def beside(self, peer: Peer, crowd: Callable[[Running], SlowHeads | NonReaders]) -> Figures:
        with self.start(peer, "large:app") as server:
            alone = self.load(server, 8)
            with crowd(server):
                figures = self.load(server, 8)
        figures["p99_alone_ms"] = alone["p99_ms"]
        figures["p99_ratio"] = figures["p99_ms"] / alone["p99_ms"] if figures["p99_ms"] and alone["p99_ms"] else None
        return figures

    def idle_connections(self, peer: Peer) -> Figures:
        """Ten thousand kept-alive connections that do nothing: memory of each, and a fast client beside them."""
        with self.start(peer, "hello:app", peer.many_connections) as server:
            wrk(server.url, 8, 1, cpu=self.client_cpu)
            before = server.memory_kib()
            with IdleConnections(server.port, self.idle):
                bytes_each = (server.memory_kib() - before) * 1024 / self.idle
                figures = self.load(server, 8)
        figures["bytes_per_connection"] = bytes_each
        return figures


SCENARIOS = ["hello", "flask", "slow_heads", "non_readers", "idle_connections"]
COLUMNS = {
    "requests_per_s": ("req/s", "{:,.0f}"),
    "p50_ms": ("p50 ms", "{:.2f}"),
    "p99_ms": ("p99 ms", "{:.2f}"),
    "cpu_us_per_request": ("CPU µs/req", "{:.1f}"),
    "memory_mib": ("PSS MiB", "{:.1f}"),
    "errors": ("errors", "{:.0f}"),
    "p99_alone_ms": ("p99 alone", "{:.2f}"),
    "p99_ratio": ("p99 ratio", "{:.2f}"),
    "bytes_per_connection": ("bytes/conn", "{:,.0f}"),
}


def machine() -> dict[str, object]:
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def markdown(report: dict) -> str:
    """Medians of all rounds, one table per scenario; the JSON file has every round."""
    about = report["machine"]
    lines = [
        f"# {about['date']}",
        "",
        f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']}. "
        f"One worker, {THREADS} threads; median of {report['rounds']} interleaved rounds of {report['seconds']:g} s"
        f"{'; server and client on a core each' if report['pinned'] else ''}.",
    ]
    for scenario, by_server in report["results"].items():
        shown = [key for key in COLUMNS if any(key in figures for rounds in by_server.values() for figures in rounds)]
        lines += ["", f"## {scenario}", "", getattr(Bench, scenario).__doc__ or "", ""]
        lines.append("| server | " + " | ".join(COLUMNS[key][0] for key in shown) + " |")
        lines.append("| --- |" + " ---: |" * len(shown))
        for name, rounds in by_server.items():
            cells = []
            for key in shown:
                values = [figures[key] for figures in rounds if figures.get(key) is not None]
                cells.append(COLUMNS[key][1].format(statistics.median(values)) if values else "none")
            failed = [figures["failed"] for figures in rounds if "failed" in figures]
            label = f"{name} {report['versions'][name]}" + (f" (failed: {failed[0]})" if failed else "")
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only these (may be repeated)")
    parser.add_argument("--server", action="append", choices=[peer.name for peer in PEERS], help="only these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="length of one measurement")
    parser.add_argument("--idle", type=int, default=10_000, help="connections of idle_connections")
    parser.add_argument("--slow-peers", type=int, help="peers of slow_heads and non_readers (200 and 50)")
    parser.add_argument("--pin", action="store_true", help="server on the first core, load on the second")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON and Markdown files")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    raise_descriptor_limit()
    peers = [peer for peer in PEERS if peer.name in (chosen.server or [p.name for p in PEERS])]
    for peer in [peer for peer in peers if not peer.is_installed]:
        print(f"not installed, left out: {peer.name}")
        peers.remove(peer)
    scenarios = chosen.scenario or SCENARIOS
    bench = Bench(chosen.seconds, chosen.pin, chosen.idle, chosen.slow_peers)
    results: dict[str, dict[str, list[Figures]]] = {name: {peer.name: [] for peer in peers} for name in scenarios}
    for number in range(1, chosen.rounds + 1):
        for name in scenarios:
            for peer in peers:
                try:
                    figures = getattr(bench, name)(peer)
                except (OSError, RuntimeError) as error:
                    # A server that cannot do it at all is a result, too.
                    figures = {"failed": str(error)}
                results[name][peer.name].append(figures)
                shown = {key: round(value, 2) for key, value in figures.items() if isinstance(value, (int, float))}
                print(f"round {number} {name} {peer.name}: {shown or figures}", flush=True)
    report = {
        "machine": machine(),
        "versions": {peer.name: peer.version for peer in peers},
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "pinned": chosen.pin,
        "results": results,
    }
    chosen.output.mkdir(parents=True, exist_ok=True)
    stem = chosen.output / datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d-%H%M%S")
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(report))
    print("\n" + markdown(report))


if __name__ == "__main__":
    main()
