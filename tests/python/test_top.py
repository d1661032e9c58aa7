"""`ferricornc top`: its figures and its lines as pure functions, and the program on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pytest

from ferricorn import _screen, _top
from harness import PATIENCE_S, clean_environment, stop_process, wait_until

pytestmark = pytest.mark.ours

CONTROL = [sys.executable, "-m", "ferricorn.ctl"]


# -- pure ------------------------------------------------------------------------------------------


def sample(at, rows, pid=1, **more):
    """`rows`: pid, finished requests, CPU seconds, and the times of requests as buckets."""
    workers = {
        worker: {"pid": worker, "state": "serving", "requests": requests, "errors": 0, "cpu_seconds": cpu,
                 "threads": 2, "threads_busy": 1, "queue": 0, "connections": 3, "rss": 1 << 20, "uptime": 9.5}
        for worker, requests, cpu, _ in rows
    }  # fmt: skip
    histograms = {worker: {"requests": counts, "queue": []} for worker, _, _, counts in rows}
    stats = {"pid": pid, "version": "ferricorn/1.2", "uptime": 60, "workers_target": 2, "reloads": 0, **more}
    return _top.Sample(at, stats, workers, {"requests": []}, histograms)


def test_rates_are_what_has_grown():
    before = sample(10, [(7, 100, 1.0, [0, 5, 0]), (8, 50, 1.0, [0, 0, 1])])
    data = _top.figures(before, sample(12, [(7, 110, 1.5, [0, 5, 10]), (9, 4, None, [4, 0, 0])]))
    seven, nine = data["workers"]
    assert (seven["requests_per_second"], seven["cpu"]) == (5, 0.25)
    assert (nine["requests_per_second"], nine["cpu"]) == (2, None), "it has come since"
    assert (data["requests_per_second"], data["workers_serving"]) == (7, 2)
    assert set(data["request_seconds"]) == {"p50", "p90", "p99"}
    assert 2e-6 <= data["request_seconds"]["p50"] <= data["request_seconds"]["p99"] <= 4e-6
    assert data["queue_seconds"] == {}, "nothing finished, so there is no time"
    json.dumps(data)


def test_a_server_that_has_started_anew_has_no_rates_yet():
    before = sample(10, [(7, 100, 1.0, [0, 5, 0])])
    data = _top.figures(before, sample(11, [(8, 3, 1.0, [0, 3, 0])], pid=2))
    assert data["requests_per_second"] is None
    assert data["request_seconds"] == {}
    assert "requests  -/s" in "\n".join(_top.frame(data, 80, 24))


def test_a_sample_of_another_server_lacks_figures():
    answers = {"show stats": {"pid": 1}, "show workers": {"workers": [{"pid": 5, "booted": True}]}}
    one = _top.sample(answers.__getitem__, lambda command: {})
    data = _top.figures(one, one)
    assert (data["workers"][0]["state"], data["rss"]) == ("serving", None)
    assert _top.frame(data, 80, 24)


def test_quantiles_are_those_of_the_dashboard():
    assert _top.quantile([0, 0, 0, 0, 0, 100], 50) == pytest.approx(24e-6)
    assert _top.quantile([10], 99) == pytest.approx(0.99e-6)
    assert _top.quantile([0, 0, 0], 50) == 0


def busy(workers=3, requests=4, path="/some/rather/long/path/of/a/request"):
    rows = [(4_000_000 + at, 100 * at, 1.0, [0, at]) for at in range(1, workers + 1)]
    data = _top.figures(sample(10, rows), sample(11, rows))
    row = {"worker": 4_000_001, "thread": 0, "age": 3.2, "peer": "192.0.2.1", "state": "running", "method": "GET"}
    data["requests"] = [{**row, "path": path} for _ in range(requests)]
    return data


@pytest.mark.parametrize("columns", [0, 1, 7, 20, 40, 60, 80, 200])
@pytest.mark.parametrize("lines", [1, 2, 5, 10, 24, 100])
def test_a_frame_fits_its_screen(columns, lines):
    for data in (busy(), busy(workers=40, requests=40), busy(0, 0), busy(path="/日本語/" + "e\u0301" * 200)):
        shown = _top.frame(data, columns, lines)
        assert len(shown) <= lines
        assert max(map(_top.display_width, shown)) <= columns


def test_what_matters_stays_on_a_narrow_screen():
    wide, narrow = (_top.frame(busy(), columns, 24) for columns in (120, 44))
    heading = next(line for line in wide if "PID" in line)
    assert heading.split() == [name for name, _, _ in _top.WORKER_COLUMNS]
    heading = next(line for line in narrow if "PID" in line)
    assert {"PID", "BUSY", "REQ/S"} <= set(heading.split())
    assert "LOOP" not in heading
    assert any(re.match(r"4000001 +3.2s +GET +/some/rather/lon.*~$", line) for line in narrow), narrow


def test_workers_leave_lines_for_requests():
    shown = _top.frame(busy(workers=40, requests=40), 80, 24)
    assert sum("serving" in line for line in shown) >= 3
    assert sum(" GET " in line for line in shown) >= 3
    assert any(re.match(r"\.\.\. \d+ workers", line) for line in shown)


def test_a_strangers_path_cannot_move_the_cursor():
    shown = _top.frame(busy(path="/\x1b[2J\x1b]0;owned\x07\r\n\u202e"), 200, 24, paint=True)
    assert not re.search(r"[\x00-\x1a\x1c-\x1f\x7f\u202e]", "".join(shown))
    assert set(re.findall(r"\x1b[^m]*m?", "".join(shown))) <= {"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m"}


def test_what_is_wrong_is_painted_and_comes_first_where_there_is_no_space():
    data = busy(workers=1)
    assert "\x1b[31m" in _top.frame(data, 120, 24, paint=True)[0], "1 of 2 workers"
    assert _top.frame(data, 40, 24)[0].startswith("1 of 2 workers serve")
    assert "\x1b" not in "".join(_top.frame(data, 120, 24))


# -- without a terminal ----------------------------------------------------------------------------


@pytest.fixture
def path():
    """Of a control socket, short enough for one."""
    directory = Path(tempfile.mkdtemp(prefix="top-"))
    yield directory / "one.ctl"
    shutil.rmtree(directory, ignore_errors=True)


def run(path, *options, code=0):
    done = subprocess.run(
        [*CONTROL, "-s", str(path), "top", *options],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def serving(server, path, *options):
    one = server("lifecycle", "--control-socket", str(path), *options)
    assert one.get("/pid").status == 200
    return one


def test_one_document(server, path):
    one = serving(server, path, "--threads", "3")
    data = json.loads(run(path, "--json"))
    assert (data["pid"], data["threads"], data["workers_serving"]) == (one.pid, 3, 1)
    assert data["workers"][0]["pid"] in one.workers()
    assert data["seconds"] >= 1


def test_a_request_that_runs_is_shown_without_a_terminal(server, path, gates):
    one = serving(server, path)
    with one.connect() as client:
        client.send_request("GET", "/block?here")
        gates.wait_reached("here")
        shown = run(path)
        gates.open("here")
        assert client.read_response().status == 200
    assert "1 running, 0 waiting for a thread" in shown
    assert re.search(r"GET +/block$", shown, re.MULTILINE)
    assert "\x1b" not in shown


def test_a_document_for_each_interval_also_while_the_server_is_gone(server, path):
    one = serving(server, path)
    line = [*CONTROL, "-s", str(path), "top", "--json", "--interval", "0.1"]
    with subprocess.Popen(line, env=clean_environment(), stdout=subprocess.PIPE, text=True) as top:
        documents = map(json.loads, top.stdout)
        for _ in range(3):
            assert next(documents)["pid"] == one.pid
        asked = [one.get("/pid").status for _ in range(20)]
        assert asked == [200] * 20
        counted = next(data for data in documents if data["requests_per_second"])
        assert counted["request_seconds"]["p50"] > 0
        assert one.stop() == 0
        gone = next(data for data in documents if "error" in data)
        assert "Cannot connect" in gone["error"]
        two = serving(server, path)
        assert next(data for data in documents if "pid" in data)["pid"] == two.pid
        top.send_signal(signal.SIGINT)
        assert top.wait(PATIENCE_S) == 130


def test_what_cannot_be_done_is_said_in_one_line(path):
    assert run(path, code=1).startswith(f"Error: Cannot connect to {path}")
    assert run(path, "--json", code=1).count("\n") == 1
    for words in (["--interval", "soon"], ["--interval", "0"], ["--interval", "nan"]):
        assert "is not a number of seconds from 0.1 to 3600" in run(path, *words, code=2)
    done = subprocess.run([*CONTROL, "--interval", "1", "-c", "help"], capture_output=True, text=True, check=False)
    assert (done.returncode, "--interval is an option of top" in done.stderr) == (2, True)


def test_a_reader_that_leaves_ends_it(server, path):
    serving(server, path)
    line = [*CONTROL, "-s", str(path), "top", "--interval", "0.1"]
    with subprocess.Popen(line, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as top:
        top.stdout.readline()
        top.stdout.close()
        assert top.wait(PATIENCE_S) == 0
        assert top.stderr.read() == b""


# -- on a terminal ---------------------------------------------------------------------------------


class Terminal:
    """A program on a terminal of its own, as the leader of its session."""

    def __init__(self, line, columns=100, lines=30, **extra):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # Only calls that a child may make: the program sees the size that is set before its first read of it.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execvpe(line[0], line, {**clean_environment(), "TERM": "xterm-256color", "COLUMNS": "", **extra})
        os.set_blocking(self.fd, False)
        self.output = ""
        self.before = termios.tcgetattr(self.fd)
        self.code = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self.fd)

    def read(self):
        with contextlib.suppress(OSError):
            while data := os.read(self.fd, 65536):
                self.output += data.decode()
        return self.output

    def screen(self):
        """The lines of the last whole frame, without their colours."""
        frames = re.findall(r"\x1b\[H((?:(?!\x1b\[H).)*)\x1b\[J", self.read(), re.DOTALL)
        return re.sub(r"\x1b\[[0-9;]*[mK]|\r", "", frames[-1]).split("\n") if frames else []

    def await_text(self, pattern):
        try:
            return wait_until(lambda: re.search(pattern, "\n".join(self.screen())), pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output[-2000:]!r}") from None

    def resize(self, columns, lines):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def wait(self):
        def ended():
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return pid and [os.waitstatus_to_exitcode(status)]

        (self.code,) = wait_until(ended, "the program ends")
        self.read()
        return self.code

    def is_clean(self):
        """The terminal is as it was, and nothing was shown after the screen was left."""
        entered, left = self.output.rfind(_screen.Screen.ENTER), self.output.rfind(_screen.Screen.LEAVE)
        assert 0 <= entered < left, self.output[-500:]
        assert termios.tcgetattr(self.fd) == self.before
        return self.output[left + len(_screen.Screen.LEAVE) :].strip() in ("", "^C")


def top(path, **options):
    return Terminal([*CONTROL, "-s", str(path), "top", "--interval", "0.2"], **options)


def test_the_screen_shows_the_server_and_a_key_leaves_it(server, path, gates):
    one = serving(server, path, "--threads", "2")
    with top(path) as terminal, one.connect() as client:
        terminal.await_text(rf"pid {one.pid}  up .*1 of 1 workers serve")
        terminal.await_text(r"0/2 busy")
        client.send_request("GET", "/block?key")
        terminal.await_text(r"1 running, 0 waiting for a thread")
        terminal.await_text(r"GET +/block")
        assert termios.tcgetattr(terminal.fd) != terminal.before, "no echo, no Enter"
        gates.open("key")
        terminal.await_text(r"0 running")
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_clean()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda terminal: terminal.type("\x03"), 130),
        (lambda terminal: os.kill(terminal.pid, signal.SIGINT), 130),
        (lambda terminal: os.kill(terminal.pid, signal.SIGTERM), 128 + signal.SIGTERM),
    ],
    ids=["ctrl-c", "int", "term"],
)
def test_the_terminal_is_clean_whatever_ends_it(server, path, end, code):
    serving(server, path)
    with top(path) as terminal:
        terminal.await_text("workers serve")
        end(terminal)
        assert terminal.wait() == code
        assert terminal.is_clean()


def test_a_shell_has_its_terminal_while_it_is_stopped(server, path):
    serving(server, path)
    with Terminal(["bash", "--norc", "--noprofile", "-i"], PS1="shell> ") as terminal:
        wait_until(lambda: "shell>" in terminal.read(), "the prompt")
        terminal.type(f"{sys.executable} -m ferricorn.ctl -s {path} top\n")
        terminal.await_text("workers serve")
        terminal.type("\x1a")
        wait_until(lambda: re.search("Stopped.*shell>", terminal.read(), re.DOTALL), "the shell goes on")
        assert terminal.output.count(_screen.Screen.LEAVE) == 1
        terminal.type("fg\n")
        wait_until(lambda: terminal.read().count(_screen.Screen.ENTER) == 2, "its screen is back")
        terminal.type("q")
        wait_until(lambda: terminal.read().count("shell>") == 3, "the shell goes on")
        assert terminal.output.count(_screen.Screen.LEAVE) == 2
        terminal.type("exit 7\n")
        assert terminal.wait() == 7


def test_it_follows_the_size_of_the_terminal(server, path):
    serving(server, path)
    # Long enough that only the resize can have drawn it.
    line = [*CONTROL, "-s", str(path), "top", "--interval", "3600"]
    with Terminal(line, columns=120, lines=30) as terminal:
        terminal.await_text("PYTHON")
        for columns, lines in ((40, 8), (20, 4), (1, 1), (100, 40)):
            terminal.resize(columns, lines)

            def is_full(columns=columns, lines=lines):
                shown = terminal.screen()
                widest = max(map(_top.display_width, shown))
                return widest <= columns and len(shown) <= lines and (widest == columns or columns == 100)

            wait_until(is_full, f"drawn anew for {columns} columns")
        terminal.await_text("PYTHON")
        terminal.type("q")
        assert terminal.wait() == 0


def test_a_server_that_goes_and_comes_back(server, path):
    one = serving(server, path)
    with top(path) as terminal:
        terminal.await_text(f"pid {one.pid} ")
        assert one.stop() == 0
        terminal.await_text(r"No answer: Cannot connect to .*\nTrying again every 0.2 s")
        two = serving(server, path)
        terminal.await_text(f"pid {two.pid} ")
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_clean()


def test_a_server_that_does_not_answer_is_left_at_once(server, path):
    one = serving(server, path)
    with top(path) as terminal:
        terminal.await_text("workers serve")
        stop_process(one.pid)
        try:
            began = time.monotonic()
            terminal.type("\x03")
            assert terminal.wait() == 130
            assert time.monotonic() - began < PATIENCE_S
            assert terminal.is_clean()
        finally:
            os.kill(one.pid, signal.SIGCONT)


def test_a_terminal_that_is_gone_ends_it(server, path):
    serving(server, path)
    with top(path) as terminal:
        terminal.await_text("workers serve")
        os.kill(terminal.pid, signal.SIGHUP)
        assert terminal.wait() == 128 + signal.SIGHUP


def test_colours_are_left_out_on_request(server, path):
    serving(server, path)
    with top(path, NO_COLOR="1") as terminal:
        terminal.await_text("workers serve")
        terminal.type("q")
        assert terminal.wait() == 0
        assert "m" not in re.findall(r"\x1b\[[0-9;]*([a-zA-Z])", terminal.output)


def test_a_terminal_that_can_do_nothing_gets_text(server, path):
    serving(server, path)
    line = [*CONTROL, "-s", str(path), "top"]
    with Terminal(line, TERM="dumb") as terminal:
        assert terminal.wait() == 0
        assert "\x1b" not in terminal.output
        assert "workers serve" in terminal.output


def test_it_is_a_command_of_the_prompt(server, path):
    serving(server, path)
    with Terminal([*CONTROL, "-s", str(path)]) as terminal:
        wait_until(lambda: "ferricorn>" in terminal.read(), "the prompt")
        terminal.type("top\n")
        terminal.await_text("workers serve")
        terminal.type("q")
        wait_until(lambda: "ferricorn>" in terminal.read().partition(_screen.Screen.LEAVE)[2], "the prompt again")
        terminal.type("quit\n")
        assert terminal.wait() == 0
