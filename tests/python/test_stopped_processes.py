"""The master waits for nobody: whichever process stands still, it answers, acts on signals, and ends in time."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from test_admin_port import seconds_to_live
from test_control import ask, path_of

from harness import APPS, fork_servers, kill_session, session_members, stop_process, wait_until
from wire import Client, Disconnected

pytestmark = [pytest.mark.ours, pytest.mark.slow]

ADMIN = ("--admin-bind", "127.0.0.1:0", "--graceful-timeout", "2")


@pytest.fixture(autouse=True)
def by_force(server):
    """Processes that stand still do not end by themselves."""
    yield
    for one in server.started:
        kill_session(one.pid)


def assert_master_answers(one, patience=1.0):
    """A signal without consequences, health, and the control interface; each within its second."""
    seen = one.log.text.count("Handling signal: usr1")
    one.send_signal(signal.SIGUSR1)
    one.log.wait("Handling signal: usr1", seen + 1, patience)
    assert seconds_to_live(one) < patience
    began = time.monotonic()
    assert re.search("PID|No workers running", ask(one, "show workers"))
    assert time.monotonic() - began < patience


def fork_server_of(one) -> int:
    (pid,) = fork_servers(one)
    return pid


def ready(server, *arguments, **options):
    """With `--preload`, and all of it there."""
    one = server("hello:app", "--preload", *ADMIN, *arguments, workers=2, **options)
    wait_until(lambda: len(one.booted()) == 2 and len(fork_servers(one)) == 1, "two workers and their fork server")
    path_of(one)
    return one


@pytest.mark.parametrize("why", ["ttin", "death"])
def test_a_fork_server_that_stands_still_does_not_hold_the_master(server, why):
    """A worker is wanted that cannot be had. Those that are there serve."""
    one = ready(server)
    stop_process(fork_server_of(one))
    if why == "ttin":
        one.send_signal(signal.SIGTTIN)
    else:
        os.kill(one.booted()[0], signal.SIGKILL)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        assert_master_answers(one)
        if why == "ttin":
            with Client(one.address, 2) as client:
                assert client.request("GET", "/").status == 200


def test_a_fork_server_that_stands_still_does_not_hold_the_stop(server):
    one = ready(server)
    stop_process(fork_server_of(one))
    one.send_signal(signal.SIGTTIN)
    one.send_signal(signal.SIGTERM)
    one.wait_exit(6)
    wait_until(lambda: not session_members(one.pid), "all of it has ended", 3)


# A stop that waits for `graceful_timeout` takes longer than any deadline here.
PATIENT = ("--graceful-timeout", "60")
ENDS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("before", [None, signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP])
def test_a_stop_without_workers_does_not_wait_for_a_fork_server_that_stands_still(server, number, before):
    """It has nothing to lose: no request is with it."""
    one = ready(server, *PATIENT)
    stop_process(fork_server_of(one))
    if before:
        one.send_signal(before)
        one.log.wait(f"Handling signal: {before.name[3:].lower()}")
    one.send_signal(number)
    assert one.wait_exit(15) == 0
    one.wait_gone()


@pytest.mark.parametrize("number", ENDS)
def test_a_stop_without_workers_does_not_wait_for_a_pre_fork_that_hangs(server, tmp_path, number):
    flag, config = tmp_path / "hang", tmp_path / "conf.py"
    config.write_text(HANGING.format(flag=str(flag)))
    one = ready(server, "-c", str(config), *PATIENT)
    flag.touch()
    one.send_signal(signal.SIGTTIN)
    assert_master_answers(one)
    one.send_signal(number)
    assert one.wait_exit(15) == 0
    one.wait_gone()


FLUSHING = """
import atexit, time
from pathlib import Path
import gate
from hello import app

def flush():
    if b"fork server" in Path("/proc/self/cmdline").read_bytes():
        time.sleep(2)
        gate.note("flushed", "all of it")

atexit.register(flush)
"""


def test_a_fork_server_has_the_time_to_flush_what_an_agent_has_collected(server, gates, tmp_path):
    (tmp_path / "flushing.py").write_text(FLUSHING)
    one = server("flushing:app", "--preload", "--pythonpath", str(APPS), cwd=tmp_path)
    wait_until(lambda: len(fork_servers(one)) == 1, "the fork server")
    assert one.stop() == 0
    assert gates.notes("flushed") == ["all of it"]


GATED = """
import gate

def app(environ, start_response):
    gate.wait("request")
    start_response("200 OK", [("Content-Length", "4")])
    return [b"done"]
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
def test_a_worker_that_stands_still_goes_on_for_its_requests_when_it_is_to_leave(
    server, gates, tmp_path, preload, number
):
    """As systemd has it. A KILL at the end of `graceful_timeout` would cut what is under way."""
    (tmp_path / "gated.py").write_text(GATED)
    one = server("gated:app", *preload, *ADMIN, *PATIENT, "--pythonpath", str(APPS), cwd=tmp_path)
    (worker,) = one.booted()
    with one.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        gates.wait_reached("request")
        stop_process(worker)
        gates.open("request")
        one.send_signal(number)
        assert client.read_response().body == b"done"
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), "it has left", 15)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_does_not_wait_for_a_worker_that_stands_still(server, number):
    one = server("hello:app", *ADMIN, *PATIENT, workers=2)
    stop_process(one.booted()[0])
    began = time.monotonic()
    assert one.stop(number) == 0
    assert time.monotonic() - began < 4, "it goes on, and leaves by itself"


@pytest.mark.parametrize("change", [signal.SIGTTOU, signal.SIGHUP])
def test_a_worker_that_stands_still_leaves_when_it_is_not_wanted_any_more(server, change):
    one = server("hello:app", *ADMIN, *PATIENT, workers=2)
    one.log.wait("Booting worker", 2)
    path_of(one)
    wait_until(lambda: ask(one, "show workers").count("serving") == 2, "both serve")
    before = one.booted()
    for pid in before:
        stop_process(pid)
    one.send_signal(change)
    left = 1 if change == signal.SIGTTOU else 0
    wait_until(lambda: len(set(before) & set(one.workers())) == left, "who is not wanted has left", 15)
    assert_master_answers(one)


def test_a_fork_server_that_goes_on_again_forks_the_worker_that_is_wanted(server):
    one = ready(server)
    pid = fork_server_of(one)
    stop_process(pid)
    one.send_signal(signal.SIGTTIN)
    one.log.wait("Handling signal: ttin")
    os.kill(pid, signal.SIGCONT)
    one.log.wait("Booting worker", 3, 8)
    assert one.get("/").status == 200


HANGING = """
import os, time
from pathlib import Path

def pre_fork(server, worker):
    if Path({flag!r}).exists():
        time.sleep(60)
"""


def test_a_pre_fork_hook_that_hangs_in_the_fork_server_does_not_hold_the_master(server, tmp_path):
    flag, config = tmp_path / "hang", tmp_path / "conf.py"
    config.write_text(HANGING.format(flag=str(flag)))
    one = ready(server, "-c", str(config))
    flag.touch()
    one.send_signal(signal.SIGTTIN)
    for _ in range(3):
        assert_master_answers(one)
    one.send_signal(signal.SIGTERM)
    one.wait_exit(6)


WANTED = {
    "none": [],
    "one": [signal.SIGTTIN],
    "none any more": [signal.SIGTTIN, signal.SIGTTOU],
}


@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
def test_a_reload_gets_past_a_fork_server_that_stands_still(server, wanted):
    """The new generation has a fork server of its own, and the old one is ended although it does not listen.

    A worker of the old one may be wanted, or was.
    """
    one = ready(server)
    old = fork_server_of(one)
    stop_process(old)
    for number in wanted:
        one.send_signal(number)
        assert_master_answers(one)
    one.send_signal(signal.SIGHUP)
    one.log.wait("Booting worker", 4, 8)
    assert_master_answers(one)
    wait_until(lambda: not Path(f"/proc/{old}").exists(), "the old fork server has gone", 8)


def test_an_import_that_hangs_in_the_fork_server_does_not_hold_the_master(server, tmp_path, gates):
    (tmp_path / "hanging.py").write_text("import gate\ngate.wait('import')\nfrom hello import app\n")
    one = server(
        "hanging:app", "--preload", *ADMIN, "--pythonpath", str(APPS), cwd=tmp_path, ready=False
    )  # fmt: skip
    gates.wait_reached("import")
    path_of(one)
    assert seconds_to_live(one) < 1
    one.send_signal(signal.SIGTERM)
    one.wait_exit(5)


def test_workers_that_stand_still_do_not_hold_the_master(server):
    one = server("hello:app", *ADMIN, workers=3)
    one.log.wait("Booting worker", 3)
    path_of(one)
    for pid in one.workers():
        stop_process(pid)
    for command in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP):
        one.send_signal(command)
        assert_master_answers(one)
    one.send_signal(signal.SIGTERM)
    one.wait_exit(8)
    wait_until(lambda: not session_members(one.pid), "all of it has ended", 3)


def test_a_worker_that_stands_still_at_its_boot_does_not_hold_the_master(server, tmp_path):
    """It stops itself in its import."""
    (tmp_path / "stopping.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n")
    one = server("stopping:app", *ADMIN, cwd=tmp_path, ready=False)
    one.log.wait("Booting worker")
    path_of(one)
    for _ in range(3):
        assert seconds_to_live(one) < 1
    one.send_signal(signal.SIGTERM)
    one.wait_exit(6)


@pytest.mark.parametrize("seed", range(3))
def test_whichever_process_stands_still_the_master_answers(server, seed):
    """Each process of a preloading server in turn, in some order; then the master is asked for what needs them."""
    order = random.Random(seed)
    one = ready(server)
    victims = [pid for pid in session_members(one.pid) if pid != one.pid]
    order.shuffle(victims)
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            stop_process(victim)
        for number in (signal.SIGTTIN, signal.SIGTTOU):
            one.send_signal(number)
            assert_master_answers(one)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)
        one.send_signal(order.choice([signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR1]))
        assert_master_answers(one)


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
def test_a_server_that_was_paused_as_a_whole_goes_on(server, preload):
    """As a container is, or a machine that sleeps: for longer than `timeout`."""
    one = server("hello:app", "--timeout", "2", *preload, workers=2)
    wait_until(lambda: one.get("/").status == 200, "it serves")
    before = one.booted()
    os.killpg(one.pid, signal.SIGSTOP)
    # When it goes on it has a signal to handle first, and hooks to call for it.
    one.send_signal(signal.SIGTTOU)
    time.sleep(3.2)
    os.killpg(one.pid, signal.SIGCONT)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert one.get("/").status == 200
        time.sleep(0.05)
    assert one.booted() == before
    assert "WORKER TIMEOUT" not in one.log.text


# -- others that the master talks to ---------------------------------------------------------------


def test_a_control_client_that_does_not_read_does_not_hold_the_master(server):
    one = server("hello:app", *ADMIN)
    path = path_of(one)
    clients = []
    for _ in range(8):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        client.setblocking(False)
        command = b'{"command": "show all", "id": 1}'
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            for _ in range(2000):
                client.send(len(command).to_bytes(4, "big") + command)
        clients.append(client)
    assert_master_answers(one)
    for client in clients:
        client.close()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_supervisor_that_does_not_read_does_not_hold_the_master(server, tmp_path, kind):
    """Its socket takes a few messages, and then no more."""
    name = str(tmp_path / "notify") if kind == "path" else f"\0ferricorn-test-{os.getpid()}-{time.time_ns()}"
    supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    supervisor.bind(name)
    variable = name if kind == "path" else "@" + name[1:]
    one = server("hello:app", *ADMIN, env={"NOTIFY_SOCKET": variable, "WATCHDOG_USEC": "20000"})
    path_of(one)
    # Ten watchdog messages fill it in a fifth of a second.
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        assert seconds_to_live(one) < 1
    one.send_signal(signal.SIGHUP)
    one.log.wait("Booting worker", 2, 4)
    assert_master_answers(one)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(5) == 0
    supervisor.close()


@pytest.mark.parametrize("kind", ["dgram", "stream"])
def test_a_syslog_that_stands_still_does_not_hold_anybody(server, tmp_path, kind):
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "dgram" else socket.SOCK_STREAM)
    daemon.bind(str(tmp_path / "log"))
    if kind == "stream":
        daemon.listen()
    arguments = ("--log-syslog", "--log-syslog-to", f"unix://{tmp_path}/log#{kind}", "--access-logfile", "-")
    one = server("hello:app", *ADMIN, *arguments)
    path_of(one)
    with one.connect(4) as client:
        for _ in range(500):
            assert client.request("GET", "/" + "x" * 500).status == 200
    assert_master_answers(one)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(5) == 0
    daemon.close()


def test_a_successor_that_stands_still_does_not_hold_the_old_master(server):
    """USR2, and the new master is stopped before it serves."""
    one = server("hello:app", *ADMIN, "--pid", str(Path(os.environ.get("TMPDIR", "/tmp")) / f"usr2-{os.getpid()}.pid"))
    path_of(one)
    before = set(session_members(one.pid))
    one.send_signal(signal.SIGUSR2)
    new = wait_until(lambda: set(session_members(one.pid)) - before, "another process")
    for pid in new:
        with contextlib.suppress(ProcessLookupError):
            stop_process(pid)
    assert_master_answers(one)
    assert one.get("/").status == 200
    one.send_signal(signal.SIGTERM)
    one.wait_exit(6)


def test_requests_go_on_while_the_master_stands_still(server):
    """Workers need nothing of it but their sockets."""
    one = server("hello:app", "--timeout", "2", workers=2)
    wait_until(lambda: one.get("/").status == 200, "it serves")
    stop_process(one.pid)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        with contextlib.suppress(Disconnected), Client(one.address, 2) as client:
            assert client.request("GET", "/").status == 200
        time.sleep(0.01)
    os.kill(one.pid, signal.SIGCONT)
    assert one.stop() == 0
    assert not re.search("WORKER TIMEOUT", one.log.text)
