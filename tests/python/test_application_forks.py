"""Applications fork, start programs and leave children behind: no worker notices, and no child has anything of it.

Children live until the test has looked at them; `children` ends those that are left.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from test_health import ask, figure

from harness import APPS, COMMAND, Server, kill_session, wait_until
from wire import Client, Disconnected, Response, encode_request

APP = "forks"
FORKS = ["python", "raw"]


def is_missing(library):
    return pytest.mark.skipif(not importlib.util.find_spec(library), reason=f"{library} is not installed")


# What a worker's requests run as.
GEVENT = pytest.param("gevent", marks=[pytest.mark.ours, is_missing("gevent")])
EVENTLET = pytest.param("eventlet", marks=[pytest.mark.ours, is_missing("eventlet")])
UNDER_EVENTLET = {
    "test_terminating_a_process_ends_it_and_not_its_worker",
    "test_a_signal_to_a_child_ends_the_child_alone",
    "test_a_child_that_leaves_the_application_ends_and_answers_nobody",
    "test_a_child_that_leaves_in_the_middle_of_a_stream_ends_and_answers_nobody",
    "test_a_child_cannot_answer_for_its_worker",
    "test_a_daemon_of_the_application_lives_when_its_worker_is_replaced",
    "test_a_program_has_no_descriptor_of_the_server",
    "test_a_child_has_no_descriptor_of_the_server",
    "test_an_answer_that_closes_ends_the_connection_although_a_child_lives",
}


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames:
        more = [EVENTLET] if metafunc.function.__name__ in UNDER_EVENTLET else []
        metafunc.parametrize("kind", ["threads", GEVENT, *more])


@pytest.fixture
def server(server, kind):
    """As elsewhere, with workers of each kind."""
    if kind == "threads":
        return server

    def start(*arguments, **options):
        return server(*arguments, "-k", kind, **options)

    start.started = server.started
    return start


@pytest.fixture(autouse=True)
def children(server, gates):
    """Ends what the application has left behind, and the servers by force: how they end is said by the tests."""
    yield
    for pid in map(int, gates.notes("child")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for one in server.started:
        kill_session(one.pid)


def child_of(gates) -> int:
    return int(gates.wait_notes("child")[-1])


def get(one: Server, target: str) -> Response:
    """With less patience than usual: some of what is asked here hangs when it fails."""
    with one.connect(8) as client:
        return client.request("GET", target, [("Connection", "close")])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def assert_goes_on(one: Server, worker: int, client: Client) -> None:
    """The worker answers on the connection that it had, says nothing of an end, and is not replaced."""
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        answer = client.request("GET", "/pid")
        assert (answer.text, answer.header("Connection")) == (str(worker), "keep-alive")
    assert one.get("/pid").text == str(worker)
    assert one.booted() == [worker], one.log.text
    assert "Worker exiting" not in one.log.text


@contextlib.contextmanager
def watched(server, *arguments, **options):
    """A server with one worker, which must be the same at the end, on the same connection."""
    one = server(APP, "--threads", "4", *arguments, **options)
    (worker,) = one.booted()
    with one.connect() as client:
        assert client.request("GET", "/pid").text == str(worker)
        yield one, worker
        assert_goes_on(one, worker, client)


# -- a child is ended ------------------------------------------------------------------------------


@pytest.mark.ours
def test_terminating_a_process_ends_it_and_not_its_worker(server):
    with watched(server) as (one, _):
        assert get(one, "/terminated").text == str(-signal.SIGTERM)


@pytest.mark.ours
@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT", "ABRT", "USR1", "HUP", "KILL"])
def test_a_signal_to_a_child_ends_the_child_alone(server, gates, name):
    """A request that the worker is in meanwhile is not cut either."""
    with watched(server) as (one, worker), one.connect() as held:
        held.send_request("GET", "/block?gate=held")
        gates.wait_reached("held")
        ended = get(one, f"/signalled?signal={name}").text
        # An interrupt is KeyboardInterrupt in Python; everything else does what the system does.
        assert ended in ({"-2", "0", "1", "70", "130"} if name == "INT" else {str(-getattr(signal, f"SIG{name}"))})
        gates.open("held")
        assert held.read_response().text == f"unblocked {worker}"


@pytest.mark.ours
@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT"])
@pytest.mark.parametrize("fork", ["c", "raw"])
def test_a_signal_to_a_child_that_python_does_not_know_ends_the_child_alone(server, fork, name):
    with watched(server) as (one, _):
        ended = get(one, f"/signalled?signal={name}&fork={fork}").text
        assert ended == str(-getattr(signal, f"SIG{name}"))


@pytest.mark.ours
def test_a_child_catches_no_signal_for_the_worker(server):
    blocked, caught, wakeup = json.loads(server(APP).get("/dispositions").text)
    assert int(blocked, 16) == 0
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGWINCH):
        assert not int(caught, 16) >> (number - 1) & 1, number.name
    assert int(caught, 16) >> (signal.SIGALRM - 1) & 1, "the application's own"
    assert wakeup == -1, "Python writes to the worker's descriptor"


def test_a_program_starts_with_the_signals_of_any_program(server):
    """What is blocked or ignored survives an exec, also what was when these tests were started."""
    status = Path("/proc/self/status").read_text()
    before = int(re.search(r"SigIgn:\s(\w+)", status)[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python's own.
        before &= ~(1 << (number - 1))
    for line in server(APP).get("/program_signals").text.splitlines():
        assert int(line.split("\t")[1], 16) & ~before == 0, line


def test_what_the_application_says_about_signals_holds_in_its_children(server, gates):
    with watched(server) as (one, _):
        child = one.get("/own_handler").text
        assert gates.wait_notes("handled") == [child]


@pytest.mark.ours
def test_a_pool_of_processes_works_and_its_worker_goes_on(server, kind):
    if kind != "threads":
        pytest.skip("its threads wait for pipes in the kernel, which as greenlets stops the hub, with no server at all")
    with watched(server) as (one, _):
        assert get(one, "/pool?times=15").text == str(15 * 285)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_process_pool_executor_works_and_its_worker_goes_on(server, method):
    with watched(server) as (one, _):
        assert get(one, f"/executor?method={method}").text == "285"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_process_works_and_its_worker_goes_on(server, method):
    with watched(server) as (one, _):
        assert get(one, f"/process?method={method}").text == "0"


# -- a child leaves by the server's door -----------------------------------------------------------


LEAVING = ["/returns", "/exits", "/raises?what=ValueError", "/raises?what=SystemExit", "/raises?what=KeyboardInterrupt"]


@pytest.mark.ours
@pytest.mark.parametrize("target", LEAVING)
def test_a_child_that_leaves_the_application_ends_and_answers_nobody(server, gates, target):
    with watched(server) as (one, worker), one.connect() as client:
        assert client.request("GET", target).text == f"parent {worker}"
        child = child_of(gates)
        wait_until(lambda: not is_alive(child), "the child ends", 3)
        assert client.request("GET", "/pid").text == str(worker), "the next answer is the next request's"


@pytest.mark.ours
def test_a_child_that_leaves_does_not_wait_for_its_threads(server, gates):
    with watched(server) as (one, worker):
        assert one.get("/returns_with_thread").text == f"parent {worker}"
        child = child_of(gates)
        wait_until(lambda: not is_alive(child), "the child ends", 3)
        one.log.wait(rf"Process {child} was forked by the application")


@pytest.mark.ours
def test_a_child_cannot_answer_for_its_worker(server, gates):
    with watched(server) as (one, worker), one.connect() as client:
        refused = json.loads(client.request("GET", "/late_use").text)
        assert refused == ["this process was forked by the application: it cannot respond"] * 2
        assert client.request("GET", "/pid").text == str(worker)


RETURNING = """
import os, gate

def {hook}({arguments}):
    pid = os.fork()
    if pid:
        gate.note("child", pid)
"""


@pytest.mark.ours
@pytest.mark.parametrize("hook", ["on_starting", "when_ready", "post_fork", "post_worker_init"])
def test_a_child_of_a_hook_that_returns_is_no_second_server(server, gates, tmp_path, hook):
    config = tmp_path / "conf.py"
    config.write_text(RETURNING.format(hook=hook, arguments=HOOKS[hook]))
    with watched(server, "-c", str(config), "--pythonpath", str(APPS), env={"PYTHONPATH": str(APPS)}) as (one, _):
        child = child_of(gates)
        wait_until(lambda: not is_alive(child), "the child ends", 3)
        one.log.wait(rf"Process {child} was forked by the application")


@pytest.mark.ours
def test_a_child_that_the_import_forks_is_no_second_worker(server, gates, tmp_path):
    (tmp_path / "forking.py").write_text(
        "import os, gate\nfrom forks import application\npid = os.fork()\nif pid:\n    gate.note('child', pid)\n"
    )
    one = server("forking:application", "--pythonpath", str(APPS), cwd=tmp_path)
    child = child_of(gates)
    wait_until(lambda: not is_alive(child), "the child ends", 3)
    assert one.get("/pid").text == str(one.booted()[0])
    assert one.stop() == 0


@pytest.mark.ours
def test_a_child_that_leaves_in_the_middle_of_a_stream_ends_and_answers_nobody(server, gates):
    with watched(server) as (one, worker), one.connect() as client:
        assert client.request("GET", "/pieces?fork=yes").text == "piece 0\npiece 1\npiece 2\n"
        child = child_of(gates)
        wait_until(lambda: not is_alive(child), "the child ends", 3)
        assert client.request("GET", "/pid").text == str(worker)


@pytest.mark.ours
def test_a_child_counts_for_nothing(server, gates):
    """Neither as a request, nor as a busy thread."""
    one = server(APP, "--threads", "2", "--admin-bind", "127.0.0.1:0")
    for _ in range(3):
        assert one.get("/returns").text == f"parent {one.booted()[0]}"
    wait_until(lambda: figure(one, "requests_total") >= 3, "three are counted")
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not any(is_alive(int(pid)) for pid in gates.notes("child")), "the children end", 2)
    assert figure(one, "requests_total") == 3
    assert figure(one, "threads_busy") == 0
    assert figure(one, "errors_total") == 0


# -- a child lives on ------------------------------------------------------------------------------


LEFT = ["/left", "/left?fork=c", "/left?fork=raw", "/left_process?daemon=yes", "/daemon"]


@pytest.mark.ours
@pytest.mark.parametrize("target", LEFT)
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
def test_a_server_stops_at_once_although_a_child_lives(server, gates, target, preload):
    one = server(APP, "--threads", "2", *preload)
    one.get(target)
    child_of(gates)
    began = time.monotonic()
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(8) == 0
    assert time.monotonic() - began < 3


def test_a_stop_does_not_wait_longer_than_graceful_timeout_for_a_child(server, gates):
    """Python joins processes that are no daemons when it ends."""
    one = server(APP, "--graceful-timeout", "1")
    one.get("/left_process")
    child_of(gates)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(6) == 0


@pytest.mark.ours
@pytest.mark.parametrize("target", ["/left", "/left?fork=c", "/left?fork=raw", "/daemon"])
def test_a_child_does_not_keep_the_address(server, gates, target):
    """Another server can have it at once, and gets every connection."""
    one = server(APP)
    one.get(target)
    child = child_of(gates)
    one.send_signal(signal.SIGTERM)
    one.wait_exit()
    assert is_alive(child), "it is not the server's to end"
    with contextlib.closing(socket.socket()) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(one.address)
    two = server(APP, bind=[f"127.0.0.1:{one.port}"])
    for _ in range(5):
        assert two.get("/pid").text == str(two.booted()[0])


@pytest.mark.ours
@pytest.mark.parametrize("arguments", [("--reuse-port",), ("--preload",)], ids=["reuse_port", "preload"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_child_by_a_bare_system_call_keeps_no_queue(server, gates, arguments, number):
    one = server(APP, *arguments, workers=2)
    one.get("/left?fork=raw")
    child = child_of(gates)
    one.send_signal(number)
    assert one.wait_exit() == 0
    assert is_alive(child)
    two = server(APP, bind=[f"127.0.0.1:{one.port}"])
    for _ in range(5):
        assert two.get("/pid").text == str(two.booted()[0])


@pytest.mark.ours
def test_a_child_by_a_bare_system_call_does_not_keep_an_address_that_a_reload_drops(server, gates, tmp_path):
    config = tmp_path / "conf.py"
    config.write_text("bind = ['127.0.0.1:0']\n")
    one = server(APP, "-c", str(config), bind=[])
    one.get("/left?fork=raw")
    child_of(gates)
    config.write_text(f"bind = ['unix:{tmp_path}/s']\n")
    before = one.address
    one.send_signal(signal.SIGHUP)
    one.log.wait(f"Listening at: unix:{tmp_path}/s")

    def is_refused():
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex(before) != 0

    wait_until(is_refused, "the address is left")
    two = server(APP, bind=[f"127.0.0.1:{before[1]}"])
    assert two.get("/pid").text == str(two.booted()[0])
    # And it can be had back.
    assert two.stop() == 0
    config.write_text(f"bind = ['127.0.0.1:{before[1]}']\n")
    one.send_signal(signal.SIGHUP)
    one.log.wait(f"Listening at: http://127.0.0.1:{before[1]}", 2)
    wait_until(lambda: not is_refused(), "it listens there again")
    assert one.get("/pid").status == 200


@pytest.mark.ours
def test_a_stop_ends_no_socket_that_a_new_master_listens_on(server, gates):
    """The child of the old master's worker keeps it, too; it goes when the new master stops."""
    one = server(APP, "--threads", "2", workers=2)
    one.get("/left?fork=raw")
    child_of(gates)
    one.send_signal(signal.SIGUSR2)
    new = int(one.log.wait(r"Listening at: .+ \((\d+)\)$", 2)[1].group(1))
    one.log.wait("Booting worker", 4)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit() == 0
    one.log.wait("Master has been promoted.")
    for _ in range(5):
        assert one.get("/pid").status == 200
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not is_alive(new), "the new master has gone")
    with contextlib.closing(socket.socket()) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(one.address)


def test_a_daemon_of_the_application_lives_when_its_worker_is_replaced(server, gates):
    one = server(APP)
    one.get("/daemon")
    child = child_of(gates)
    (old,) = one.booted()
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: not is_alive(old), "the old worker has gone", 5)
    assert is_alive(child)


# -- the end of a connection -----------------------------------------------------------------------


def end_of(client: Client, patience: float = 2.0) -> str:
    """What the client sees behind the last byte."""
    client.socket.settimeout(patience)
    try:
        return "end" if client.socket.recv(1) == b"" else "more"
    except TimeoutError:
        return "silence"
    except ConnectionResetError:
        return "reset"


@contextlib.contextmanager
def inherited(server, fork, *arguments, **options):
    """A connection that a living child has inherited; what happens to it at its end?"""
    one = server(APP, "--threads", "2", *arguments, **options)
    with one.connect() as client:
        assert client.request("GET", "/pid").status == 200
        assert one.get(f"/left?fork={fork}").status == 200
        yield one, client


@pytest.mark.parametrize("fork", FORKS)
def test_an_answer_that_closes_ends_the_connection_although_a_child_lives(server, fork):
    with inherited(server, fork) as (_, client):
        client.send_request("GET", "/pid", [("Connection", "close")])
        assert client.read_response().header("Connection") == "close"
        assert end_of(client) == "end"


@pytest.mark.parametrize("fork", FORKS)
def test_a_body_without_length_ends_although_a_child_lives(server, fork):
    with inherited(server, fork) as (_, client):
        client.send_request("GET", "/pieces", version="HTTP/1.0")
        assert client.read_head().header("Content-Length") is None
        assert client.read_exactly(24) == b"piece 0\npiece 1\npiece 2\n"
        assert end_of(client) == "end"


@pytest.mark.parametrize("fork", FORKS)
def test_a_refusal_ends_the_connection_although_a_child_lives(server, fork):
    with inherited(server, fork) as (_, client):
        client.send(b"GET / HTTP/1.1\r\nno colon\r\n\r\n")
        assert client.read_response().status == 400
        assert end_of(client) == "end"


@pytest.mark.ours
@pytest.mark.parametrize("fork", FORKS)
def test_an_idle_connection_ends_although_a_child_lives(server, fork):
    with inherited(server, fork, "--keep-alive", "1") as (_, client):
        assert end_of(client, 4) == "end"


@pytest.mark.ours
@pytest.mark.parametrize("fork", FORKS)
def test_idle_connections_end_with_the_server_although_a_child_lives(server, fork):
    with inherited(server, fork) as (one, client):
        one.send_signal(signal.SIGTERM)
        assert one.wait_exit() == 0
        assert end_of(client) == "end"


@pytest.mark.ours
@pytest.mark.parametrize("fork", FORKS)
def test_a_body_that_breaks_off_ends_in_a_reset_although_a_child_lives(server, gates, fork):
    """An end in good order would make it look whole."""
    with inherited(server, fork) as (one, client):
        client.send_request("GET", "/broken", version="HTTP/1.0")
        assert client.read_head().status == 200
        assert client.read_exactly(5) == b"first"
        gates.wait_reached("break")
        gates.open("break")
        assert end_of(client) == "reset"


@pytest.mark.ours
@pytest.mark.parametrize("fork", FORKS)
def test_a_chunked_body_that_breaks_off_ends_although_a_child_lives(server, gates, fork):
    with inherited(server, fork) as (one, client):
        client.send_request("GET", "/broken")
        assert client.read_head().is_chunked
        assert client.read_chunk() == b"first"
        gates.wait_reached("break")
        gates.open("break")
        assert end_of(client) in ("end", "reset")


@pytest.mark.ours
@pytest.mark.parametrize("fork", FORKS)
def test_a_client_that_is_too_slow_is_ended_although_a_child_lives(server, fork):
    with inherited(server, fork, env={"FERRICORN_CLIENT_HEADER_TIMEOUT": "1"}) as (_, client):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Half")
        assert client.read_response().status == 408
        assert end_of(client, 4) == "end"


def test_a_connection_on_a_unix_socket_ends_although_a_child_lives(server, tmp_path):
    with inherited(server, "raw", bind=[f"unix:{tmp_path}/s"]) as (_, client):
        client.send_request("GET", "/pid", [("Connection", "close")])
        assert client.read_response().status == 200
        assert end_of(client) == "end"


@pytest.mark.ours
def test_clients_of_a_killed_worker_see_the_end_although_a_child_lives(server):
    """No one is left to send it, so the child must not have the socket."""
    with inherited(server, "python") as (one, client):
        os.kill(one.booted()[0], signal.SIGKILL)
        assert end_of(client) in ("end", "reset")


def test_a_request_behind_a_killed_worker_is_not_left_with_its_child(server):
    """Nor does the child hold the listener's queue: the next connection is the next worker's."""
    with inherited(server, "python") as (one, _):
        os.kill(one.booted()[0], signal.SIGKILL)
        assert one.get("/pid").text == str(one.log.wait(r"Booting worker with pid: (\d+)", 2)[1].group(1))


# -- what children and programs have ---------------------------------------------------------------


EVERYTHING = (
    "--access-logfile", "access.log", "--error-logfile", "error.log", "--pid", "pidfile",
    "--admin-bind", "127.0.0.1:0", "--statsd-host", "127.0.0.1:9", "--log-syslog", "--log-syslog-to", "udp://127.0.0.1:9",
    "--reload", "--worker-tmp-dir", ".",
)  # fmt: skip
PROGRAMS = ["run_open", "run_shell", "run_spawn", "run_exec", "run_terminal", "run_c"]


def started_with(server, tmp_path, arguments):
    """Two workers, two listeners and logs in files; a large body is in a file, and a connection is open."""
    path = tmp_path / "s"
    one = server(
        "forks:application", "--threads", "2", "--pythonpath", str(APPS), *arguments,
        bind=(f"unix:{path}", "127.0.0.1:0"), cwd=tmp_path, ready=False,
    )  # fmt: skip
    one.address = str(path)

    def answers():
        with contextlib.suppress(OSError, Disconnected):
            return one.get("/pid").status == 200

    wait_until(answers, "it serves")
    return one


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_has_no_descriptor_of_the_server(server, tmp_path, program):
    answer = started_with(server, tmp_path, ()).get(f"/{program}")
    assert answer.status == 200
    found = json.loads(answer.text)
    assert set(found) <= {"0", "1", "2"}, found


@pytest.mark.ours
@pytest.mark.parametrize("program", ["run_open", "run_c"])
def test_a_program_has_no_descriptor_of_a_server_with_everything_on(server, tmp_path, program):
    one = started_with(server, tmp_path, EVERYTHING)
    with one.connect() as upload:
        upload.send_request("POST", "/pid", [("Content-Length", str(3 << 20))], b"x" * (2 << 20))
        answer = one.get(f"/{program}")
    assert answer.status == 200
    found = json.loads(answer.text)
    assert set(found) <= {"0", "1", "2"}, found


@pytest.mark.ours
@pytest.mark.parametrize("everything", [False, True], ids=["plain", "everything"])
@pytest.mark.parametrize("fork", ["python", "c"])
def test_a_child_has_no_descriptor_of_the_server(server, tmp_path, kind, fork, everything):
    one = started_with(server, tmp_path, EVERYTHING if everything else ())
    with one.connect() as upload:
        upload.send_request("POST", "/pid", [("Content-Length", str(3 << 20))], b"x" * (2 << 20))
        answer = one.get(f"/listed?fork={fork}")
    assert answer.status == 200
    found = json.loads(answer.text)
    # A hub has its set of descriptors in children too.
    others = (".log", "urandom") if kind == "threads" else (".log", "urandom", "[eventpoll]", "[eventfd]")
    found = {number: target for number, target in found.items() if not target.endswith(others)}
    assert set(found) <= {"0", "1", "2"}, found


@pytest.mark.ours
@pytest.mark.parametrize("fork", ["python", "c"])
def test_a_child_cannot_write_to_the_servers_memory(server, fork):
    shared = server(APP).get(f"/mapped?fork={fork}").text.splitlines()
    assert [line for line in shared if "/dev/shm/" not in line] == []


@pytest.mark.ours
def test_a_server_can_be_started_from_a_view(server, gates):
    """It takes nothing for its own that belongs to the first."""
    with watched(server) as (one, _):
        two = int(one.get("/server").text)
        os.kill(two, signal.SIGTERM)
        wait_until(lambda: not is_alive(two), "the second has gone", 5)


def test_a_child_may_use_what_it_finds(server, gates):
    """It logs as its parent does, and ends."""
    with watched(server) as (one, _):
        assert get(one, "/busy_child").text == "0"
        one.log.wait("printed by a child")


@pytest.mark.ours
def test_many_children_under_load_all_end(server, gates):
    """Whatever other threads of the worker hold at the moment of the fork, the child does not wait for it."""
    with watched(server, "--access-logfile", "-") as (one, _):
        others = [one.connect() for _ in range(6)]
        for other in others:
            other.send(encode_request("GET", "/pid") * 400)
        for _ in range(40):
            assert get(one, "/busy_child").text == "0"
        for other in others:
            for _ in range(400):
                assert other.read_response().status == 200
            other.close()


@pytest.mark.ours
@pytest.mark.parametrize("limit", ["", "?limit=0"], ids=["used_up", "lowered"])
def test_a_child_that_is_forked_with_no_descriptor_left_has_none_of_the_server(server, gates, kind, limit):
    if kind != "threads":
        pytest.skip("a hub needs descriptors to go on in the child")
    one = server(APP, "--threads", "2", command=("sh", "-c", 'ulimit -n 100; exec "$@"', "sh", *COMMAND))
    with one.connect() as client:
        assert client.request("GET", "/pid").status == 200
        assert one.get(f"/left_without_descriptors{limit}").status == 200
        child = child_of(gates)

        def is_bare() -> bool:
            """The parent may tell of the child before that has run its first instruction."""
            with contextlib.suppress(FileNotFoundError):
                targets = [str(entry.readlink()) for entry in Path(f"/proc/{child}/fd").iterdir()]
                return not any(target.startswith(("socket:", "anon_inode:")) for target in targets)
            return False

        wait_until(is_bare, "the child has nothing of the server")
        client.send_request("GET", "/pid", [("Connection", "close")])
        assert client.read_response().status == 200
        assert end_of(client) == "end"


# -- other processes of the server fork ------------------------------------------------------------


HOOKED = """
import os, signal, time

def {hook}({arguments}):
    if os.fork() == 0:
        # Not the parent: the child is what the tests send signals to, and it may not have begun.
        with open({notes!r}, "a") as notes:
            notes.write(f"{{os.getpid()}}\\n")
        time.sleep(60)
        os._exit(0)
"""


HOOKS = {"on_starting": "server", "when_ready": "server", "post_fork": "server, worker", "post_worker_init": "worker"}


def hooked(tmp_path, gates, hook) -> str:
    config = tmp_path / "conf.py"
    notes = str(gates.directory / "child.notes")
    config.write_text(HOOKED.format(hook=hook, arguments=HOOKS[hook], notes=notes))
    return str(config)


HOOK_SIGNALS = [
    ("on_starting", "TERM"),
    ("when_ready", "TERM"),
    ("when_ready", "INT"),
    ("when_ready", "QUIT"),
    ("post_fork", "TERM"),
    ("post_worker_init", "TERM"),
]


@pytest.mark.ours
@pytest.mark.parametrize(("hook", "name"), HOOK_SIGNALS)
def test_a_signal_to_a_child_of_a_hook_ends_the_child_alone(server, gates, tmp_path, hook, name):
    with watched(server, "-c", hooked(tmp_path, gates, hook)) as (one, worker):
        child = child_of(gates)
        os.kill(child, getattr(signal, f"SIG{name}"))
        wait_until(lambda: not is_alive(child), "the child ends", 3)
        assert one.get("/pid").text == str(worker)
    assert one.process.poll() is None


@pytest.mark.ours
@pytest.mark.parametrize("hook", list(HOOKS))
def test_a_child_of_a_hook_does_not_keep_the_address(server, gates, tmp_path, hook):
    one = server(APP, "-c", hooked(tmp_path, gates, hook))
    child = child_of(gates)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit() == 0
    assert is_alive(child)
    with contextlib.closing(socket.socket()) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(one.address)


# -- descriptors are taken away --------------------------------------------------------------------


def served_again(one: Server, patience: float) -> float:
    """Until somebody answers; new connections, as other clients have them."""
    began = time.monotonic()

    def answers():
        with contextlib.suppress(OSError, Disconnected), Client(one.address, 1) as client:
            return client.request("GET", "/pid").status == 200

    wait_until(answers, "a worker serves", patience)
    return time.monotonic() - began


CLOSING = """
import os, gate
def app(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    if name == "closerange":
        os.closerange(3, 1024)
    elif name == "all":
        os.closerange(0, 1024)
    elif name == "polls":
        for number in os.listdir("/proc/self/fd"):
            try:
                if "eventpoll" in os.readlink(f"/proc/self/fd/{number}"):
                    os.close(int(number))
            except OSError:
                pass
    elif name == "wakers":
        for number in os.listdir("/proc/self/fd"):
            try:
                if "eventfd" in os.readlink(f"/proc/self/fd/{number}"):
                    os.close(int(number))
            except OSError:
                pass
    elif name == "pipes":
        for number in os.listdir("/proc/self/fd"):
            try:
                if int(number) > 2 and "pipe" in os.readlink(f"/proc/self/fd/{number}"):
                    os.close(int(number))
            except OSError:
                pass
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("what", ["closerange", "all", "pipes", "polls", "wakers"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_without_descriptors_is_replaced_at_once(server, tmp_path, what, workers):
    (tmp_path / "closing.py").write_text(CLOSING)
    one = server("closing:app", "--threads", "2", "--pythonpath", str(APPS), cwd=tmp_path, workers=workers)
    with contextlib.suppress(OSError, Disconnected), Client(one.address, 1) as client:
        client.request("GET", f"/{what}")
    assert served_again(one, 4) < 3
    assert served_again(one, 4) < 2
    assert served_again(one, 4) < 2
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(5) == 0


@pytest.mark.ours
def test_a_worker_that_cannot_get_its_signal_ends_all_the_same(server, tmp_path):
    """The thread that looks for the arbiter's note blocks all signals, and sent this one to itself: 30 s passed."""
    own = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\n"
    (tmp_path / "closing.py").write_text(own + CLOSING)
    one = server("closing:app", "--threads", "2", "--pythonpath", str(APPS), cwd=tmp_path)
    with contextlib.suppress(OSError, Disconnected), Client(one.address, 1) as client:
        client.request("GET", "/pipes")
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(12) == 0


@pytest.mark.ours
def test_the_admin_port_answers_while_children_live(server, gates):
    one = server(APP, "--admin-bind", "127.0.0.1:0")
    one.get("/left")
    assert ask(one, "/live").status == 200
