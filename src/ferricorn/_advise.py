"""`ferricornc advise`: what two looks at a server say about its workers and threads, in plain words.

The rule is a pure function of one `Load`: src/control/advice.rs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ferricorn import _core

SECONDS = 5.0


@dataclass(frozen=True)
class Load:
    """What the workers did for a while. Times of requests are sums over those that finished."""

    seconds: float
    cores: int
    workers: int
    threads: int
    requests: int
    # Waiting for a thread; and from the thread to the last byte.
    queue_s: float
    service_s: float
    # Of all workers, in Python and outside.
    cpu_s: float
    # Of the wait for a thread, that of woken threads for the GIL.
    gil_s: float = 0
    # What a worker has in RAM, on average, and what is left for more; 0 and none where that is not known.
    worker_bytes: int = 0
    memory_left: int | None = None


def advice(load: Load) -> str:
    """One paragraph, by the rule that the dashboard has as well."""
    return _core.advice(load)


# -- looking ---------------------------------------------------------------------------------------


def watch(ask: Callable[[str], dict[str, Any]], seconds: float) -> Load | None:
    """Two looks at the workers; none where no worker was there for both."""
    before, began = _look(ask)
    time.sleep(seconds)
    after, ended = _look(ask)
    both = [(before[pid], after[pid]) for pid in before if pid in after]
    if not both:
        return None

    def grown(name: str) -> float:
        return float(sum(new.get(name, 0) - old.get(name, 0) for old, new in both))

    queue = grown("queue_seconds")
    return Load(
        seconds=ended - began,
        cores=len(os.sched_getaffinity(0)),
        workers=len(both),
        threads=both[0][1]["threads"],
        requests=round(grown("finished")),
        queue_s=queue,
        service_s=max(grown("request_seconds") - queue, 1e-9),
        cpu_s=grown("cpu_seconds"),
        gil_s=grown("gil_seconds"),
        worker_bytes=sum(new.get("rss") or 0 for _, new in both) // len(both),
        memory_left=_core.memory_left(both[0][1]["pid"]),
    )


def _look(ask: Callable[[str], dict[str, Any]]) -> tuple[dict[int, dict[str, Any]], float]:
    rows = ask("show workers").get("workers", [])
    at = time.monotonic()
    serving = {row["pid"]: row for row in rows if row.get("state") == "serving" and "finished" in row}
    seen = {pid: {**row, "cpu_seconds": cpu} for pid, row in serving.items() if (cpu := cpu_seconds(pid)) is not None}
    return seen, at


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process; none when it is gone, or in another namespace."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
