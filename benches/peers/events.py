"""What happens to requests while something happens to the server: a row per event and server.

    python benches/peers/events.py                    # 20,000 requests per row; two to four minutes
    python benches/peers/events.py --requests 2000 --servers ferricorn --events HUP,TERM --json events.json

Eight keep-alive and eight one-shot clients ask without a pause; the application takes 0.3 s to import. The event is
repeated until the requests are through. Every answer must repeat the word of its request. No client tries again, so
whatever a browser or proxy would have hidden is counted:

- failed: another status than 200, no answer in time;
- reset: the connection ended before the whole answer was there;
- refused: nobody listened (TERM: not counted, that is how its clients end);
- wrong: somebody else's answer.

A crash loses the requests that were running in the worker, at most its two threads' at a time, and closes the idle
connections that it held: what a keep-alive client has sent on one of them at that moment is reset as well.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "python"))

from harness import GUNICORN, RUNTIME, Server, wait_until  # noqa: E402
from load import Counters, Load  # noqa: E402

WORKERS = 2
IMPORT_S = 0.3
COMMANDS = {"ferricorn": [sys.executable, "-m", "ferricorn"], "gunicorn": GUNICORN}


class Subject:
    """A server under load: which process is its master, and what its workers are."""

    def __init__(self, server: Server, load: Load) -> None:
        self.server, self.load = server, load
        self.master = server.pid

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()
        return {int(pid) for pid in children}

    def tell(self, number: int) -> None:
        os.kill(self.master, number)

    def breathe(self) -> None:
        """Some ordinary requests before the next one."""
        self.load.wait_answered(self.load.counters.answered + 200)

    def wait_booted(self, count: int = WORKERS) -> None:
        """Wait until that many workers exist and have answered."""
        wait_until(lambda: len(self.workers()) == count, f"{count} workers")
        wait_until(lambda: all(str(pid) in self.load.counters.workers for pid in self.workers()), "all of them answer")


# -- the events: each does it once and returns when it is over --------------------------------------


def hup(subject: Subject) -> None:
    before = subject.workers()
    subject.tell(signal.SIGHUP)
    wait_until(lambda: not before & subject.workers(), "the old workers have gone")
    subject.wait_booted()


def max_requests(subject: Subject) -> None:
    subject.breathe()


def ttin_ttou(subject: Subject) -> None:
    subject.tell(signal.SIGTTIN)
    subject.wait_booted(WORKERS + 1)
    subject.tell(signal.SIGTTOU)
    subject.wait_booted()


def control(subject: Subject) -> None:
    """The same through the control socket."""
    before = subject.workers()
    ferricornc(subject, "worker add")
    subject.wait_booted(WORKERS + 1)
    ferricornc(subject, "worker remove")
    subject.wait_booted()
    ferricornc(subject, f"worker kill {min(before & subject.workers())}")
    wait_until(lambda: before - subject.workers(), "one has gone")
    subject.wait_booted()


def ferricornc(subject: Subject, command: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "ferricorn.ctl", "-s", str(subject.master), "-c", command],
        check=True,
        capture_output=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(RUNTIME)},
        timeout=20,
    )


def usr2(subject: Subject) -> None:
    log = subject.server.log
    starts, boots = (len(log.wait(pattern, 0)) for pattern in ("Listening at:", "Booting worker"))
    old, answered = subject.master, set(subject.load.counters.workers)
    subject.tell(signal.SIGUSR2)
    line = log.wait(r"Listening at: .+ \((\d+)\)$", starts + 1)[-1]
    log.wait("Booting worker", boots + WORKERS)
    subject.master = int(line.group(1))
    wait_until(lambda: set(subject.load.counters.workers) - answered, "a new worker answers")
    os.kill(old, signal.SIGTERM)
    promoted = len(log.wait("Master has been promoted", 0))
    if old == subject.server.pid:
        subject.server.wait_exit()
    log.wait("Master has been promoted", promoted + 1)
    subject.wait_booted()


def worker_dies(subject: Subject) -> None:
    victim = min(subject.workers())
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in subject.workers(), "it is gone")
    subject.wait_booted()


def worker_exits(subject: Subject) -> None:
    """`os._exit` in the application, by a request that is not counted."""
    before = subject.workers()
    try:
        subject.server.get("/exit?7")
    except Exception as error:
        assert type(error).__name__ in ("Disconnected", "ConnectionResetError"), error
    wait_until(lambda: before - subject.workers(), "it is gone")
    subject.wait_booted()


def nothing(subject: Subject) -> None:
    subject.breathe()


@dataclass(frozen=True)
class Event:
    name: str
    once: Callable[[Subject], None]
    flags: tuple[str, ...] = ()
    """The clients end when nobody listens any more."""
    is_stop: bool = False
    """Requests may be lost: those that were running in the worker that died."""
    is_crash: bool = False
    is_ours: bool = False


EVENTS = [
    Event("HUP", hup),
    Event("max_requests", max_requests, ("--max-requests", "1000", "--max-requests-jitter", "100")),
    Event("TTIN, TTOU", ttin_ttou),
    Event("worker add, remove, kill", control, is_ours=True),
    Event("USR2, TERM to the old master", usr2),
    Event("TERM", nothing, is_stop=True),
    Event("worker: kill -9", worker_dies, is_crash=True),
    Event("worker: os._exit", worker_exits, is_crash=True),
    Event("worker: kill -9, reuse_port", worker_dies, ("--reuse-port",), is_crash=True),
]


def run(event: Event, command: list[str], requests: int, environment: dict[str, str]) -> tuple[Counters, int, float]:
    """One row: the counters, how often it happened, and the requests per second."""
    # gunicorn with reuse_port says that it listens at nothing: its workers bind.
    port = free_port()
    flags = ["-w", str(WORKERS), "--threads", "2", "--graceful-timeout", "10", *event.flags]
    server = Server(
        ["echo", *flags],
        bind=[f"127.0.0.1:{port}"],
        command=command,
        env={"IMPORT_S": str(IMPORT_S), **environment},
    )
    try:
        server.address = ("127.0.0.1", port)
        server.log.wait("Booting worker", WORKERS)
        wait_until(lambda: answers(server), "the first answer")
        count = 0
        started = time.monotonic()
        with Load(server.address, keep_alive=8, one_shot=8, until_refused=event.is_stop) as load:
            subject = Subject(server, load)
            subject.wait_booted()
            while load.counters.answered < requests or count == 0:
                event.once(subject)
                subject.breathe()
                count += 1
            if event.is_stop:
                subject.tell(signal.SIGTERM)
                load.join()
                count = 1
        took = time.monotonic() - started
        if subject.master != server.pid:
            os.kill(subject.master, signal.SIGTERM)
            server.wait_gone(30)
        return load.counters, count, load.counters.answered / took
    finally:
        server.reap()


def answers(server: Server) -> bool:
    try:
        return server.get("/echo?x").status == 200
    except OSError:
        return False


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


FAULTS = ("failed", "reset", "refused", "wrong")
COLUMNS = ("event", "server", "times", "sent", *FAULTS, "slowest ms", "requests/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--servers", default="ferricorn,gunicorn")
    parser.add_argument("--events", default="", help="names or beginnings of names, with commas between")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--details", action="store_true", help="the first faults of each row")
    options = parser.parse_args()
    wanted = [word.strip() for word in options.events.split(",") if word.strip()]
    rows = []
    print("|", " | ".join(COLUMNS), "|")
    print("| --- | --- |", " | ".join(["---:"] * (len(COLUMNS) - 2)), "|")
    for event in EVENTS:
        if wanted and not any(event.name.startswith(word) for word in wanted):
            continue
        for name in options.servers.split(","):
            if event.is_ours and name != "ferricorn":
                continue
            directory = Path(os.environ.get("TMPDIR", "/tmp")) / f"events-{os.getpid()}"
            directory.mkdir(exist_ok=True)
            counters, count, rate = run(event, COMMANDS[name], options.requests, {"GATES": str(directory)})
            faults = [getattr(counters, fault) for fault in FAULTS]
            row = [event.name, name, count, counters.sent, *faults, round(counters.slowest * 1000), round(rate)]
            print("|", " | ".join(map(str, row)), "|", flush=True)
            if options.details and counters.details:
                print("\n".join(counters.details[:8]), flush=True)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
