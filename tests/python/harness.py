"""A server as a real process: started, watched through its log, stopped, and nothing left behind.

Waiting is always a deadline on an observable fact (a log line, a file, a process), never a sleep.
`FERRICORN_TEST_COMMAND` replaces the command under test, e.g. `python -m gunicorn -k gthread --no-control-socket`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from wire import Client, Response

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
REPOSITORY = HERE.parent.parent

COMMAND = shlex.split(os.environ.get("FERRICORN_TEST_COMMAND", "")) or [sys.executable, "-m", "ferricorn"]
IS_OURS = not any("gunicorn" in word for word in COMMAND)
NAME = "ferricorn" if IS_OURS else "gunicorn"
# False where threads run Python side by side (`make test-free-threaded`).
HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
GUNICORN = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--no-control-socket"]

# Where servers put their control sockets, which would else meet those of the developer. A unix socket's path must be
# short, so it is not a directory of pytest's.
RUNTIME = Path(tempfile.mkdtemp(prefix="ferricorn-"))
atexit.register(shutil.rmtree, RUNTIME, ignore_errors=True)

# Generous, because it only bounds failures: a passing test never waits this long.
PATIENCE_S = 20.0

# What the caller's shell may hold and a server would obey.
OBEYED_VARIABLES = (
    "GUNICORN_",
    "FERRICORN_",
    "WEB_CONCURRENCY",
    "PORT",
    "FORWARDED_ALLOW_IPS",
    "SENDFILE",
    "SCRIPT_NAME",
)


def wait_until(fact: Callable[[], object], what: str, patience: float = PATIENCE_S) -> object:
    """Poll `fact` until it is true; its value is returned, a deadline fails the test by name."""
    deadline = time.monotonic() + patience
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience:g} s: {what}")
        time.sleep(0.01)


def stop_process(pid: int) -> None:
    """Send SIGSTOP, and wait until no thread of it runs: on a busy machine that is a while after `kill` returned."""
    os.kill(pid, signal.SIGSTOP)

    def stands() -> bool:
        """Or it is gone, as one that was just told to leave."""
        try:
            states = [path.read_text().rpartition(") ")[2][0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        except (FileNotFoundError, ProcessLookupError):
            # A thread that ended meanwhile; of a process that is gone there is no list.
            return False
        return all(state in "TtZX" for state in states)

    wait_until(stands, f"process {pid} stands still")


def clean_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(OBEYED_VARIABLES)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["XDG_RUNTIME_DIR"] = str(RUNTIME)
    environment.update(extra or {})
    return environment


class Transcript:
    """The lines of one output stream, collected by a thread and awaited by the test."""

    def __init__(self, stream) -> None:
        self._text = ""
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._collect, args=(stream,), daemon=True)
        self._thread.start()

    def _collect(self, stream) -> None:
        # os.read gives what is there; a buffered reader would sit on a half-full block.
        with stream:
            while block := os.read(stream.fileno(), 65536):
                with self._changed:
                    self._text += block.decode("utf-8", "replace")
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def text(self) -> str:
        with self._changed:
            return self._text

    def wait(self, pattern: str, count: int = 1, patience: float = PATIENCE_S) -> list[re.Match[str]]:
        """Wait until `pattern` has been seen `count` times; returns the matches."""
        expression = re.compile(pattern, re.MULTILINE)

        def seen() -> list[re.Match[str]]:
            return list(expression.finditer(self._text))

        with self._changed:
            self._changed.wait_for(lambda: len(seen()) >= count or self._ended, patience)
            found = seen()
            if len(found) < count:
                raise AssertionError(f"{pattern!r} seen {len(found)} of {count} times in:\n{self._text}")
            return found

    def join(self, patience: float = PATIENCE_S) -> str:
        """Everything, once every process that could write has gone."""
        self._thread.join(patience)
        return self.text


def session_members(session: int) -> list[int]:
    """Living (not zombie) processes of a session: the whole tree of one server."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state, _, _, of_session = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
            if int(of_session) == session and state not in "ZX":
                members.append(int(entry.name))
    return members


def is_living(pid: int) -> bool:
    """No zombie, and not gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def descriptors(pid: int) -> dict[str, str]:
    """What each descriptor of a process refers to, by number; not those that it closes meanwhile."""
    targets = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            targets[entry.name] = str(entry.readlink())
    return targets


def fork_servers(one: Server) -> list[int]:
    """Living fork servers of `--preload`, by their titles: the arbiter's children or those of a worker."""
    found = []
    for pid in session_members(one.pid):
        with contextlib.suppress(OSError):
            if b"fork server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def kill_session(session: int) -> None:
    """End every process of a session by force, also those that are forked meanwhile."""

    def is_over() -> bool:
        members = session_members(session)
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not members

    wait_until(is_over, f"processes of {session} are gone")


class Server:
    """One arbiter with its workers."""

    def __init__(
        self,
        arguments: Iterable[str],
        *,
        bind: Iterable[str] = ("127.0.0.1:0",),
        command: Iterable[str] | None = None,
        cwd: Path = APPS,
        env: dict[str, str] | None = None,
        pass_fds: Iterable[int] = (),
    ) -> None:
        line = [*(command or COMMAND), *(word for address in bind for word in ("-b", address)), *arguments]
        self.process = subprocess.Popen(
            line,
            cwd=cwd,
            env=clean_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
        self.pid = self.process.pid
        self.log = Transcript(self.process.stderr)
        self.output = Transcript(self.process.stdout)
        self.address: tuple[str, int] | str = ""

    # -- life ------------------------------------------------------------------------------------

    def wait_ready(self, workers: int = 1) -> Server:
        """Ready: every worker was announced and the first address accepts a connection."""
        listening = self.log.wait(r"Listening at: (.+) \(\d+\)$")[0].group(1)
        self.log.wait(r"Booting worker with pid: (\d+)", workers)
        self.address = parse_address(re.split(", ?", listening)[0])
        self.connect().close()
        return self

    @property
    def port(self) -> int:
        return self.address[1]

    def addresses(self) -> list[tuple[str, int] | str]:
        text = self.log.wait(r"Listening at: (.+) \(\d+\)$")[0].group(1)
        return [parse_address(one) for one in re.split(", ?", text)]

    def booted(self) -> list[int]:
        """Worker pids in the order they were announced."""
        return [int(m.group(1)) for m in self.log.wait(r"Booting worker with pid: (\d+)", 0)]

    def workers(self) -> list[int]:
        """Living worker pids at one moment: the direct children of the arbiter."""
        before, living = None, []
        # While they are looked at, one may leave whose successor is not in the list yet.
        while (children := self._children()) != before:
            before, living = children, [pid for pid in children if is_living(pid)]
        return living

    def _children(self) -> list[int]:
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            return []

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_exit(self, patience: float = PATIENCE_S) -> int:
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"arbiter still runs after {patience:g} s:\n{self.log.text}") from None

    def stop(self, number: int = signal.SIGTERM, patience: float = PATIENCE_S) -> int:
        """Stop, wait, and insist that no process of the tree is left; returns the exit code."""
        self.send_signal(number)
        code = self.wait_exit(patience)
        self.wait_gone()
        return code

    def begin_stop(self) -> None:
        """TERM, and wait until the workers stop: that they were told is not yet that they know."""
        self.send_signal(signal.SIGTERM)
        wait_until(self._refuses, "the workers stop")

    def _refuses(self) -> bool:
        try:
            self.connect().close()
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except ConnectionResetError:
            # The listener was closed while this connection was in its backlog: the next one is refused.
            return False
        return False

    def wait_gone(self, patience: float = PATIENCE_S) -> None:
        wait_until(lambda: not session_members(self.pid), f"processes of {self.pid} left", patience)

    def reap(self) -> list[int]:
        """Last resort of the fixture: end what is still there by pid; returns who was left over."""
        with contextlib.suppress(AssertionError):
            if self.process.poll() is None:
                self.send_signal(signal.SIGTERM)
                self.wait_exit()
            self.wait_gone(5)
        left = session_members(self.pid)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        return left

    # -- talk ------------------------------------------------------------------------------------

    def connect(self, timeout: float = PATIENCE_S) -> Client:
        return Client(self.address, timeout)

    def get(self, target: str = "/", headers: Iterable[tuple[str, str]] = (), **options) -> Response:
        """One request on a connection of its own."""
        with self.connect() as client:
            return client.request("GET", target, [*headers, ("Connection", "close")], **options)


class Finished:
    """A command line that was expected to end by itself."""

    def __init__(self, arguments: Iterable[str], *, patience: float = PATIENCE_S, **options) -> None:
        server = Server(arguments, **options)
        try:
            self.code = server.wait_exit(patience)
            server.wait_gone()
        finally:
            self.left = server.reap()
        self.error = server.log.join()
        self.output = server.output.join()


def parse_address(text: str) -> tuple[str, int] | str:
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, _, port = text.split("://", 1)[1].rpartition(":")
    host = host.strip("[]")
    return ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port))


class Gates:
    """Named gates between a test and an application, as files in one directory.

    The application (see apps/gate.py) says how far it came and waits until the test lets it on.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def env(self) -> dict[str, str]:
        return {"GATES": str(self.directory)}

    def open(self, name: str) -> None:
        (self.directory / f"{name}.open").touch()

    def reached(self, name: str) -> bool:
        return (self.directory / f"{name}.reached").exists()

    def wait_reached(self, name: str, patience: float = PATIENCE_S) -> None:
        wait_until(lambda: self.reached(name), f"application reaches gate {name!r}", patience)

    def notes(self, name: str) -> list[str]:
        """Lines the application noted under `name`."""
        path = self.directory / f"{name}.notes"
        return path.read_text().splitlines() if path.exists() else []

    def wait_notes(self, name: str, count: int = 1, patience: float = PATIENCE_S) -> list[str]:
        wait_until(lambda: len(self.notes(name)) >= count, f"{count} notes {name!r}", patience)
        return self.notes(name)
