"""Where logs go: files that are rotated, syslog, standard streams that are captured, statsd."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness import APPS, COMMAND, GUNICORN, Finished, Server, clean_environment, session_members, wait_until
from wire import Client, encode_request

ACCESS = ("--access-logformat", "%(m)s %(U)s %(s)s")


@contextlib.contextmanager
def running(*arguments, **options):
    one = Server(arguments, **options)
    try:
        yield one
    finally:
        assert one.reap() == []


def text_of(path):
    return path.read_text() if path.exists() else ""


# -- rotation --------------------------------------------------------------------------------------


@pytest.fixture
def logged(tmp_path):
    """A server that logs to files, and the files."""
    access, error = tmp_path / "access.log", tmp_path / "error.log"
    arguments = ("hello:app", "-w", "2", "--access-logfile", str(access), "--error-logfile", str(error), *ACCESS)
    with running(*arguments, bind=(f"unix:{tmp_path}/s",)) as one:
        wait_until(lambda: text_of(error).count("Booting worker") == 2, "workers boot")
        one.address = str(tmp_path / "s")
        wait_until(lambda: (tmp_path / "s").exists(), "the socket")
        one.get("/first")
        wait_until(lambda: "/first" in text_of(access), "the first line")
        yield one, access, error


def fill(one, path, access):
    """Ask until every worker has written to the file `access`: each has its own idea of where that is."""

    def both():
        one.get(path)
        return path in text_of(access)

    wait_until(both, f"{path} in {access.name}")


@pytest.mark.ours
def test_a_renamed_file_is_left_without_a_signal(logged):
    one, access, error = logged
    for file in (access, error):
        file.rename(file.with_suffix(".1"))
    # The arbiter makes it anew, whether or not anything is logged.
    wait_until(lambda: access.exists() and error.exists(), "new files")
    fill(one, "/second", access)
    os.kill(one.workers()[0], signal.SIGKILL)
    wait_until(lambda: "was sent SIGKILL" in text_of(error), "the arbiter's line in the new file")
    wait_until(lambda: "Booting worker" in text_of(error), "a worker's line in the new file")


@pytest.mark.ours
def test_a_file_replaced_by_logrotate_is_followed(logged):
    """`create`: rename, then another file by the name."""
    one, access, _ = logged
    access.rename(access.with_suffix(".1"))
    access.touch()
    fill(one, "/second", access)
    # No worker has the old one any more: nothing is added to it.
    before = len(text_of(access.with_suffix(".1")))
    wait_until(lambda: (one.get("/third"), text_of(access).count("/third") >= 30)[1], "lines")
    assert len(text_of(access.with_suffix(".1"))) - before < 30 * len("GET /third 200\n")


def test_a_file_truncated_by_logrotate_begins_anew(logged):
    """`copytruncate`: the file stays, its content goes."""
    one, access, _ = logged
    os.truncate(access, 0)
    fill(one, "/second", access)
    assert re.fullmatch(r"(GET /second 200\n)+", text_of(access))
    assert "\0" not in text_of(access)


def test_usr1_opens_both_files_in_all_processes(logged):
    one, access, error = logged
    for file in (access, error):
        file.rename(file.with_suffix(".1"))
    one.send_signal(signal.SIGUSR1)
    wait_until(lambda: access.exists() and error.exists(), "new files")
    fill(one, "/second", access)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit() == 0
    assert text_of(error).count("Worker exiting") == 2


@pytest.mark.ours
def test_usr1_is_not_lost_on_a_worker_that_was_just_forked(tmp_path):
    """It has no handler of gunicorn's before the application is imported."""
    error, forked, rotated = tmp_path / "error.log", tmp_path / "forked", tmp_path / "rotated"
    config = tmp_path / "conf.py"
    config.write_text(
        "import pathlib, time\n"
        "def post_fork(server, worker):\n"
        f"    pathlib.Path({str(forked)!r}).touch()\n"
        f"    while not pathlib.Path({str(rotated)!r}).exists():\n"
        "        time.sleep(0.005)\n"
    )
    arguments = ("hello:app", "-c", str(config), "--error-logfile", str(error))
    with running(*arguments, bind=(f"unix:{tmp_path}/s",)) as one:
        wait_until(forked.exists, "the hook")
        one.address = str(tmp_path / "s")
        error.rename(error.with_suffix(".1"))
        one.send_signal(signal.SIGUSR1)
        wait_until(error.exists, "the arbiter's new file")
        # The signal that stops the worker is sent later, so the other one has come.
        rotated.touch()
        assert one.get("/").status == 200
        one.send_signal(signal.SIGTERM)
        assert one.wait_exit() == 0
    assert text_of(error).count("Worker exiting") == 1


@pytest.mark.ours
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_belong_to_the_user_that_workers_become(request):
    # Not below pytest's own directory, which is closed to others.
    tmp_path = Path(tempfile.mkdtemp())
    tmp_path.chmod(0o755)
    request.addfinalizer(lambda: shutil.rmtree(tmp_path))
    access = tmp_path / "access.log"
    arguments = ["self_contained:app", "--access-logfile", str(access), *ACCESS, "--user", "65534", "--group", "65534"]
    # The interpreter may be closed to others, too.
    arguments += ["--preload"]
    with running(*arguments) as one:
        one.wait_ready()
        one.get("/first")
        wait_until(lambda: "/first" in text_of(access), "the line")
        assert (access.stat().st_uid, access.stat().st_gid) == (65534, 65534)
        access.rename(tmp_path / "access.1")
        # The directory is root's: the arbiter makes the file, and a worker may open it.
        fill(one, "/second", access)
        assert (access.stat().st_uid, access.stat().st_gid) == (65534, 65534)


# -- files that cannot be opened -------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--error-logfile", "--access-logfile"])
def test_a_file_that_cannot_be_written_stops_the_start(flag):
    done = Finished(["hello:app", flag, "/nonexistent/log"])
    assert done.code == 1
    reason = "[FileNotFoundError(2, 'No such file or directory')]"
    assert f"\nError: '/nonexistent/log' isn't writable {reason}\n" in done.error


# -- syslog ----------------------------------------------------------------------------------------


class Daemon:
    """A syslog daemon: collects what is sent to it."""

    def __init__(self, tmp_path, kind):
        self.kind = kind
        if kind == "udp":
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind(("127.0.0.1", 0))
            self.address = f"udp://127.0.0.1:{self.socket.getsockname()[1]}"
        elif kind == "tcp":
            self.socket = socket.create_server(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{self.socket.getsockname()[1]}"
        else:
            types = {"dgram": socket.SOCK_DGRAM, "stream": socket.SOCK_STREAM}
            self.socket = socket.socket(socket.AF_UNIX, types[kind])
            path = tmp_path / f"syslog-{kind}"
            self.socket.bind(str(path))
            self.address = f"unix://{path}#{kind}"
            if kind == "stream":
                self.socket.listen()
        self.socket.setblocking(False)
        self.connections = []
        self.bytes = {}

    def messages(self):
        """Everything that has arrived, without the NUL at its end."""
        with contextlib.suppress(BlockingIOError):
            while self.kind in ("udp", "dgram"):
                self.bytes.setdefault(None, []).append(self.socket.recv(65536))
            while True:
                connection, _ = self.socket.accept()
                connection.setblocking(False)
                self.connections.append(connection)
        for connection in self.connections:
            with contextlib.suppress(BlockingIOError):
                while block := connection.recv(65536):
                    self.bytes.setdefault(connection, []).append(block)
        whole = b"".join(b"".join(blocks) for blocks in self.bytes.values())
        assert not whole or whole.endswith(b"\0") or self.kind in ("tcp", "stream")
        return [message.decode() for message in whole.split(b"\0") if message]

    def wait(self, pattern, count=1):
        def seen():
            found = [message for message in self.messages() if re.search(pattern, message, re.DOTALL)]
            return len(found) >= count and found

        return wait_until(seen, f"{pattern} in syslog")

    def close(self):
        for one in (self.socket, *self.connections):
            one.close()


@pytest.fixture
def daemon(tmp_path):
    made = []

    def make(kind):
        made.append(Daemon(tmp_path, kind))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("kind", ["udp", "tcp", "dgram", "stream"])
def test_both_logs_go_to_syslog(server, daemon, kind):
    syslog = daemon(kind)
    one = server(
        "chatty", "--log-syslog", "--log-syslog-to", syslog.address, "--log-syslog-facility", "LOCAL2", *ACCESS
    )
    one.get("/fails")
    (worker,) = one.workers()
    (line,) = syslog.wait(r" GET /fails ")
    assert line == f"<150>gunicorn.chatty.access: [{worker}] GET /fails 500"
    (line,) = syslog.wait(r"ValueError")
    first, *traceback = line.splitlines()
    assert first == f"<147>gunicorn.chatty.error: [{worker}] Error handling request GET /fails" or (
        first == f"<147>gunicorn.chatty.error: [{worker}] Error handling request /fails"
    )
    assert traceback[0] == "Traceback (most recent call last):"
    syslog.wait(rf"^<150>gunicorn\.chatty\.error: \[{one.pid}\] Listening at: ")
    # The files have theirs as well.
    one.log.wait(r"ValueError: no answer")
    assert one.stop() == 0
    syslog.wait(rf"^<150>gunicorn\.chatty\.error: \[{worker}\] Worker exiting \(pid: {worker}\)$")
    syslog.wait(rf"\[{one.pid}\] Shutting down: Master$")


def test_access_lines_can_be_kept_out_of_syslog(server, daemon):
    syslog = daemon("udp")
    one = server(
        "hello:app", "--log-syslog", "--log-syslog-to", syslog.address, "--log-syslog-prefix", "shop",
        "--disable-redirect-access-to-syslog", "--access-logfile", "-", *ACCESS,
    )  # fmt: skip
    one.get("/only-in-the-file")
    one.output.wait("GET /only-in-the-file 200")
    one.stop()
    syslog.wait(r"^<14>gunicorn\.shop\.error: \[\d+\] Shutting down: Master")
    assert not [message for message in syslog.messages() if "/only-in-the-file" in message]


def test_syslog_messages_are_those_of_gunicorn(tmp_path):
    """The same server life in both: what only one of them says is what only one of them does."""
    pytest.importorskip("gunicorn")
    said = []
    for command in (GUNICORN, None):
        syslog = Daemon(tmp_path, "udp")
        arguments = ["hello:create_app()", "--log-syslog", "--log-syslog-to", syslog.address, *ACCESS]
        with running(*arguments, command=command, bind=(f"unix:{tmp_path}/s",)) as one:
            syslog.wait("Booting worker")
            one.address = str(tmp_path / "s")
            one.get("/one")
            syslog.wait("GET /one 200")
            assert one.stop() == 0
        syslog.wait("Shutting down")
        said.append(
            {re.sub(r"\d+\.\d+\.\d+|\[\d+\]|pid:? \d+|\(\d+\)|ferri|guni", "N", one) for one in syslog.messages()}
        )
        syslog.close()
    theirs, ours = said
    both = theirs & ours
    assert len(both) >= 6, (theirs, ours)
    # gunicorn is started without its control socket here, and does not count what it served.
    known = ("Using worker", "Control socket", "Requests: 1 served")
    apart = [one for one in theirs ^ ours if not any(words in one for words in known)]
    assert not apart


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--log-syslog-facility", "bogus"), "unknown facility name"),
        (("--log-syslog-to", "localhost"), "invalid syslog address"),
        (("--log-syslog-to", "udp://localhost:x"), "'x' is not a valid port number."),
    ],
)
def test_syslog_mistakes_stop_the_start(arguments, message):
    done = Finished(["hello:app", "--log-syslog", *arguments])
    assert done.code == 1
    assert f"\nError: {message}\n" in done.error


@pytest.mark.ours
def test_a_syslog_that_is_not_there_is_said_once_and_holds_nothing_up(server, tmp_path):
    path = tmp_path / "log"
    one = server("hello:app", "--log-syslog", "--log-syslog-to", f"unix://{path}", "--threads", "2")
    for _ in range(20):
        assert one.get().status == 200
    one.log.wait(r"\[WARNING\] syslog takes no messages, and they are dropped: No such file or directory")
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver:
        receiver.bind(str(path))
        wait_until(lambda: (one.get(), "messages again" in one.log.text)[1], "syslog is found again")
    one.stop()
    text = one.log.join()
    assert re.search(r"syslog takes messages again; \d+ were dropped\.", text)
    # Once in the arbiter, once in the worker; and once more in the worker after the receiver has left.
    assert text.count("syslog takes no messages") <= 4


@pytest.mark.ours
def test_a_syslog_that_does_not_read_holds_nothing_up(server, daemon):
    syslog = daemon("dgram")
    one = server("hello:app", "--log-syslog", "--log-syslog-to", syslog.address, "--threads", "2")
    for _ in range(50):
        assert one.get().status == 200
    one.log.wait(r"syslog takes no messages, and they are dropped: ")
    syslog.messages()
    wait_until(lambda: (syslog.messages(), one.get(), "messages again" in one.log.text)[2], "it is noticed")


# -- standard streams ------------------------------------------------------------------------------


def test_captured_output_goes_to_the_error_log(tmp_path):
    error = tmp_path / "error.log"
    arguments = ("chatty", "--capture-output", "--error-logfile", str(error), "--access-logfile", "-", *ACCESS)
    with running(*arguments, bind=(f"unix:{tmp_path}/s",)) as one:
        wait_until(lambda: "Booting worker" in text_of(error), "a worker boots")
        one.address = str(tmp_path / "s")
        one.get("/first")
        wait_until(lambda: "GET /first 200" in text_of(error), "the access line")
        for said in ("printed", "complained", "wrote", "from a child"):
            assert f"{said} first\n" in text_of(error)
        error.rename(tmp_path / "error.1")
        one.send_signal(signal.SIGUSR1)
        wait_until(error.exists, "a new file")

        def arrives():
            one.get("/second")
            return all(f"{said} second\n" in text_of(error) for said in ("printed", "wrote", "from a child"))

        wait_until(arrives, "output in the new file")
        assert one.stop() == 0
        assert one.output.join() == ""


def test_output_is_left_alone_without_a_file(server):
    one = server("chatty", "--capture-output")
    one.get("/first")
    one.output.wait("printed first\nwrote first\nfrom a child first\n")
    one.log.wait("complained first")


@pytest.mark.parametrize("flags", [(), ("-R",), ("--capture-output",)])
def test_standard_streams_of_a_daemon(tmp_path, flags):
    """They go nowhere, unless they are inherited (-R) or captured."""
    error, output, pidfile = tmp_path / "error.log", tmp_path / "output", tmp_path / "pid"
    line = [*COMMAND, "-b", f"unix:{tmp_path}/s", "--daemon", "--pid", str(pidfile), "--error-logfile", str(error)]
    with open(output, "wb") as stream:
        started = subprocess.Popen(
            [*line, *flags, "chatty"], cwd=APPS, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            env=clean_environment(),
        )  # fmt: skip
        assert started.wait(20) == 0
    wait_until(lambda: text_of(pidfile), "the pidfile")
    pid = int(text_of(pidfile))
    try:
        wait_until(lambda: "Booting worker" in text_of(error), "a worker boots")

        def answers():
            with contextlib.suppress(OSError), Client(str(tmp_path / "s"), 20) as client:
                return client.request("GET", "/first").status == 200

        wait_until(answers, "an answer")
        assert ("printed first" in text_of(output)) == ("-R" in flags)
        assert ("printed first" in text_of(error)) == ("--capture-output" in flags)
    finally:
        session = os.getsid(pid)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not session_members(session), "the daemon is gone")


# -- statsd ----------------------------------------------------------------------------------------


class Statsd:
    def __init__(self, family=socket.AF_INET, address=("127.0.0.1", 0)):
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.metrics = []
        self.longest = 0

    def seen(self):
        with contextlib.suppress(BlockingIOError):
            while datagram := self.socket.recv(65536):
                self.longest = max(self.longest, len(datagram))
                self.metrics += datagram.decode().split("\n")
        return self.metrics

    def wait(self, pattern, count=1):
        def found():
            matches = [metric for metric in self.seen() if re.fullmatch(pattern, metric)]
            return len(matches) >= count and matches

        return wait_until(found, f"{pattern} in {self.metrics}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@pytest.fixture
def statsd():
    with Statsd() as one:
        one.address = f"127.0.0.1:{one.socket.getsockname()[1]}"
        yield one


def test_metrics_of_requests_workers_and_log_lines(server, statsd):
    one = server(
        "probe:raw",
        "--statsd-host",
        statsd.address,
        "--statsd-prefix",
        "my.shop.",
        "--dogstatsd-tags",
        "a:b,c",
        "-w",
        "2",
    )
    one.get("/status?line=200%20OK")
    one.get("/status?line=404%20Not%20Found")
    one.get("/raises")
    end = re.escape("|#a:b,c")
    statsd.wait(rf"my\.shop\.gunicorn\.workers:2\|g{end}")
    statsd.wait(rf"my\.shop\.gunicorn\.request\.duration:\d+\.\d+\|ms{end}", 2)
    statsd.wait(rf"my\.shop\.gunicorn\.requests:1\|c\|@1\.0{end}", 2)
    statsd.wait(rf"my\.shop\.gunicorn\.request\.status\.200:1\|c\|@1\.0{end}")
    statsd.wait(rf"my\.shop\.gunicorn\.request\.status\.404:1\|c\|@1\.0{end}")
    one.send_signal(signal.SIGTTIN)
    statsd.wait(rf"my\.shop\.gunicorn\.workers:3\|g{end}")
    with one.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        client.read_response()
    statsd.wait(rf"my\.shop\.gunicorn\.log\.warning:1\|c\|@1\.0{end}")


def test_metrics_of_hooks(server, statsd, tmp_path):
    """gunicorn's way to send one: `extra` with a name, a value and a kind. An empty message is no line."""
    config = tmp_path / "conf.py"
    config.write_text(
        "def post_worker_init(worker):\n"
        "    worker.log.info('', extra={'metric': 'shop.carts', 'value': 7, 'mtype': 'gauge'})\n"
        "    worker.log.debug('unseen', extra={'metric': 'shop.boots', 'value': 1, 'mtype': 'counter'})\n"
        "    worker.log.info('said', extra={'metric': 'shop.time', 'value': 1.5, 'mtype': 'histogram'})\n"
    )
    one = server("hello:app", "-c", str(config), "--statsd-host", statsd.address)
    statsd.wait(r"shop\.carts:7\|g")
    statsd.wait(r"shop\.boots:1\|c\|@1\.0")
    statsd.wait(r"shop\.time:1\.5\|h")
    one.log.wait(r"\[INFO\] said")
    assert "[INFO] \n" not in one.log.text and "unseen" not in one.log.text


def test_metrics_are_those_of_gunicorn():
    """The same requests to both, and the same metrics: durations apart, and how they share datagrams."""
    pytest.importorskip("gunicorn")
    sent = []
    for command in (GUNICORN, None):
        with Statsd() as statsd:
            port = statsd.socket.getsockname()[1]
            arguments = ["faulty", "--statsd-host", f"127.0.0.1:{port}", "--statsd-prefix", "xy", "--threads", "2"]
            with running(*arguments, command=command) as one:
                one.wait_ready()
                statsd.wait(r"xy\.gunicorn\.workers:1\|g")
                with one.connect() as client:
                    for _ in range(3):
                        assert client.request("GET", "/").status == 200
                statsd.wait(r"xy\.gunicorn\.request\.status\.200:1\|c\|@1\.0", 3)
                one.get("/raises")
                statsd.wait(r"xy\.gunicorn\.log\.exception:1\|c\|@1\.0")
                statsd.wait(r"xy\.gunicorn\.request\.status\.500:1\|c\|@1\.0", 0)
            metrics = sorted(re.sub(r"duration:\d+\.\d+", "duration:N", one) for one in statsd.seen())
            sent.append([one for one in metrics if "500" not in one])
    theirs, ours = map(set, sent)
    assert ours == theirs


@pytest.mark.ours
def test_metrics_share_datagrams_that_fit_a_packet(server, statsd):
    one = server("hello:app", "--statsd-host", statsd.address, "--threads", "2")
    with one.connect() as client:
        client.send(encode_request("GET", "/") * 100)
        for _ in range(100):
            client.read_response()
    statsd.wait(r"gunicorn\.requests:1\|c\|@1\.0", 100)
    assert statsd.longest <= 1432
    # After the last one, too: the metrics of a worker that stops are sent.
    one.get()
    one.stop()
    statsd.wait(r"gunicorn\.requests:1\|c\|@1\.0", 101)


def test_statsd_on_a_unix_socket(server, tmp_path):
    path = str(tmp_path / "statsd")
    with Statsd(socket.AF_UNIX, path) as statsd:
        one = server("hello:app", "--statsd-host", f"unix://{path}")
        one.get()
        statsd.wait(r"gunicorn\.workers:1\|g")
        statsd.wait(r"gunicorn\.request\.status\.200:1\|c\|@1\.0")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_statsd_over_ipv6(server):
    with Statsd(socket.AF_INET6, ("::1", 0)) as statsd:
        one = server("hello:app", "--statsd-host", f"[::1]:{statsd.socket.getsockname()[1]}")
        one.get()
        statsd.wait(r"gunicorn\.request\.status\.200:1\|c\|@1\.0")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells it on Linux only")
def test_backlog_metric(server, statsd):
    server("hello:app", "--statsd-host", statsd.address, "--enable-backlog-metric")
    statsd.wait(r"gunicorn\.backlog:0\|h", 2)
