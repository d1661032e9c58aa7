"""Whatever a fork server, a worker or a client does, the master answers: signals, health, commands."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from ferricorn import ctl
from harness import APPS, fork_servers, session_members, stop_process, wait_until
from wire import Client

pytestmark = pytest.mark.ours

# Under the load of a whole test run; the master needs milliseconds.
PROMPT_S = 1.5
APP = "hello:app"


@pytest.fixture(autouse=True)
def let_go_on(server):
    """Stopped processes go on at the end, so that they can be asked to leave."""
    yield
    for one in server.started:
        for pid in session_members(one.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def admin_of(one):
    host, port = one.log.wait(r"Health and figures at: http://(.+):(\d+)$")[0].groups()
    return host, int(port)


def control_of(one):
    return Path(one.log.wait(r"Control socket listening at (.+)$")[0].group(1))


def seconds(ask):
    began = time.monotonic()
    ask()
    return time.monotonic() - began


def live(one):
    with Client(admin_of(one), 5) as client:
        assert client.request("GET", "/live", [("Connection", "close")]).status == 200


def command(one):
    with ctl.Client(control_of(one)) as client:
        assert client.ask("show stats")


def signalled(one):
    """USR1 changes nothing in the workers' number."""
    seen = len(one.log.wait("Handling signal: usr1", 0))
    one.send_signal(signal.SIGUSR1)
    one.log.wait("Handling signal: usr1", seen + 1, patience=5)


def assert_prompt(one, what):
    for ask in (live, command, signalled):
        took = seconds(lambda ask=ask: ask(one))
        assert took < PROMPT_S, f"{ask.__name__} took {took:.1f} s: {what}"


@contextlib.contextmanager
def stopped(pid):
    with contextlib.suppress(ProcessLookupError):
        stop_process(pid)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def children_of(one):
    return [int(pid) for pid in Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split()]


def start(server, *arguments, workers=2, **options):
    # So long a timeout that stopped workers stay.
    common = ("--preload", "--timeout", "60", "--graceful-timeout", "2", "--admin-bind", "127.0.0.1:0")
    one = server(APP, *common, *arguments, workers=workers, **options)
    wait_until(lambda: len(one.booted()) == workers and len(fork_servers(one)) == 1, "fork server and workers")
    return one


@pytest.mark.parametrize("seed", [2, 15, 115])
def test_each_process_may_be_stopped_while_workers_come_and_go(server, seed):
    """Fork server and workers in an order by the seed; the number of workers changes meanwhile."""
    chance = random.Random(seed)
    one = start(server)
    for _ in range(4):
        pid = chance.choice([*children_of(one), *fork_servers(one)])
        change = chance.choice([signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP, None])
        with stopped(pid):
            if change:
                one.send_signal(change)
            assert_prompt(one, f"{pid} is stopped, {change} was sent (seed {seed})")
    assert one.get("/").status == 200


def test_a_stopped_fork_server_gives_the_workers_asked_for_once_it_goes_on(server):
    one = start(server)
    (fork_server,) = fork_servers(one)
    with stopped(fork_server):
        for number in range(1, 4):
            # One at a time: the kernel keeps no count of signals that wait.
            one.send_signal(signal.SIGTTIN)
            one.log.wait("Handling signal: ttin", number)
        assert_prompt(one, "three workers are asked for")
        assert len(children_of(one)) == 2
    wait_until(lambda: len(set(one.workers()) & set(one.booted())) == 5, "the workers come")


def test_a_pre_fork_that_hangs_in_the_fork_server_holds_up_nothing_else(server, gates, tmp_path):
    config = tmp_path / "conf.py"
    config.write_text("import gate\ndef pre_fork(server, worker):\n    gate.wait(f'fork-{worker.age}')\n")
    for age in (1, 2):
        gates.open(f"fork-{age}")
    one = start(server, "-c", str(config), "--pythonpath", str(APPS))
    one.send_signal(signal.SIGTTIN)
    gates.wait_reached("fork-3")
    assert_prompt(one, "pre_fork hangs")
    assert one.get("/").status == 200
    gates.open("fork-3")
    wait_until(lambda: len(set(one.workers()) & set(one.booted())) == 3, "the worker comes")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_is_not_held_up_by_a_stopped_fork_server(server, number):
    one = start(server)
    (fork_server,) = fork_servers(one)
    stop_process(fork_server)
    one.send_signal(number)
    assert one.wait_exit(8) == 0
    assert session_members(one.pid) == [], "it was killed"


# -- clients ---------------------------------------------------------------------------------------


def idle_clients(address, count, sent=b""):
    clients = []
    for _ in range(count):
        client = socket.create_connection(address, 5)
        client.sendall(sent)
        clients.append(client)
    return clients


@pytest.mark.parametrize("sent", [b"", b"GET /live HTTP/1.1\r\nHost:"], ids=["silent", "slow"])
def test_live_is_answered_beside_any_number_of_idle_clients(server, sent):
    one = server(APP, "--admin-bind", "127.0.0.1:0")
    clients = idle_clients(admin_of(one), 200, sent)
    try:
        for _ in range(10):
            assert_prompt(one, "200 idle clients")
    finally:
        for client in clients:
            client.close()


def test_live_is_answered_beside_clients_that_read_no_answer(server):
    one = server(APP, "--admin-bind", "127.0.0.1:0")
    clients = []
    for _ in range(100):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(admin_of(one))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        clients.append(client)
    assert_prompt(one, "100 clients that do not read")
    for client in clients:
        client.close()


def test_commands_are_answered_beside_clients_that_send_half_a_request_or_read_nothing(server):
    one = server(APP, "--admin-bind", "127.0.0.1:0")
    clients = []
    request = json.dumps({"id": 1, "command": "show config"}).encode()
    frame = struct.pack(">I", len(request)) + request
    for number in range(40):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(control_of(one)))
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.sendall(frame[:7] if number % 2 else frame * 400)
        clients.append(client)
    assert_prompt(one, "40 clients of the control socket")
    for client in clients:
        client.close()


def test_a_notify_socket_that_is_full_holds_up_nothing(server, tmp_path):
    path = tmp_path / "notify"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.sendto(b"STATUS=full", str(path))
    one = server(APP, "--admin-bind", "127.0.0.1:0", env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"})
    one.send_signal(signal.SIGTTIN)
    assert_prompt(one, "systemd reads nothing")
    listener.close()


def test_statsd_that_is_full_holds_up_nothing(server, tmp_path):
    path = tmp_path / "statsd"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.sendto(b"full:1|c", str(path))
    one = server(APP, "--admin-bind", "127.0.0.1:0", "--statsd-host", f"unix://{path}")
    one.send_signal(signal.SIGTTIN)
    assert_prompt(one, "statsd reads nothing")
    assert one.get("/").status == 200
    listener.close()


def test_a_worker_that_notifies_without_end_holds_up_nothing(server, tmp_path):
    """A worker may write to the pipe on which it reports as much as it likes."""
    (tmp_path / "flood.py").write_text(
        "import os, stat, threading\n"
        "def flood():\n"
        "    pipes = [int(n) for n in os.listdir('/proc/self/fd')]\n"
        "    pipes = [n for n in pipes if n > 2 and _is_pipe(n)]\n"
        "    while True:\n"
        "        for number in pipes:\n"
        "            try: os.write(number, b'!' * 4096)\n"
        "            except OSError: pass\n"
        "def _is_pipe(number):\n"
        "    try: return stat.S_ISFIFO(os.fstat(number).st_mode)\n"
        "    except OSError: return False\n"
        "def app(environ, start_response):\n"
        "    threading.Thread(target=flood, daemon=True).start()\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n"
        "    return [b'']\n"
    )
    # The flood fills the worker's own pipes, too, and the signal that stops it may find no room.
    patience = ("--graceful-timeout", "1")
    one = server("flood:app", "--admin-bind", "127.0.0.1:0", "--threads", "2", *patience, cwd=tmp_path)
    with contextlib.suppress(OSError):
        one.get("/")
    for _ in range(3):
        assert_prompt(one, "a flood of notifications")
