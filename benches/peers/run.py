"""Compare servers end to end: `python benches/peers/run.py`, or `make peers`. See README.md for what and how.

Each round runs every server once per scenario, one after the other, so that a noisy minute hits all of them. Every
second round has the opposite order, so that no server always follows the same one.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import report
from loads import raise_descriptor_limit
from scenarios import LOADS, Bench, Figures
from servers import PEERS, base_build

RESULTS = Path(__file__).resolve().parent / "results"
DEFAULT = ["hello", "flask", "slow_heads", "non_readers", "idle_connections"]


def arguments() -> argparse.Namespace:
    special = list(Bench(0, None, None).special)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=[*LOADS, *special, "all"], help="may be repeated")
    parser.add_argument("--server", action="append", choices=[peer.name for peer in PEERS], help="only these")
    parser.add_argument("--base", type=Path, metavar="CHECKOUT", help="compare with an older checkout too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="length of one measurement")
    parser.add_argument("--idle", type=int, default=10_000, help="connections of idle_connections")
    parser.add_argument(
        "--slow-peers", type=int, help="peers of slow_heads, slow_bodies and non_readers (200, 200 and 50)"
    )
    parser.add_argument("--pin", action="store_true", help="server on the first core, load on the second")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    chosen = parser.parse_args()
    chosen.scenario = chosen.scenario or DEFAULT
    if "all" in chosen.scenario:
        chosen.scenario = [*LOADS, *special]
    return chosen


def main() -> None:
    chosen = arguments()
    raise_descriptor_limit()
    peers = [peer for peer in PEERS if peer.name in (chosen.server or [p.name for p in PEERS])]
    if chosen.base:
        peers.append(base_build(chosen.base))
    for peer in [peer for peer in peers if not peer.is_installed]:
        print(f"not installed, left out: {peer.name}")
        peers.remove(peer)
    cpus = sorted(os.sched_getaffinity(0))
    server_cpu, client_cpu = (cpus[0], cpus[1]) if chosen.pin and len(cpus) > 1 else (None, None)
    bench = Bench(chosen.seconds, server_cpu, client_cpu, chosen.idle, chosen.slow_peers)
    results: dict[str, dict[str, list[Figures]]] = {name: {peer.name: [] for peer in peers} for name in chosen.scenario}
    for number in range(1, chosen.rounds + 1):
        for name in chosen.scenario:
            for peer in peers if number % 2 else peers[::-1]:
                try:
                    figures = bench.run(name, peer)
                except (OSError, RuntimeError) as error:
                    # A server that cannot do it at all is a result, too.
                    figures = {"failed": str(error)}
                results[name][peer.name].append(figures)
                shown = {key: round(value, 2) for key, value in figures.items() if isinstance(value, (int, float))}
                print(f"round {number} {name} {peer.name}: {shown or figures}", flush=True)
    report.write(
        {
            "machine": report.machine(),
            "versions": {peer.name: peer.version for peer in peers},
            "rounds": chosen.rounds,
            "seconds": chosen.seconds,
            "pinned": chosen.pin,
            "results": results,
        },
        chosen.output,
    )


if __name__ == "__main__":
    main()
