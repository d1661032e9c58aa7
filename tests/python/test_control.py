"""The control socket and its command line: gunicornc's protocol, and what ferricornc shows of a running server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from test_descriptors import cpu_seconds

from ferricorn import ctl
from harness import COMMAND, PATIENCE_S, RUNTIME, clean_environment, descriptors, stop_process, wait_until
from wire import Client

pytestmark = pytest.mark.ours

CONTROL = [sys.executable, "-m", "ferricorn.ctl"]
GUNICORNC = [sys.executable, "-m", "gunicorn.ctl.cli"]


@pytest.fixture
def runtime():
    """A directory with a short path, where nobody else's sockets are."""
    directory = Path(tempfile.mkdtemp(prefix="fc-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def run(*arguments, command=CONTROL, code=0, runtime=RUNTIME, **options):
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env=clean_environment({"XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime)}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **options,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def path_of(one):
    return Path(one.log.wait(r"Control socket listening at (.+)$")[0].group(1))


def ask(one, command):
    """What `ferricornc -c` prints, without another process; mistakes too."""
    try:
        return ctl.show(command, data(one, command), as_json=False)
    except ctl.ControlError as error:
        return f"Error: {error}"


def data(one, command):
    with ctl.Client(path_of(one)) as client:
        return client.ask(command)


def serving(one, count=1):
    """The rows of `show workers`, once so many serve."""

    def rows():
        rows = data(one, "show workers")["workers"]
        return rows if [row["state"] for row in rows] == ["serving"] * count else None

    return wait_until(rows, f"{count} workers serve")


class Raw:
    """A client that may misbehave."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, payload):
        self.socket.sendall(struct.pack(">I", len(payload)) + payload)

    def receive(self):
        (length,) = struct.unpack(">I", self.socket.recv(4, socket.MSG_WAITALL))
        return json.loads(self.socket.recv(length, socket.MSG_WAITALL))

    def is_closed(self):
        return self.socket.recv(1) == b""


# -- gunicorn's own client -------------------------------------------------------------------------


def test_gunicornc_works(server):
    client = pytest.importorskip("gunicorn.ctl.client")
    cli = pytest.importorskip("gunicorn.ctl.cli")
    one = server("hello:app", "--threads", "2", workers=2)
    serving(one, 2)

    def gunicornc(command):
        with client.ControlClient(str(path_of(one))) as connection:
            return cli.format_response(command, connection.send_command(command))

    workers = run("-s", path_of(one), "-c", "show workers", command=GUNICORNC)
    assert workers.splitlines()[:2] == gunicornc("show workers").splitlines()[:2]
    assert "Total: 2 workers" in workers
    assert len(re.findall(r"^\d+ +\d+ +yes +[\d.]+s ago$", workers, re.MULTILINE)) == 2, workers
    assert "WEB WORKERS (2)" in gunicornc("show all")
    stats = gunicornc("show stats")
    assert f"PID:              {one.pid}" in stats
    assert "Workers spawned:  2" in stats
    assert re.search(rf"127\.0\.0\.1:{one.port} +tcp", gunicornc("show listeners"))
    config = gunicornc("show config")
    assert "threads: 2\n" in config
    assert "worker_class: sync\n" in config
    assert "Dirty arbiter not running" in gunicornc("show dirty")
    assert "worker add [N]" in gunicornc("help")
    assert json.loads(gunicornc("worker add 1")) == {"added": 1, "previous": 2, "total": 3}
    serving(one, 3)
    assert json.loads(gunicornc("worker remove 2")) == {"removed": 2, "previous": 3, "total": 1}
    (last,) = serving(one, 1)
    assert json.loads(gunicornc(f"worker kill {last['pid']}")) == {"success": True, "killed": last["pid"]}
    wait_until(lambda: [row["pid"] for row in serving(one)] != [last["pid"]], "another worker")
    assert json.loads(gunicornc("reopen")) == {"status": "reopening"}
    one.log.wait("Handling signal: usr1")
    assert json.loads(gunicornc("reload")) == {"status": "reloading"}
    one.log.wait("Hang up: Master")
    assert "Reloads:          1" in gunicornc("show stats")
    assert json.loads(gunicornc("shutdown")) == {"status": "shutting_down", "mode": "graceful"}
    assert one.wait_exit() == 0


# -- what ferricornc shows -------------------------------------------------------------------------


def test_workers_and_requests_are_shown(server, gates):
    one = server("lifecycle", "--threads", "2")
    (row,) = serving(one)
    assert (row["pid"], row["age"], row["booted"], row["threads"]) == (one.workers()[0], 1, True, 2)
    assert row["rss"] > 1 << 20
    with one.connect() as client:
        client.send_request("GET", "/block?slow")
        gates.wait_reached("slow")
        (request,) = data(one, "show requests")["requests"]
        assert (request["method"], request["path"], request["peer"]) == ("GET", "/block", "127.0.0.1")
        assert (request["worker"], request["state"]) == (row["pid"], "running")
        assert 0 <= request["age"] < PATIENCE_S
        shown = ask(one, "show requests")
        assert re.search(rf"^ *{row['pid']} +\d +[\d.]+s +127\.0\.0\.1 +running +GET +/block$", shown, re.MULTILINE)
        assert "1 running, 0 waiting" in shown
        assert re.search(rf"^ *{row['pid']} +1 +serving .* 1/2 ", ask(one, "show workers"), re.MULTILINE)
        gates.open("slow")
        client.read_response()
    wait_until(lambda: data(one, "show requests")["count"] == 0, "nothing runs")
    wait_until(lambda: serving(one)[0]["requests"] == 1, "a request was counted")


def test_a_path_cannot_write_to_the_terminal():
    row = {
        "worker": 1,
        "thread": 0,
        "age": 1.5,
        "peer": None,
        "state": "running",
        "method": "GET",
        "path": "/\x1b[2J\n",
    }
    shown = ctl.requests({"requests": [row], "queued": 0})
    assert "\x1b" not in shown
    assert r"/\x1b[2J\n" in shown


def test_stacks_are_told_while_threads_sleep_in_c(server, gates):
    one = server("lifecycle", "--threads", "2")
    (row,) = serving(one)
    with one.connect() as client:
        client.send_request("GET", "/block?slow")
        gates.wait_reached("slow")
        shown = ask(one, f"stack {row['pid']}")
        assert re.search(r"^ferricorn-thread_\d \(thread \d+\), for [\d.]+s: GET /block from 127", shown, re.MULTILINE)
        assert "gate.wait(query)" in shown
        assert f"MainThread (thread {row['pid']})" in shown
        told = data(one, f"stack {row['pid']}")
        busy = [thread for thread in told["threads"] if thread["frames"][-1]["file"].endswith("gate.py")]
        assert [frame["function"] for frame in busy[0]["frames"][-2:]] == ["block", "wait"]
        gates.open("slow")
        assert client.read_response().status == 200
    assert "Worker 1 not found" in ask(one, "stack 1")


def test_stacks_are_told_while_the_application_is_imported(server, gates):
    one = server("slow_import", ready=False)
    gates.wait_reached("import")
    (row,) = data(one, "show workers")["workers"]
    assert (row["state"], row["booted"]) == ("booting", False)
    assert "slow_import.py" in ask(one, f"stack {row['pid']}")
    gates.open("import")
    serving(one)


@pytest.mark.slow
def test_what_is_seen_of_a_worker_whose_interpreter_is_held(server, gates):
    one = server("lifecycle", "--threads", "2")
    (row,) = serving(one)
    with one.connect() as client:
        client.send_request("GET", "/hold_the_interpreter?4")
        gates.wait_reached("holding")
        shown = ask(one, f"stack {row['pid']}")
        assert "keeps the GIL" in shown
        assert "GET /hold_the_interpreter" in shown
        assert re.search(r'File ".*lifecycle\.py", line \d+ in hold_the_interpreter', shown)
        assert client.read_response().text == "held"
        # The late answer to the first question is not taken for that to the second.
        assert "hold_the_interpreter" not in ask(one, f"stack {row['pid']}")


# -- where the socket is ---------------------------------------------------------------------------


def test_each_server_has_a_socket_of_its_own_and_is_found(server, runtime):
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    assert "No running server" in run("-c", "show all", code=1, runtime=runtime)
    first = server("hello:app", "--name", "shop", env=env)
    assert path_of(first) == runtime / "ferricorn" / f"{first.pid}.ctl"
    assert stat.S_IMODE(path_of(first).stat().st_mode) == 0o600
    assert stat.S_IMODE(path_of(first).parent.stat().st_mode) == 0o700
    assert f"Master {first.pid}" in run("-c", "show all", runtime=runtime)
    second = server("hello:app", env=env)
    path_of(second)
    both = run("-c", "show all", code=1, runtime=runtime)
    assert f"{first.pid}.ctl  (pid {first.pid} shop 127.0.0.1:0)" in both
    assert f"{second.pid}.ctl" in both
    assert f"Master {second.pid}" in run("-s", second.pid, "-c", "show all", runtime=runtime)
    assert "No server with pid 1 " in run("-s", 1, "-c", "show all", code=1, runtime=runtime)
    assert first.stop() == 0
    assert not path_of(first).exists()
    assert f"Master {second.pid}" in run("-c", "show all", runtime=runtime)


def test_what_killed_servers_left_is_swept(server, runtime):
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    killed = server("hello:app", env=env)
    left = path_of(killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait_exit()
    killed.wait_gone()
    assert left.exists()
    assert "No running server" in run("-c", "show all", code=1, runtime=runtime)
    other = server("hello:app", env=env)
    path_of(other)
    assert not left.exists()


def test_a_living_socket_is_waited_for_and_never_stolen(server, runtime):
    path = runtime / "shop.ctl"
    first = server("hello:app", "--control-socket", str(path), "--control-socket-mode", "0660")
    assert path_of(first) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    second = server("hello:app", "--control-socket", str(path))
    second.log.wait(r"\[WARNING\] No control socket: .*belongs to a running server")
    assert second.get().status == 200
    assert f"Master {first.pid}" in run("-s", path, "-c", "show all")
    assert first.stop() == 0
    second.log.wait("Control socket listening at")
    assert f"Master {second.pid}" in run("-s", path, "-c", "show all")
    assert second.log.text.count("No control socket") == 1


def test_a_stale_socket_is_taken_over_and_a_file_is_not(server, runtime):
    stale, file = runtime / "stale", runtime / "file"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    one = server("hello:app", "--control-socket", str(stale))
    assert path_of(one) == stale
    file.write_text("precious")
    other = server("hello:app", "--control-socket", str(file))
    other.log.wait("No control socket: .*not a socket")
    assert other.stop() == 0
    assert file.read_text() == "precious"


def test_the_socket_survives_a_reload_and_follows_its_setting(server, runtime):
    config = runtime / "config.py"
    config.write_text(f"control_socket = '{runtime}/one'\n")
    one = server("hello:app", "-c", str(config))
    with Raw(path_of(one)) as client:
        inode = (runtime / "one").stat().st_ino
        one.send_signal(signal.SIGHUP)
        wait_until(lambda: len(one.booted()) == 2, "a new worker")
        client.send(b'{"command": "show stats"}')
        assert client.receive()["data"]["reloads"] == 1
        assert (runtime / "one").stat().st_ino == inode
    config.write_text(f"control_socket = '{runtime}/two'\n")
    one.send_signal(signal.SIGHUP)
    wait_until((runtime / "two").exists, "the socket at its new place")
    assert not (runtime / "one").exists()
    assert f"Master {one.pid}" in run("-s", runtime / "two", "-c", "show all")
    config.write_text("control_socket_disable = True\n")
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: not (runtime / "two").exists(), "no socket")


def test_there_need_not_be_a_socket(server, runtime):
    one = server("hello:app", "--no-control-socket", env={"XDG_RUNTIME_DIR": str(runtime)})
    assert one.get().status == 200
    assert one.stop() == 0
    assert "Control socket" not in one.log.text
    assert list(runtime.iterdir()) == []


def test_a_directory_that_cannot_be_had_stops_nothing(server, runtime):
    (runtime / "ferricorn").write_text("a file")
    one = server("hello:app", env={"XDG_RUNTIME_DIR": str(runtime)})
    one.log.wait("No control socket: ")
    assert one.get().status == 200


def test_workers_do_not_have_the_socket(server, runtime):
    one = server("hello:app", workers=2, env={"XDG_RUNTIME_DIR": str(runtime)})
    with Raw(path_of(one)) as client:
        # Forked while there is a socket and a client.
        client.send(b'{"command": "worker add"}')
        client.receive()
        serving(one, 3)
        listed = Path("/proc/net/unix").read_text().splitlines()
        sockets = {line.split()[6] for line in listed if line.endswith(str(path_of(one)))}
        assert sockets
        for worker in one.workers():
            for target in descriptors(worker).values():
                assert target.removeprefix("socket:[").rstrip("]") not in sockets


# -- clients of every manner -----------------------------------------------------------------------


def test_bad_frames_get_an_error_and_harm_nobody(server):
    one = server("hello:app")
    with Raw(path_of(one)) as half, Raw(path_of(one)) as bad, Raw(path_of(one)) as large:
        # A client that stops in the middle holds up nobody.
        half.socket.sendall(b"\0\0\0\x20{")
        for payload in (b"{nonsense", b"[]", b"\xff\xfe", b"", b'{"id": 3, "command": "fly"}', b"[" * 60_000):
            bad.send(payload)
            answer = bad.receive()
            assert answer["status"] == "error", payload
        bad.send(b'{"id": "x", "command": "show", "args": ["stats"]}')
        answer = bad.receive()
        assert (answer["id"], answer["status"], answer["data"]["pid"]) == ("x", "ok", one.pid)
        large.socket.sendall(b"\xff" * 100)
        assert "too large" in large.receive()["error"]
        assert large.is_closed()
        one.send_signal(signal.SIGTTIN)
        wait_until(lambda: len(one.workers()) == 2, "the arbiter goes on")
    assert one.stop() == 0


def test_a_client_that_leaves_while_it_waits_harms_nobody(server, gates):
    one = server("lifecycle", "--threads", "2")
    (row,) = serving(one)
    with one.connect() as client:
        client.send_request("GET", "/hold_the_interpreter?3")
        gates.wait_reached("holding")
        with Raw(path_of(one)) as asker:
            asker.send(json.dumps({"command": f"stack {row['pid']}"}).encode())
        assert data(one, "show requests")["count"] == 1
        assert client.read_response().text == "held"
    assert data(one, "show stats")["workers_current"] == 1


def test_a_stopping_server_tells_what_it_waits_for(server, gates):
    one = server("lifecycle", "--threads", "2", "--graceful-timeout", "30")
    serving(one)
    with one.connect() as client:
        client.send_request("GET", "/block?slow")
        gates.wait_reached("slow")
        assert ask(one, "shutdown") == "shutting down"
        wait_until(lambda: data(one, "show stats")["stopping"], "the server stops")
        (request,) = data(one, "show requests")["requests"]
        assert (request["path"], request["state"]) == ("/block", "stopping")
        assert "gate.wait(query)" in ask(one, f"stack {request['worker']}")
        assert "The server is stopping" in ask(one, "worker add")
        gates.open("slow")
        assert client.read_response().text == "unblocked slow"
    assert one.wait_exit() == 0
    assert not path_of(one).exists()


def test_a_quick_shutdown_does_not_wait(server, gates):
    one = server("lifecycle", "--threads", "2", "--graceful-timeout", "60")
    with one.connect() as client:
        client.send_request("GET", "/block?never")
        gates.wait_reached("never")
        ask(one, "shutdown quick")
        assert one.wait_exit(10) == 0


# -- the command line ------------------------------------------------------------------------------


def test_the_prompt(server):
    one = server("hello:app")
    lines = "show stats\n\nnonsense\nshow workers\nquit\n"
    shown = run("-s", path_of(one), input=lines)
    assert f"Connected to {path_of(one)}" in shown
    assert f"pid              {one.pid}" in shown
    assert "Error: Unknown command: nonsense" in shown
    assert "STATE" in shown
    assert json.loads(run("-s", path_of(one), "-j", "-c", "show stats"))["pid"] == one.pid
    assert "Error: Unknown command: fly" in run("-s", path_of(one), "-c", "fly", code=1)
    # The end of the input is a way to leave, too.
    run("-s", path_of(one), input="help\n")


def test_an_interrupted_prompt_leaves_with_130(server):
    one = server("hello:app")
    prompt = subprocess.Popen(
        [*CONTROL, "-s", str(path_of(one))],
        env={**clean_environment(), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # A shell that runs the tests in the background ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with prompt:
        assert "Connected" in prompt.stdout.readline()
        assert "quit" in prompt.stdout.readline()
        assert prompt.stdout.read(10) == "ferricorn>"
        status = Path(f"/proc/{prompt.pid}/stat")
        wait_until(lambda: ") S " in status.read_text(), "it waits for a line")
        prompt.send_signal(signal.SIGINT)
        assert prompt.wait(PATIENCE_S) == 130


def test_help_and_version():
    shown = run("--help")
    assert max(map(len, shown.splitlines())) <= 79
    assert "show requests" in shown
    assert re.fullmatch(r"ferricornc \(ferricorn \S+\)\n", run("-v"))
    assert "usage:" in run("--nonsense", code=2)
    assert "Cannot connect to /nowhere" in run("-s", "/nowhere", "-c", "help", code=1)


# -- many at once ----------------------------------------------------------------------------------


def test_clients_that_come_at_once_are_all_answered(server):
    """Also those that come while the master does something else."""
    one = server("hello:app")
    path = path_of(one)
    stop_process(one.pid)
    try:
        clients = [ctl.Client(path) for _ in range(100)]
    finally:
        os.kill(one.pid, signal.SIGCONT)
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
        for client in clients:
            assert client.ask("show stats")["workers_current"] == 1


def test_clients_that_idle_make_room(server):
    one = server("hello:app")
    path = path_of(one)
    idle = []
    for _ in range(300):
        idle.append(socket.socket(socket.AF_UNIX))
        idle[-1].connect(str(path))
    assert data(one, "show stats")["workers_current"] == 1
    for client in idle:
        client.close()


def test_a_master_without_a_descriptor_left_accepts_later_and_does_not_spin(server):
    one = server("hello:app")
    path = path_of(one)
    assert data(one, "show stats")
    limits = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (5, limits[1]))
    with Raw(path) as raw:
        raw.send(b'{"id": 1, "command": "show stats"}')
        before, began = cpu_seconds(one.pid), time.monotonic()
        one.log.wait("control_socket: accepting no new connections for a moment: .+ulimit -n")
        while time.monotonic() - began < 1:
            assert one.get("/").status == 200
            time.sleep(0.02)
        assert cpu_seconds(one.pid) - before < 0.1
        resource.prlimit(one.pid, resource.RLIMIT_NOFILE, limits)
        assert raw.receive()["status"] == "ok"
    assert len(one.log.wait("accepting no new connections")) == 1


def test_idle_clients_leave_the_arbiter_what_it_needs(server, tmp_path):
    """Those of the control socket and of `admin_bind` took all: no worker could boot, and no log be opened anew."""
    few = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *COMMAND)
    log, admin = tmp_path / "log", str(tmp_path / "admin")
    one = server("hello:app", "--admin-bind", f"unix:{admin}", "--access-logfile", str(log), command=few)
    own = len(descriptors(one.pid))
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            for path in (admin, str(path_of(one))):
                stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        # Without a place they wait at the listeners.
        wait_until(lambda: len(descriptors(one.pid)) > own + 4, "some are accepted")
        (before,) = one.workers()
        one.send_signal(signal.SIGTTIN)
        one.log.wait("Booting worker with pid", 2, 5)
        os.kill(before, signal.SIGKILL)
        one.log.wait("Booting worker with pid", 3, 5)
        log.rename(tmp_path / "rotated")
        one.send_signal(signal.SIGUSR1)
        wait_until(log.exists, "a new log", 5)
        assert one.get("/").status == 200
        with Client(admin, 5) as client:
            assert client.request("GET", "/live").status == 200
        assert data(one, "show stats")["workers_current"] == 2
    assert "Too many open files" not in one.log.text
