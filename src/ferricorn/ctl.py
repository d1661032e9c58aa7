"""The `ferricornc` command: inspects and steers a running server, over its control socket.

It speaks gunicornc's protocol (a length in four bytes, then JSON), so either program can talk to either server.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import struct
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ferricorn import _advise, _top
from ferricorn._core import __version__
from ferricorn._text import duration, printable, size

# The data of an answer.
Answer = dict[str, Any]

ANSWER_BYTES_MAX = 16 * 1024 * 1024
# Every answer comes at once, but for that of a worker whose interpreter is held up: after three seconds.
PATIENCE_S = 30.0
# `top` says sooner that a server does not answer.
TOP_PATIENCE_S = 5.0
HISTORY = Path("~/.ferricornc_history")

EPILOG = """\
commands:
  show workers      state, load and memory of each worker
  show requests     what runs now: method, path, age, peer
  stack PID         Python stacks of a worker's threads
  show stats | listeners | config | all
  worker add [N] | remove [N] | kill PID
  advise [SECONDS]  watches for 5 s and says what number of threads and
                    workers would serve better, or to leave it
  top               rates, times, workers and running requests, every second;
                    q leaves. With --json one document, with --interval one
                    after each
  reload | reopen | shutdown [graceful|quick] | help

Without a command there is a prompt. Without -s the running server is looked
for in $XDG_RUNTIME_DIR/ferricorn and ~/.ferricorn; if there are several, they
are listed, and -s with one's path or pid chooses.

examples:
  ferricornc -c "show workers"
  ferricornc -s 4711 -c "worker add 2"
  ferricornc -j -c "show stats"
  ferricornc top --json --interval 10
"""


class ControlError(Exception):
    """There is no answer, or it is an error."""


class Client:
    """A connection to a server's control socket."""

    def __init__(self, path: str | Path, timeout: float = PATIENCE_S) -> None:
        self.path = str(path)
        self._request_id = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(self.path)
        except OSError as error:
            self._socket.close()
            raise ControlError(f"Cannot connect to {self.path}: {error.strerror or error}") from None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, command: str) -> Answer:
        """The answer's data."""
        self._request_id += 1
        payload = json.dumps({"id": self._request_id, "command": command, "args": []}).encode()
        try:
            self._socket.sendall(struct.pack(">I", len(payload)) + payload)
            (length,) = struct.unpack(">I", self._receive(4))
            if length > ANSWER_BYTES_MAX:
                raise ControlError(f"The answer is too long: {length} bytes")
            answer = json.loads(self._receive(length))
        except (OSError, ValueError) as error:
            raise ControlError(f"Connection lost: {error}") from None
        if answer.get("status") != "ok":
            raise ControlError(answer.get("error", "Unknown error"))
        data = answer.get("data") or {}
        if data.get("success") is False:
            raise ControlError(data.get("error", "Failed"))
        return data

    def _receive(self, count: int) -> bytes:
        pieces = []
        while count:
            piece = self._socket.recv(min(count, 65536))
            if not piece:
                raise ControlError("The server has closed the connection")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


# -- finding the server ----------------------------------------------------------------------------


def directories() -> list[Path]:
    """Where servers put their sockets by default, as in src/config/settings/control.rs."""
    found = []
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime) / "ferricorn")
    home = os.environ.get("HOME")
    found.append(Path(home) / ".ferricorn" if home else Path(f"/tmp/ferricorn-{os.geteuid()}"))
    return found


def living() -> dict[Path, str]:
    """The default sockets with a server behind them, and a description of each server."""
    found = {}
    for directory in directories():
        with contextlib.suppress(OSError):
            for path in sorted(directory.glob("*.ctl")):
                with contextlib.suppress(ControlError), Client(path, timeout=3) as client:
                    pid = client.ask("show stats").get("pid")
                    config = client.ask("show config")
                    name = config.get("proc_name") or config.get("wsgi_app") or ""
                    found[path] = f"pid {pid} {name} {' '.join(config.get('bind') or [])}".strip()
    return found


def find(asked: str | None) -> str:
    """The path of the socket to talk to."""
    asked = asked or os.environ.get("FERRICORN_CONTROL_SOCKET")
    if asked and asked.isdigit() and not Path(asked).exists():
        for directory in directories():
            if (path := directory / f"{asked}.ctl").exists():
                return str(path)
        raise ControlError(f"No server with pid {asked} has its socket in {places()}")
    if asked:
        return asked
    found = living()
    if not found:
        raise ControlError(f"No running server has its socket in {places()} (-s SOCKET names another)")
    if len(found) > 1:
        lines = "".join(f"\n  -s {path}  ({printable(who)})" for path, who in found.items())
        raise ControlError(f"Several servers run; choose one:{lines}")
    return str(next(iter(found)))


def places() -> str:
    return " or ".join(map(str, directories()))


# -- showing ---------------------------------------------------------------------------------------


def table(header: Iterable[str], rows: Iterable[Iterable[object]], left: Iterable[str] = ()) -> str:
    """Aligned columns, numbers to the right; those in `left` to the left."""
    header, left = list(header), set(left)
    lines = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]

    def cell(text: str, at: int) -> str:
        return text.ljust(widths[at]) if header[at] in left else text.rjust(widths[at])

    return "\n".join("  ".join(cell(text, at) for at, text in enumerate(line)).rstrip() for line in lines)


def workers(rows: list[Answer]) -> str:
    if not rows:
        return "No workers running"
    header = ["PID", "AGE", "STATE", "UP", "BUSY", "QUEUE", "CONNS", "REQS", "ERRS", "RSS", "LOOP", "PYTHON"]
    return table(
        header,
        (
            [
                row.get("pid"),
                row.get("age"),
                row.get("state", "serving" if row.get("booted") else "booting"),
                duration(row.get("uptime")),
                f"{row.get('threads_busy', '-')}/{row.get('threads', '-')}",
                row.get("queue"),
                row.get("connections"),
                row.get("requests"),
                row.get("errors"),
                size(row.get("rss")),
                duration(row.get("last_heartbeat")),
                duration(row.get("python_heartbeat")),
            ]
            for row in rows
        ),
        left=["STATE"],
    )


def requests(data: Answer) -> str:
    rows = data.get("requests", [])
    queued = data.get("queued", 0)
    last = f"{len(rows)} running, {queued} waiting for a thread"
    if not rows:
        return last
    header = ["WORKER", "THREAD", "AGE", "PEER", "STATE", "METHOD", "PATH"]
    shown = table(
        header,
        ([row["worker"], row["thread"], duration(row["age"]), row["peer"], row["state"], row["method"], row["path"]]
         for row in rows),
        left=["PEER", "STATE", "METHOD", "PATH"],
    )  # fmt: skip
    return f"{shown}\n\n{last}"


def histograms(rows: list[Answer]) -> str:
    """Of all workers, the buckets in which there is something."""
    names = [name for name in (rows[0] if rows else {}) if name != "pid"]
    sums = {name: [sum(counts) for counts in zip(*(row[name] for row in rows), strict=True)] for name in names}
    used = [at for at in range(max(map(len, sums.values()), default=0)) if any(sums[name][at] for name in names)]
    if not used:
        return "No request has finished"
    bounds = [_top.seconds_short((1 << at) / 1e6) for at in used]
    return table(
        ["BELOW", *(name.upper() for name in names)],
        ([bound, *(sums[name][at] for name in names)] for at, bound in zip(used, bounds, strict=True)),
    )


def stack(data: Answer) -> str:
    requests = data.get("requests", [])
    running = {f"ferricorn-thread_{row['thread']}": row for row in requests}
    lines = [f"Worker {data.get('worker')}"]
    if note := data.get("note"):
        lines += ["", *textwrap.wrap(note, 79)]
        lines += [f"Running for {duration(row['age'])}: {printable(row['method'])} {printable(row['path'])}"
                  for row in running.values()]  # fmt: skip
    running.update((f"greenlet {row['thread']}", row) for row in requests)
    threads = data.get("threads")
    if not isinstance(threads, list):
        # What went wrong in the worker instead.
        return f"{lines[0]}\n{threads}"
    for thread in threads:
        heading = printable(thread["name"])
        if thread["native_id"] is not None:
            heading += f" (thread {thread['native_id']})"
        if request := running.get(thread["name"]):
            peer = f" from {request['peer']}" if request["peer"] else ""
            line = f"{request['method']} {request['path']}{peer}"
            heading += f", for {duration(request['age'])}: {printable(line)}"
        lines += ["", heading]
        for frame in thread["frames"]:
            lines.append(
                f'  File "{printable(frame["file"])}", line {frame["line"]}, in {printable(frame["function"])}'
            )
            if frame["code"]:
                lines.append(f"    {printable(frame['code'])}")
    if dump := data.get("dump"):
        lines += ["", *map(printable, dump)]
    return "\n".join(lines)


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    rows = [(name, printable(value)) for name, value in rows]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


# In this order. Further fields, of another server, come last.
STATS = (
    *("pid", "version", "uptime", "stopping", "workers_current", "workers_target", "workers_spawned"),
    *("workers_killed", "reloads", "threads_busy", "queue", "connections", "requests", "errors", "bytes_out"),
)


def stats(data: Answer) -> str:
    data = {name: data[name] for name in (*STATS, *data) if name in data}
    shown = {**data, "uptime": duration(data.get("uptime")), "bytes_out": size(data.get("bytes_out"))}
    shown = {name: value for name, value in shown.items() if value is not None}
    return pairs((name.replace("_", " "), value) for name, value in shown.items())


def listeners(data: Answer) -> str:
    rows = ([row["address"], row["type"], row["fd"]] for row in data.get("listeners", []))
    return table(["ADDRESS", "TYPE", "FD"], rows, left=["ADDRESS", "TYPE"])


def everything(data: Answer) -> str:
    return f"Master {data['arbiter']['pid']}\n\n{workers(data.get('web_workers', []))}"


def config(data: Answer) -> str:
    def shown(value: object) -> str:
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return pairs((name, shown(value)) for name, value in sorted(data.items()))


SHOWN: dict[tuple[str, ...], Callable[[Answer], str]] = {
    ("show", "workers"): lambda data: workers(data.get("workers", [])),
    ("show", "requests"): requests,
    ("show", "histograms"): lambda data: histograms(data.get("workers", [])),
    ("show", "all"): everything,
    ("show", "stats"): stats,
    ("show", "listeners"): listeners,
    ("show", "config"): config,
    ("show", "dirty"): lambda data: "There are no dirty workers",
    ("stack",): stack,
    ("help",): lambda data: pairs(data.get("commands", {}).items()),
    ("worker", "add"): lambda data: f"{data['previous']} -> {data['total']} workers",
    ("worker", "remove"): lambda data: f"{data['previous']} -> {data['total']} workers",
    ("worker", "kill"): lambda data: f"Worker {data['killed']} stops and is replaced",
}


def show(command: str, data: Answer, as_json: bool) -> str:
    """The answer as a person wants it, or as JSON."""
    words = tuple(command.lower().split())
    shown = SHOWN.get(words[:2]) or SHOWN.get(words[:1])
    if as_json or (shown is None and not data.get("status")):
        return json.dumps(data, indent=2)
    return shown(data) if shown else printable(data["status"]).replace("_", " ")


def advise(client: Client, command: str, as_json: bool) -> str:
    """Not a command of the server: two looks at it, and a rule."""
    words = command.split()[1:]
    try:
        seconds = float(words[0]) if words else _advise.SECONDS
    except ValueError:
        seconds = -1
    if len(words) > 1 or not 0.1 <= seconds <= 3600:
        raise ControlError("advise takes a number of seconds, from 0.1 to 3600")
    load = _advise.watch(client.ask, seconds)
    if load is None:
        raise ControlError("No worker served for the whole time, or the server is another program")
    if as_json:
        return json.dumps({**dataclasses.asdict(load), "advice": _advise.advice(load)}, indent=2)
    return textwrap.fill(_advise.advice(load), 79)


def answer(client: Client, command: str, as_json: bool) -> str:
    if command.lower().split()[:1] == ["advise"]:
        return advise(client, command, as_json)
    return show(command, client.ask(command), as_json)


def top(path: str, asked: str | None, interval: float | None, as_json: bool) -> int:
    """Not a command of the server either. A server that has started anew is looked for again."""
    with Client(path):
        pass
    return _top.run(_top.Source(lambda: Client(find(asked), TOP_PATIENCE_S), ControlError), interval, as_json)


# -- running ---------------------------------------------------------------------------------------


def run_once(path: str, command: str, as_json: bool) -> int:
    with Client(path) as client:
        print(answer(client, command, as_json))
    return 0


def run_prompt(path: str, asked: str | None, as_json: bool) -> int:
    client = Client(path)
    print(f"Connected to {path}\nType 'help' for the commands, 'quit' to leave.")
    try:
        with history():
            while True:
                try:
                    line = input("ferricorn> ").strip()
                except EOFError:
                    print()
                    return 0
                if line.lower() in ("quit", "exit", "q"):
                    return 0
                if not line:
                    continue
                try:
                    if line.lower() == "top":
                        top(path, asked, None, as_json)
                        continue
                    print(answer(client, line, as_json))
                except ControlError as error:
                    print(f"Error: {printable(error)}")
                    # After a mistake the connection may have been closed, after an idle time it is.
                    client.__exit__()
                    client = Client(path)
    finally:
        client.__exit__()


@contextlib.contextmanager
def history() -> Iterator[None]:
    """Lines of earlier times, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = HISTORY.expanduser()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            readline.write_history_file(path)


def parser() -> argparse.ArgumentParser:
    width = min(shutil.get_terminal_size().columns, 80) - 1

    def formatter(prog: str) -> argparse.HelpFormatter:
        return argparse.RawDescriptionHelpFormatter(prog, width=width)

    one = argparse.ArgumentParser(
        prog="ferricornc",
        description="Inspect and steer a running ferricorn.",
        epilog=EPILOG,
        formatter_class=formatter,
    )
    one.add_argument("-s", "--socket", metavar="SOCKET", help="path of the control socket, or the master's pid")
    one.add_argument("-c", "--command", metavar="COMMAND", help="run one command and exit")
    one.add_argument("word", nargs="?", choices=["advise", "top"], help="the same as -c advise, -c top")
    one.add_argument("--interval", type=interval, metavar="SECONDS", help="with top: how often it looks, 1 by default")
    one.add_argument("-j", "--json", action="store_true", help="print answers as JSON")
    one.add_argument("-v", "--version", action="version", version=f"ferricornc (ferricorn {__version__})")
    return one


def interval(text: str) -> float:
    least, most = _top.INTERVALS_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not least <= seconds <= most:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from {least:g} to {most:g}")
    return seconds


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0, 1 when it cannot be done, 130 when interrupted, 2 for a wrong command line."""
    command_line = parser()
    options = command_line.parse_args(argv)
    command = options.command or options.word
    is_top = command is not None and command.split() == ["top"]
    if options.interval is not None and not is_top:
        command_line.error("--interval is an option of top")
    try:
        path = find(options.socket)
        if is_top:
            return top(path, options.socket, options.interval, options.json)
        if command is not None:
            return run_once(path, command, options.json)
        return run_prompt(path, options.socket, options.json)
    except ControlError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has left. Python's flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
