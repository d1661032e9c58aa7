"""`ferricornc top`: what a server does now, in a terminal or as JSON, from two samples of the control socket.

`figures` and `frame` are pure functions: two samples to a document, a document to the lines of a screen.
"""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ferricorn._advise import cpu_seconds
from ferricorn._screen import Screen
from ferricorn._text import duration, printable, size

# The data of an answer.
Answer = dict[str, Any]
Ask = Callable[[str], Answer]

INTERVAL_S = 1.0
INTERVALS_S = (0.1, 3600.0)
# A connection that fails sooner than this was closed, and did not wait for an answer.
AT_ONCE_S = 1.0
QUANTILES = (50, 90, 99)


# -- samples ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What the server said at one moment of the monotonic clock."""

    at: float
    stats: Answer
    # By pid; with `cpu_seconds` where /proc tells.
    workers: dict[int, Answer]
    running: Answer
    # Of each worker, by pid: counts by powers of two of microseconds.
    histograms: dict[int, dict[str, list[int]]]


def sample(ask: Ask, optional: Ask) -> Sample:
    """`optional` gives no data where the server, such as gunicorn, does not know a command."""
    stats = ask("show stats")
    rows = ask("show workers").get("workers", [])
    running = optional("show requests")
    histograms = {row["pid"]: row for row in optional("show histograms").get("workers", [])}
    workers = {row["pid"]: {**row, "cpu_seconds": cpu_seconds(row["pid"])} for row in rows}
    return Sample(time.monotonic(), stats, workers, running, histograms)


def figures(before: Sample, after: Sample) -> Answer:
    """One document: rates since `before`, and what is so at `after`."""
    passed = max(after.at - before.at, 1e-6)
    is_same = before.stats.get("pid") == after.stats.get("pid")
    rows = [_worker(before.workers.get(pid), row, passed, is_same) for pid, row in after.workers.items()]
    stats = after.stats
    return {
        "time": round(time.time(), 3),
        "seconds": round(passed, 3),
        "pid": stats.get("pid"),
        "version": stats.get("version"),
        "uptime": stats.get("uptime"),
        "stopping": bool(stats.get("stopping")),
        "reloads": stats.get("reloads"),
        "workers_serving": sum(row["state"] == "serving" for row in rows),
        "workers_target": stats.get("workers_target"),
        "requests_per_second": _sum(rows, "requests_per_second"),
        "errors_per_second": _sum(rows, "errors_per_second"),
        "request_seconds": _quantiles(before, after, "requests") if is_same else {},
        "queue_seconds": _quantiles(before, after, "queue") if is_same else {},
        "gil_seconds": _quantiles(before, after, "gil") if is_same else {},
        "threads": _sum(rows, "threads"),
        "threads_busy": _sum(rows, "threads_busy"),
        "queued": _sum(rows, "queue"),
        "connections": _sum(rows, "connections"),
        "rss": _sum(rows, "rss"),
        "workers": rows,
        "requests": after.running.get("requests", []),
    }


def _worker(before: Answer | None, row: Answer, passed: float, is_same: bool) -> Answer:
    # A worker that has come since then has begun at nothing.
    old = before if before is not None else {} if is_same else None

    def rate(name: str) -> float | None:
        if old is None or row.get(name) is None:
            return None
        return round(max(row[name] - (old.get(name) or 0), 0) / passed, 3)

    state = row.get("state", "serving" if row.get("booted") else "booting")
    new = {"requests_per_second": rate("requests"), "errors_per_second": rate("errors"), "cpu": rate("cpu_seconds")}
    return {**{name: value for name, value in row.items() if name != "cpu_seconds"}, "state": state, **new}


def _sum(rows: list[Answer], name: str) -> Any:
    values = [row[name] for row in rows if row.get(name) is not None]
    return round(sum(values), 3) if values or not rows else None


def _quantiles(before: Sample, after: Sample, name: str) -> dict[str, float]:
    total: list[int] = []
    for pid, row in after.histograms.items():
        counts = row.get(name, [])
        old = before.histograms.get(pid, {}).get(name, [])
        total = total or [0] * len(counts)
        for at, count in enumerate(counts):
            total[at] += max(count - (old[at] if at < len(old) else 0), 0)
    if not sum(total):
        return {}
    return {f"p{percent}": quantile(total, percent) for percent in QUANTILES}


def quantile(counts: list[int], percent: int) -> float:
    """Seconds below which `percent` of 100 are, by a straight line within the bucket, as Prometheus estimates it."""
    rank, below = sum(counts) * percent / 100, 0
    for bucket, count in enumerate(counts):
        if count and below + count >= rank:
            start = 0 if bucket == 0 else 1 << (bucket - 1)
            return float(f"{(start + ((1 << bucket) - start) * (rank - below) / count) / 1e6:.4g}")
        below += count
    return 0.0


# -- a screen --------------------------------------------------------------------------------------

BOLD, RED, DIM = "1", "31", "2"
Column = tuple[str, bool, Callable[[Answer], object]]

# Name, whether it stands to the left, and the text. `WORKERS_FIRST_OUT` are left out first where the screen is narrow.
WORKER_COLUMNS: tuple[Column, ...] = (
    ("PID", False, lambda row: row.get("pid")),
    ("STATE", True, lambda row: row["state"]),
    ("UP", False, lambda row: duration(row.get("uptime"))),
    ("BUSY", False, lambda row: f"{row.get('threads_busy', '-')}/{row.get('threads', '-')}"),
    ("QUEUE", False, lambda row: row.get("queue")),
    ("CONNS", False, lambda row: row.get("connections")),
    ("REQ/S", False, lambda row: _rate(row["requests_per_second"])),
    ("REQS", False, lambda row: row.get("requests")),
    ("ERRS", False, lambda row: row.get("errors")),
    ("CPU", False, lambda row: "-" if row["cpu"] is None else f"{row['cpu']:.0%}"),
    ("RSS", False, lambda row: size(row.get("rss"))),
    ("LOOP", False, lambda row: duration(row.get("last_heartbeat"))),
    ("PYTHON", False, lambda row: duration(row.get("python_heartbeat"))),
)
WORKERS_FIRST_OUT = ("LOOP", "REQS", "CONNS", "UP", "PYTHON", "CPU", "ERRS", "QUEUE", "RSS", "STATE")
REQUEST_COLUMNS: tuple[Column, ...] = (
    ("WORKER", False, lambda row: row.get("worker")),
    ("AGE", False, lambda row: duration(row.get("age"))),
    ("PEER", True, lambda row: row.get("peer")),
    ("METHOD", True, lambda row: row.get("method")),
    ("PATH", True, lambda row: row.get("path")),
)
REQUESTS_FIRST_OUT = ("PEER", "WORKER")
# A path is cut rather than make other columns go.
PATH_WIDTH_MIN = 12


def frame(data: Answer, columns: int, lines: int, paint: bool = False) -> list[str]:
    """At most `lines` lines of at most `columns` characters. What clients have sent cannot move the cursor."""
    ink = _Ink(paint)
    head = _head(data, columns, ink)
    rows = _rows(WORKER_COLUMNS, WORKERS_FIRST_OUT, data["workers"], columns)
    bad = [row["state"] in ("aborted", "booting") for row in data["workers"]]
    workers = [ink.cut(line, columns, RED if is_bad else "") for line, is_bad in zip(rows[1:], bad, strict=True)]
    count = len(data["requests"])
    title = f"{count} running, {data['queued'] or 0:.0f} waiting for a thread"
    running = _rows(REQUEST_COLUMNS, REQUESTS_FIRST_OUT, data["requests"], columns)
    # The workers have what the requests leave them, which is at least a third.
    left = max(lines - len(head) - 5, 0)
    for_workers = min(len(workers), max(left - len(running) + 1, left - left // 3))
    shown = workers[:for_workers]
    if len(workers) > for_workers:
        named = max(for_workers - 1, 0)
        shown = [*workers[:named], ink.cut(f"... {len(workers) - named} workers", columns)]
    screen = [*head, "", ink.cut(rows[0], columns, BOLD), *shown, "", ink.cut(title, columns, BOLD)]
    if count:
        screen += [ink.cut(running[0], columns, DIM), *(ink.cut(line, columns) for line in running[1:])]
    return screen[:lines]


def _head(data: Answer, columns: int, ink: _Ink) -> list[str]:
    serving, target = data["workers_serving"], data["workers_target"]
    state = "stopping" if data["stopping"] else f"{serving} of {target} workers serve"
    is_bad = data["stopping"] or (target is not None and serving < target)
    version = printable(data["version"])
    who = f"ferricorn {version.removeprefix('ferricorn/')}  pid {data['pid']}  up {duration(data['uptime'])}"
    clock = time.strftime("%H:%M:%S", time.localtime(data["time"]))

    def times(name: str) -> str:
        values = data[name]
        return "  ".join(f"p{percent} {seconds_short(values.get(f'p{percent}'))}" for percent in QUANTILES)

    requests = f"requests  {_rate(data['requests_per_second'])}/s  errors {_rate(data['errors_per_second'])}/s"
    threads = f"threads   {data['threads_busy']}/{data['threads']} busy  waiting {data['queued']}"
    more = f"connections {data['connections']}  memory {size(data['rss'])}  reloads {data['reloads']}"
    pieces = [
        (f"{who}  {state}  {clock}", RED if is_bad else BOLD),
        (requests, ""),
        (f"time      {times('request_seconds')}", ""),
        (f"queue     {times('queue_seconds')}", ""),
        (f"GIL wait  {times('gil_seconds')}", ""),
        (f"{threads}  {more}", ""),
    ]
    if is_bad and len(pieces[0][0]) > columns:
        # The news is not what is cut.
        pieces[0] = (f"{state}  {who}", RED)
    return [ink.cut(text, columns, style) for text, style in pieces]


def _rows(columns: tuple[Column, ...], first_out: tuple[str, ...], rows: list[Answer], width: int) -> list[str]:
    """A line of headings and one for each row, without the columns for which there is no space."""
    cells = {name: [name, *(printable(text(row)) for row in rows)] for name, _, text in columns}
    widths = {name: max(map(display_width, column)) for name, column in cells.items()}
    kept = [(name, is_left) for name, is_left, _ in columns]

    def needed() -> int:
        return sum(min(widths[name], PATH_WIDTH_MIN if name == "PATH" else 999) + 2 for name, _ in kept) - 2

    for name in first_out:
        if needed() <= width:
            break
        kept = [one for one in kept if one[0] != name]

    def pad(text: str, name: str, is_left: bool) -> str:
        space = " " * (widths[name] - display_width(text))
        return text + space if is_left else space + text

    return [
        "  ".join(pad(cells[name][at], name, is_left) for name, is_left in kept).rstrip() for at in range(len(rows) + 1)
    ]


class _Ink:
    """Cuts lines to the screen, and paints them where that is wanted."""

    def __init__(self, paint: bool) -> None:
        self._paint = paint

    def cut(self, text: str, columns: int, style: str = "") -> str:
        if display_width(text) > columns:
            room, kept = max(columns - 1, 0), []
            for character in text:
                room -= display_width(character)
                if room < 0:
                    break
                kept.append(character)
            text = "".join(kept) + "~" * (columns > 0)
        return f"\x1b[{style}m{text}\x1b[0m" if style and self._paint and text else text


def display_width(text: str) -> int:
    """Cells of a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def seconds_short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}s" if value >= 1 else f"{value * 1e3:.1f}ms" if value >= 1e-3 else f"{value * 1e6:.0f}us"


# -- running ---------------------------------------------------------------------------------------


class Source:
    """Samples of a server that may go and come back."""

    def __init__(self, connect: Callable[[], Any], error: type[Exception]) -> None:
        self._connect = connect
        self._error = error
        self._client: Any = None
        self._before: Sample | None = None

    def next(self) -> tuple[Answer | None, str]:
        """The figures since the sample before, none for the first; or why there are none."""
        was_connected, began = self._client is not None, time.monotonic()
        try:
            if self._client is None:
                self._client = self._connect()
            after = sample(self._client.ask, self._optional)
        except self._error as error:
            self.close()
            if was_connected and time.monotonic() - began < AT_ONCE_S:
                # The server has ended; another may be there already.
                return self.next()
            return None, printable(str(error).partition("\n")[0])
        before, self._before = self._before, after
        return (figures(before, after) if before is not None else None), ""

    def _optional(self, command: str) -> Answer:
        try:
            return dict(self._client.ask(command))
        except self._error as error:
            if "Unknown" in str(error):
                return {}
            raise

    def close(self) -> None:
        if self._client is not None:
            self._client.__exit__()
        self._client = self._before = None


def run(source: Source, interval: float | None, as_json: bool) -> int:
    """A screen where standard output is a terminal; else one document, or one for each `interval`."""
    try:
        if not as_json and is_screen():
            with Screen() as screen:
                return _run_screen(source, screen, interval or INTERVAL_S)
        return _run_plain(source, interval, as_json)
    finally:
        source.close()


def is_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _run_plain(source: Source, interval: float | None, as_json: bool) -> int:
    while True:
        data, error = source.next()
        if not error and data is None:
            time.sleep(interval or INTERVAL_S)
            data, error = source.next()
        if error and interval is None:
            print(f"Error: {error}", file=sys.stderr)
            return 1
        if as_json:
            document = data if data is not None else {"time": round(time.time(), 3), "error": error}
            print(json.dumps(document, indent=None if interval else 2), flush=True)
        elif data is not None:
            # Not for the width of a screen.
            print("\n".join(frame(data, 1000, 1000)), flush=True)
        else:
            print(f"Error: {error}", file=sys.stderr)
        if interval is None:
            return 0
        if not as_json:
            print(flush=True)
        time.sleep(interval)


def _run_screen(source: Source, screen: Screen, interval: float) -> int:
    data, error, due = None, "", 0.0
    while True:
        now = time.monotonic()
        if now >= due:
            new, error = source.next()
            # The first figures need a second sample, which is taken early.
            due = now + (interval if new is not None or error else min(interval, 0.5))
            data = new if new is not None else data
        columns, lines = os.get_terminal_size(1)
        if error:
            shown = [f"No answer: {error}", f"Trying again every {interval:g} s. q quits."]
            shown = [_Ink(False).cut(line, columns) for line in shown][:lines]
        elif data is None:
            shown = ["Connecting"]
        else:
            shown = frame(data, columns, lines, screen.paints)
        screen.show(shown)
        if screen.wait(max(due - time.monotonic(), 0)) & {"q", "Q", "\x04"}:
            return 0
