"""Name servers that do not answer: the master waits for none of them, and goes on when they do."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from test_admin_port import seconds_to_live
from test_control import ask, path_of

from harness import APPS, descriptors, kill_session, session_members, wait_until
from wire import Client, Disconnected

pytestmark = [pytest.mark.ours, pytest.mark.slow]

PRELOAD = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("names") / "names.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, APPS / "names.c", "-ldl"], check=True)
    return path


@pytest.fixture
def named(server, library, tmp_path):
    """A server whose names are answered by the library: `late.test` after the file `answer` is there."""
    env = {"LD_PRELOAD": str(library), "NAMES_ANSWER": str(tmp_path / "answer")}

    def start(*arguments, **options):
        return server("hello:app", "--graceful-timeout", "2", *arguments, env=env, **options)

    yield start
    for one in server.started:
        kill_session(one.pid)


@pytest.fixture
def answer(tmp_path):
    return (tmp_path / "answer").touch


def assert_master_answers(one, patience=1.5):
    seen = one.log.text.count("Handling signal: usr1")
    one.send_signal(signal.SIGUSR1)
    one.log.wait("Handling signal: usr1", seen + 1, patience)
    began = time.monotonic()
    assert re.search("PID", ask(one, "show workers"))
    assert time.monotonic() - began < patience


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serves_at(port):
    with contextlib.suppress(OSError, Disconnected), Client(("127.0.0.1", port), 2) as client:
        return client.request("GET", "/").status == 200
    return False


def reloadable(named, tmp_path, *arguments):
    config, port = tmp_path / "conf.py", free_port()

    def write(*lines):
        config.write_text("\n".join([f"bind = ['127.0.0.1:{port}']", *lines, ""]))

    write()
    one = named("-c", str(config), "--admin-bind", "127.0.0.1:0", *arguments, bind=[], workers=2)
    path_of(one)
    return one, write


# -- reload ----------------------------------------------------------------------------------------


@PRELOAD
def test_a_reload_to_a_name_that_is_not_answered_holds_nothing_up(named, tmp_path, preload):
    one, write = reloadable(named, tmp_path, *preload)
    write(f"bind += ['hanging.test:{free_port()}']")
    one.send_signal(signal.SIGHUP)
    one.log.wait("The reload is waiting: The name in .'hanging.test', .+ is not resolved yet")
    for number in [signal.SIGTTIN, signal.SIGTTOU, None]:
        if number:
            one.send_signal(number)
        assert_master_answers(one)
        assert seconds_to_live(one) < 1.5
        assert one.get("/").status == 200
    # Another reload takes its place.
    booted = len(one.booted())
    write("threads = 2")
    one.send_signal(signal.SIGHUP)
    one.log.wait("Booting worker", booted + 2)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(8) == 0


@PRELOAD
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_a_name(named, tmp_path, preload, number):
    one, write = reloadable(named, tmp_path, *preload)
    write(f"bind += ['hanging.test:{free_port()}']")
    one.send_signal(signal.SIGHUP)
    one.log.wait("The reload is waiting")
    began = time.monotonic()
    one.send_signal(number)
    assert one.wait_exit(8) == 0
    assert time.monotonic() - began < 5


@PRELOAD
def test_a_reload_goes_on_when_the_name_is_known(named, tmp_path, answer, preload):
    one, write = reloadable(named, tmp_path, *preload)
    first, second = free_port(), free_port()
    write(f"bind = ['late.test:{first}', 'late.test:{second}']")
    one.send_signal(signal.SIGHUP)
    one.log.wait("The reload is waiting")
    assert_master_answers(one)
    assert not serves_at(first)
    answer()
    wait_until(lambda: serves_at(first) and serves_at(second), "it serves there")
    assert one.log.text.count("Hang up: Master") == 1
    # The same name again, known by now.
    third = free_port()
    write(f"bind = ['late.test:{third}']")
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: serves_at(third) and not serves_at(first), "it serves at another port")
    assert one.stop() == 0


def test_a_reload_to_an_unknown_name_fails(named, tmp_path):
    one, write = reloadable(named, tmp_path)
    before = one.booted()
    write("bind += ['name.invalid:1']")
    one.send_signal(signal.SIGHUP)
    one.log.wait("Reload failed: Can't connect to .'name.invalid', 1.", patience=25)
    assert one.get("/").status == 200
    assert one.booted() == before


def test_an_upgrade_waits_beside_a_reload_that_waits(named, tmp_path):
    """USR2 while names are asked for: the new master has what the old one listens on."""
    one, write = reloadable(named, tmp_path)
    write(f"bind += ['hanging.test:{free_port()}']")
    one.send_signal(signal.SIGHUP)
    one.log.wait("The reload is waiting")
    write()
    one.send_signal(signal.SIGUSR2)
    one.log.wait(r"Listening at: ", 2)
    one.log.wait("Booting worker", 4)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(8) == 0
    one.log.wait("Master has been promoted.")
    assert one.get("/").status == 200


# -- start -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_start_that_waits_for_a_name_can_be_ended(named, number):
    one = named(bind=["hanging.test:0"], ready=False)
    one.log.wait("Starting ferricorn")
    one.send_signal(number)
    assert one.wait_exit(5) != 0


def test_a_start_goes_on_when_the_name_is_known(named, answer):
    one = named(bind=["late.test:0"], ready=False)
    one.log.wait("Starting ferricorn")
    answer()
    one.wait_ready()
    assert one.get("/").status == 200


def test_an_admin_address_that_is_not_answered_keeps_nothing_from_serving(named, answer):
    port = free_port()
    one = named("--admin-bind", f"late.test:{port}")
    assert one.get("/").status == 200
    assert_master_answers(one)
    answer()
    one.log.wait(f"Health and figures at: http://127.0.0.1:{port}")
    assert seconds_to_live(one) < 1.5


# -- logs ------------------------------------------------------------------------------------------


@pytest.fixture
def receiver():
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(20)
        yield receiver


@PRELOAD
def test_a_statsd_host_that_is_not_answered_holds_nothing_up(named, answer, receiver, preload):
    port = receiver.getsockname()[1]
    one = named("--statsd-host", f"late.test:{port}", "--admin-bind", "127.0.0.1:0", *preload, workers=2)
    path_of(one)
    for number in [signal.SIGTTIN, signal.SIGHUP, signal.SIGTTOU]:
        one.send_signal(number)
        assert_master_answers(one)
        assert seconds_to_live(one) < 1.5
        assert one.get("/").status == 200
    answer()

    def is_counted():
        assert one.get("/").status == 200
        with contextlib.suppress(TimeoutError):
            receiver.settimeout(0.2)
            return re.search(rb"gunicorn\.requests:1\|c", receiver.recv(65536))

    wait_until(is_counted, "a worker's metrics come", 20)

    changes = itertools.cycle([signal.SIGTTIN, signal.SIGTTOU])

    def is_gauged():
        """The master sends it when it changes."""
        one.send_signal(next(changes))
        with contextlib.suppress(TimeoutError):
            while True:
                if re.search(rb"gunicorn\.workers:\d+\|g", receiver.recv(65536)):
                    return True

    wait_until(is_gauged, "the master's metrics come", 20)
    assert one.stop() == 0


@PRELOAD
def test_a_syslog_host_of_a_reload_that_is_not_answered_holds_nothing_up(named, tmp_path, answer, receiver, preload):
    one, write = reloadable(named, tmp_path, *preload)
    write("syslog = True", f"syslog_addr = 'udp://late.test:{receiver.getsockname()[1]}'")
    one.send_signal(signal.SIGHUP)
    one.log.wait("Booting worker", 4)
    assert_master_answers(one)
    assert one.get("/").status == 200
    answer()

    def is_logged():
        one.send_signal(signal.SIGUSR1)
        with contextlib.suppress(TimeoutError):
            receiver.settimeout(0.2)
            return b"Handling signal: usr1" in receiver.recv(65536)

    wait_until(is_logged, "the master logs there", 20)
    assert one.stop() == 0


def test_what_asks_for_a_name_leaves_with_nothing_of_the_server(named, tmp_path):
    """It is no child of the master, has none of its sockets and streams, and is gone in time."""
    one, write = reloadable(named, tmp_path)
    before = set(session_members(one.pid))
    write(f"bind += ['hanging.test:{free_port()}']")
    one.send_signal(signal.SIGHUP)
    one.log.wait("The reload is waiting")
    (asking,) = set(session_members(one.pid)) - before
    targets = descriptors(asking)
    assert not [target for target in targets.values() if target.startswith(("socket:", "/", "anon_inode:"))], targets
    assert asking not in one.workers()
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(8) == 0
    one.log.join(5)
    wait_until(lambda: asking not in session_members(one.pid), "it has ended", 25)
