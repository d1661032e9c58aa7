"""`ferricornc advise`: what two looks at a server say about its workers and threads, in plain words.

The rule is `advice`, a pure function of one `Load`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Below this a wait for a thread is not worth a change.
WAIT_GOOD_S = 0.005
# An interpreter that runs more of the time than this makes its threads wait for each other.
PYTHON_FULL = 0.7
# Fewer finished requests than this say nothing.
REQUESTS_MIN = 30
# More threads than this hide a slow neighbour rather than serve.
THREADS_MAX = 64
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


def advice(load: Load) -> str:
    """One paragraph."""
    if load.requests < REQUESTS_MIN:
        longer = max(60, round(load.seconds * 10))
        return (
            f"{load.requests} requests have finished in {load.seconds:.0f} s, too few for advice. "
            f"`advise {longer}` watches for {longer} s."
        )
    wait = load.queue_s / load.requests
    busy = min(1.0, load.service_s / load.seconds / (load.workers * load.threads))
    python = load.cpu_s / load.seconds / load.workers
    seen = f"threads are busy {busy:.0%} of the time, each worker uses {python:.0%} of a core"
    if wait < WAIT_GOOD_S:
        return f"Leave it: requests wait {_ms(wait)} for a thread, {seen}."
    if python >= PYTHON_FULL:
        return _more_workers(load, wait, seen)
    threads = _threads(load)
    said = f"Requests wait {_ms(wait)} for a thread while {seen}"
    if threads <= load.threads:
        return f"{said}: they come in bursts, and on average the threads are enough. Leave it, or see `show requests`."
    if threads > THREADS_MAX:
        return (
            f"{said}: it would take {threads} threads in each worker, so what the views wait for is too slow. "
            "`show requests` and `stack PID` say what that is."
        )
    note = ""
    later = python * threads / load.threads
    if later >= PYTHON_FULL and load.workers < load.cores:
        note = f" Each worker may then use {min(later, 1):.0%} of a core: if it does, add a worker as well."
    return f"{said}: {threads} threads instead of {load.threads} would cut the wait to under {_ms(WAIT_GOOD_S)}.{note}"


def _more_workers(load: Load, wait: float, seen: str) -> str:
    said = f"Requests wait {_ms(wait)} for a thread, and {seen}"
    used = load.cpu_s / load.seconds
    # What waits now would run as well.
    demand = used * (load.queue_s + load.service_s) / load.service_s
    workers = min(load.cores, max(load.workers + 1, math.ceil(demand / PYTHON_FULL)))
    if load.workers >= load.cores or used > 0.9 * load.cores:
        return (
            f"{said}: the {load.cores} cores are what is missing, and neither threads nor workers are more of them. "
            "A faster view or another machine would help."
        )
    return (
        f"{said}: one interpreter runs Python on one core at a time, so {workers} workers instead of {load.workers} "
        "would help, and more threads would not."
    )


def _threads(load: Load) -> int:
    """The fewest threads of a worker with which a request hardly waits."""
    rate = load.requests / load.seconds / load.workers
    service = load.service_s / load.requests
    # Clients that wait for their answers ask more often once they get them: those present now must find a thread each.
    present = (load.queue_s + load.service_s) / load.seconds / load.workers
    threads = max(1, math.ceil(present - 0.05))
    while threads <= THREADS_MAX and mean_wait(rate, service, threads) >= WAIT_GOOD_S:
        threads += 1
    return threads


def mean_wait(rate: float, service: float, threads: int) -> float:
    """Erlang's C formula: requests at random times, service times that vary as much as their mean."""
    load = rate * service
    if load >= threads:
        return math.inf
    blocked = 1.0
    for count in range(1, threads + 1):
        blocked = load * blocked / (count + load * blocked)
    waits = blocked / (1 - (load / threads) * (1 - blocked))
    return waits * service / (threads - load)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


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
        return float(sum(new[name] - old[name] for old, new in both))

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
