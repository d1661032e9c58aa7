"""The servers that are compared: how each is started with one worker and two threads, and watched through /proc."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from certificates import certificate

APPS = Path(__file__).resolve().parent / "apps"
THREADS = 2
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Peer:
    name: str
    command: tuple[str, ...]
    """{port}, {workers}, {threads} and {app} are filled in."""
    many_connections: tuple[str, ...] = ()
    """Flags that let it hold ten thousand idle connections for minutes."""
    tls: tuple[str, ...] = ()
    """Flags for TLS; {certificate} and {key} are filled in. None: it has no TLS, or needs a proxy for it."""
    h2: tuple[str, ...] | None = None
    """Flags for HTTP/2 over TLS. None: it has none."""
    one_thread: bool = False
    """Has neither threads nor workers: left out where those are what is measured."""
    revision: str | None = None
    """An older build of ferricorn, in an environment of its own."""

    @property
    def version(self) -> str:
        return self.revision or importlib.metadata.version(self.name)

    @property
    def is_installed(self) -> bool:
        if self.revision:
            return Path(self.command[0]).exists()
        return importlib.util.find_spec(self.name) is not None or shutil.which(self.name, path=BIN) is not None


BIN = str(Path(sys.executable).parent)
GUNICORN_LIKE = ("-w", "{workers}", "--threads", "{threads}", "-b", "127.0.0.1:{port}", "{app}")
TLS = ("--certfile", "{certificate}", "--keyfile", "{key}")
H2 = ("--http-protocols", "h2,h1")
MANY = ("--worker-connections", "20000", "--keep-alive", "300")
PEERS = [
    Peer("ferricorn", (sys.executable, "-m", "ferricorn", *GUNICORN_LIKE), MANY, TLS, H2),
    Peer(
        "gunicorn",
        (sys.executable, "-m", "gunicorn", "-k", "gthread", "--no-control-socket", *GUNICORN_LIKE),
        MANY,
        TLS,
        H2,
    ),
    Peer(
        "granian",
        (
            *(sys.executable, "-m", "granian", "--interface", "wsgi", "--workers", "{workers}"),
            *("--blocking-threads", "{threads}", "--host", "127.0.0.1", "--port", "{port}", "{app}"),
        ),
        ("--backlog", "2048"),
        ("--ssl-certificate", "{certificate}", "--ssl-keyfile", "{key}"),
        (),
    ),
    Peer(
        "waitress",
        (sys.executable, "-m", "waitress", "--threads={threads}", "--listen=127.0.0.1:{port}", "{app}"),
        ("--connection-limit=20000", "--channel-timeout=300"),
    ),
    Peer(
        "uwsgi",
        (
            *(f"{BIN}/uwsgi", "--master", "--http11-socket", "127.0.0.1:{port}", "--so-keepalive", "--add-header"),
            *("Connection: Keep-Alive", "--processes", "{workers}", "--threads", "{threads}", "--wsgi", "{app}"),
            *("--disable-logging", "--listen", "1024", "--die-on-term", "--home", sys.prefix),
        ),
    ),
    Peer("bjoern", (sys.executable, "one_thread.py", "bjoern", "{port}", "{app}"), one_thread=True),
    Peer("fastwsgi", (sys.executable, "one_thread.py", "fastwsgi", "{port}", "{app}"), one_thread=True),
]


def base_build(checkout: Path) -> Peer:
    """The build in the `.venv` of another checkout of this project, to be compared with the one under development."""
    python = str(checkout.resolve() / ".venv" / "bin" / "python")
    command = (python, "-m", "ferricorn", *GUNICORN_LIKE)
    return Peer("ferricorn-base", command, MANY, TLS, H2, revision=checkout.resolve().name)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Shape:
    """How a server is started for one scenario."""

    app: str
    workers: int = 1
    threads: int = THREADS
    flags: tuple[str, ...] = ()
    cpu: int | None = None
    key: str | None = None
    """Speak TLS, with a key of this kind."""


class Running:
    """One server under measurement; a context manager that leaves no process behind."""

    def __init__(self, peer: Peer, shape: Shape) -> None:
        self.peer = peer
        self.port = free_port()
        self.key = shape.key
        flags = shape.flags
        if shape.key:
            files = dict(zip(("certificate", "key"), certificate(shape.key), strict=True))
            flags = (*flags, *(word.format(**files) for word in peer.tls))
        words = {"port": self.port, "workers": shape.workers, "threads": shape.threads, "app": shape.app}
        command = [word.format(**words) for word in peer.command]
        at = len(command) - 1 if command[-1] == shape.app else len(command)
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [*command[:at], *flags, *command[at:]],
            cwd=APPS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=None if shape.cpu is None else lambda: os.sched_setaffinity(0, {shape.cpu}),
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Running:
        """Ready when a request is answered."""
        deadline = time.monotonic() + 30
        while True:
            try:
                with self.connect() as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    if client.recv(12).endswith(b" 200"):
                        self.seconds_to_answer = time.monotonic() - self.started
                        return self
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"{self.peer.name} does not answer")
            time.sleep(0.002)

    def connect(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), 5)
        if not self.key:
            return plain
        return ssl.create_default_context(cafile=certificate(self.key)[0]).wrap_socket(
            plain, server_hostname="localhost"
        )

    @staticmethod
    def let_idle(seconds: float) -> None:
        """Wait until a connection has become idle, which cannot be observed from here."""
        time.sleep(seconds)

    def stop(self) -> float:
        """Seconds from SIGTERM at the first process to its end."""
        began = time.monotonic()
        self._process.terminate()
        self._process.wait(30)
        return time.monotonic() - began

    def __exit__(self, *_: object) -> None:
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            for pid in self.processes():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + patience
            while self.processes() and time.monotonic() < deadline:
                self._process.poll()
                time.sleep(0.02)
        self._process.wait(5)

    def processes(self) -> list[int]:
        """Living processes of the server's session: arbiter, workers, whatever it started."""
        members = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, _, _, session = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
                except OSError:
                    continue
                if int(session) == self._process.pid and state not in "ZX":
                    members.append(int(entry.name))
        return members

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree."""
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND

    def memory_kib(self) -> int:
        """Proportional set size of the whole tree: pages shared by its processes count once."""
        total = 0
        for pid in self.processes():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total
