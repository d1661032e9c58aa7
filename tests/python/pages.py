"""The pages of the documentation as programs: which blocks a page has, and how its commands are run.

A fenced block is what its language says:

- `sh`: commands. They run in order, in a directory of the page's own, and must succeed. A line that starts a server
  leaves it running until the next such line or the end of the page.
- any language with `title="FILE"`: that file.
- `text` directly after `sh`: what the commands printed or the server logged. Digits stand for any digits, `...` for
  any text.

Comments directly above a block say more about it:

- `<!-- not run: REASON -->`: it cannot be run here.
- `<!-- only checked: REASON -->`: servers are given `--check-config` and nothing else of it is run.
- `<!-- exit 1 -->`: the last command ends with this code.
- `<!-- needs: PROGRAM -->`: skipped where the program is not installed.
- `<!-- with: DIRECTORY -->`: the files of this directory of the repository are there.

`PID` in a command is a worker's process id. Ports are replaced by free ones, and `0.0.0.0` by the loopback address.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from harness import PATIENCE_S, REPOSITORY, Transcript, clean_environment, kill_session, wait_until

FENCE = re.compile(
    r"(?P<marks>(?:^[ ]*<!--.*?-->\n)*)^(?P<indent>[ ]*)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"<!-- ([a-z]+(?: [a-z]+)?)(?:: | )(.*?) -->")
MARKS = {"not run", "only checked", "exit", "needs", "with"}
# Below the ports that the kernel gives to other tests.
PORTS = range(20_000, 32_000)
# Some programs come in wheels: their commands are beside this Python.
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
DOCUMENTED_PORT = re.compile(r"(?<![\d.,])(5000|8000|8001|8080|9000|9001)(?![\d,])")


@dataclass
class Block:
    language: str
    title: str | None
    text: str
    line: int
    marks: dict[str, str] = field(default_factory=dict)
    # What `text` directly after it says, for `sh`.
    output: str | None = None

    @property
    def is_run(self) -> bool:
        return self.language == "sh" and "not run" not in self.marks and self.title is None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        language, _, rest = match.group("info").strip().partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        indent = match.group("indent")
        body = "".join(line.removeprefix(indent) for line in match.group("body").splitlines(keepends=True))
        marks = {name: value for name, value in MARK.findall(match.group("marks"))}
        line = text.count("\n", 0, match.start()) + 1
        block = Block(language, title and title.group(1), body, line, marks)
        is_output = language == "text" and found and found[-1].language == "sh" and not block.title
        if is_output and not text[end : match.start()].strip():
            found[-1].output = body
        else:
            found.append(block)
        end = match.end()
    return found


def free_port() -> int:
    for _ in range(1000):
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def is_server(command: str, directory: Path) -> bool:
    """Whether a command line serves until it is stopped."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[:3] == ["python", "-m", "ferricorn"]:
        words = words[2:]
    if words[:1] == ["python"] and len(words) == 2 and words[1].endswith(".py"):
        return "ferricorn.app" in (directory / words[1]).read_text()
    ends = {"--check-config", "--print-config", "--version", "-v", "--help", "-h", "&"}
    return bool(words) and words[0] in ("ferricorn", "gunicorn", "nginx") and not ends & set(words)


def commands(text: str) -> list[str]:
    """The lines of a block, with continued ones and here-documents joined."""
    joined: list[str] = []
    until = None
    for line in text.splitlines():
        if until is not None or joined and joined[-1].endswith("\\"):
            joined[-1] += "\n" + line
            if line == until:
                until = None
        elif line.strip() and not line.startswith("#"):
            joined.append(line)
            here = re.search(r"<<'?(\w+)'?", line)
            until = here and here.group(1)
    return joined


def pattern(line: str) -> re.Pattern[str]:
    """What a line of output in a page allows."""
    parts = []
    for part in re.split(r"(\.\.\.|\d+|\s+)", line.strip()):
        if part == "...":
            parts.append(".*")
        elif part.isdigit():
            parts.append(r"\d+")
        elif part.isspace():
            parts.append(r"\s+")
        else:
            parts.append(re.escape(part))
    return re.compile("".join(parts))


class Run:
    """One page while its commands run."""

    def __init__(self, page: Path, default_app: str) -> None:
        self.page = page
        # Short, for unix sockets.
        self.directory = Path(tempfile.mkdtemp(prefix="page-"))
        # nginx, started by root, gives its workers another user.
        self.directory.chmod(0o755)
        (self.directory / "app.py").write_text(default_app)
        self.ports: dict[str, str] = {}
        self.server: subprocess.Popen[bytes] | None = None
        self.sessions: list[int] = []
        self.logs: list[Transcript] = []
        self.address: tuple[str, int] | str | None = None
        self.is_skipping = False

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_) -> None:
        for session in self.sessions:
            kill_session(session)
        shutil.rmtree(self.directory, ignore_errors=True)

    def here(self, text: str) -> str:
        """Text of the page with ports and directories of this run."""

        def port(found: re.Match[str]) -> str:
            return self.ports.setdefault(found.group(1), str(free_port()))

        text = re.sub(r"\b0\.0\.0\.0\b(?!\.)", "127.0.0.1", DOCUMENTED_PORT.sub(port, text))
        for documented in ("/run/app/", "/run/", "/srv/app/", "/srv/", "/var/log/app/"):
            text = re.sub(rf"(?<![\w.}}]){documented}(?=\w)", f"{self.directory}/", text)
        return text

    def do(self, block: Block) -> None:
        if "with" in block.marks:
            shutil.copytree(REPOSITORY / block.marks["with"], self.directory, dirs_exist_ok=True)
        if block.title:
            path = self.directory / Path(self.here(block.title)).name
            path.write_text(self.here(block.text))
            return
        if not block.is_run or "needs" in block.marks and not shutil.which(block.marks["needs"], path=SEARCHED):
            return
        if "only checked" in block.marks:
            for command in commands(block.text):
                if is_server(command, self.directory):
                    self.shell(f"{self.here(command)} --check-config", 0, f"{self.page.name}:{block.line}: {command}")
            return
        printed = ""
        code = int(block.marks.get("exit", 0))
        for serves, group in itertools.groupby(
            commands(block.text), lambda command: code == 0 and is_server(command, self.directory)
        ):
            lines = list(group)
            where = f"{self.page.name}:{block.line}: {lines[0]}"
            if serves:
                for command in lines:
                    self.start(command, where)
            else:
                # One script, so that background jobs and variables last.
                script = "set -e\n" + "\n".join(lines)
                printed += self.shell(self.with_pid(self.here(script)), code, where)
        if block.output is not None:
            self.compare(block, printed)

    def with_pid(self, command: str) -> str:
        if not re.search(r"\bPID\b", command):
            return command
        assert self.logs, f"no server for PID in {command}"
        pid = self.logs[-1].wait(r"Booting worker with pid: (\d+)")[0].group(1)
        return re.sub(r"\bPID\b", pid, command)

    def environment(self) -> dict[str, str]:
        programs = Path(sys.executable).parent
        runtime = self.directory / "runtime"
        runtime.mkdir(exist_ok=True, mode=0o700)
        return clean_environment(
            {
                "PATH": f"{programs}:{os.environ['PATH']}",
                "XDG_RUNTIME_DIR": str(runtime),
                "HOME": str(self.directory),
                "COLUMNS": "120",
            }
        )

    def shell(self, command: str, code: int, where: str) -> str:
        if "ferricornc " in command and " -s " not in command and self.logs:
            # It is there a moment after the workers are started.
            with contextlib.suppress(AssertionError):
                wait_until(lambda: any(self.directory.glob("runtime/ferricorn/*.ctl")), "the control socket", 3)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            text=True,
        )
        log = self.logs[-1].text if self.logs else ""
        assert done.returncode == code, f"{where}\nexit code {done.returncode}\n{done.stdout}\n{log}"
        return done.stdout

    def start(self, command: str, where: str) -> None:
        is_proxy = command.startswith("nginx")
        if not is_proxy:
            self.stop()
        # The server takes the place of the shell, so that its pid is known.
        line = re.sub(r"^((?:[A-Z_]+=\S* )*)", r"\1exec ", self.here(command))
        environment = self.environment()
        files = self.files("*.conf.py")
        if not re.search(r"(^|\s)(-b|--bind|PORT=)", command) and not re.search(r"^bind\b", files, re.MULTILINE):
            environment["FERRICORN_BIND"] = self.here("127.0.0.1:8000")
        process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.sessions.append(process.pid)
        log = Transcript(process.stdout)
        if is_proxy:
            listen = re.search(r"listen\s+(?:[\d.]+:)?(\d+)", (self.directory / "nginx.conf").read_text())
            assert listen, where
            wait_until(lambda: is_open(int(listen.group(1))), f"nginx listens ({where})\n{log.text}")
            return
        self.server = process
        self.logs.append(log)
        wait_until(
            lambda: (
                "Booting worker with pid" in log.text + (self.files("*.log") if "--error-logfile" in command else "")
                or process.poll() is not None
            ),
            f"the server starts ({where})",
        )
        assert process.poll() is None, f"{where}\nended with {process.returncode}\n{log.join()}"

    def files(self, pattern: str) -> str:
        return "".join(path.read_text() for path in self.directory.glob(pattern))

    def stop(self) -> None:
        if self.server is None or self.server.poll() is not None:
            return
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(PATIENCE_S)

    def compare(self, block: Block, printed: str) -> None:
        for line in filter(str.strip, block.output.splitlines()):
            wanted = pattern(line)

            def is_there(wanted=wanted) -> bool:
                return bool(wanted.search(printed) or any(wanted.search(log.text) for log in self.logs))

            if line.strip() == "...":
                continue
            try:
                wait_until(is_there, f"{self.page.name}:{block.line}: {line!r}", PATIENCE_S / 2)
            except AssertionError as error:
                logs = "\n".join(log.text for log in self.logs)
                raise AssertionError(f"{error}\n--- printed\n{printed}\n--- log\n{logs}") from None


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
