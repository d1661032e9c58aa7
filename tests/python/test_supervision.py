"""Under systemd, as PID 1, as root: what surrounds the arbiter is told the truth and left in order."""

from __future__ import annotations

import os
import pwd
import re
import select
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from harness import APPS, COMMAND, PATIENCE_S, session_members, wait_until
from wire import Client

pytestmark = pytest.mark.ours


class Supervisor:
    """The socket of a service manager; every datagram is kept."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.said: list[str] = []

    def hear(self, patience: float) -> None:
        if select.select([self.socket], [], [], patience)[0]:
            self.said.append(self.socket.recv(4096).decode())

    def wait(self, pattern: str, patience: float = PATIENCE_S) -> re.Match[str]:
        """The first datagram with `pattern` since the last call; all before it are forgotten."""
        deadline = time.monotonic() + patience
        while True:
            for number, text in enumerate(self.said):
                if found := re.search(pattern, text, re.MULTILINE):
                    del self.said[: number + 1]
                    return found
            assert time.monotonic() < deadline, f"{pattern!r} was not said: {self.said}"
            self.hear(0.1)

    def collect(self) -> str:
        while select.select([self.socket], [], [], 0)[0]:
            self.hear(0)
        return "\n".join(self.said)


@pytest.fixture(params=["path", "abstract"])
def supervisor(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"@ferricorn-test-{os.getpid()}-{time.time_ns()}"
    one = Supervisor(name)
    yield one
    one.socket.close()


# -- systemd ---------------------------------------------------------------------------------------


def test_systemd_hears_the_states_when_they_are_true(server, supervisor, gates, tmp_path):
    (tmp_path / "gated.py").write_text("import gate\nfrom echo import application\ngate.wait('first')\n")
    one = server(
        "gated",
        "--pythonpath",
        str(APPS),
        cwd=tmp_path,
        env={"NOTIFY_SOCKET": supervisor.name, "WATCHDOG_USEC": "400000"},
    )
    gates.wait_reached("first")
    supervisor.wait("^STATUS=0 workers serving, 1 booting$")
    supervisor.wait("^WATCHDOG=1$")
    assert "READY" not in supervisor.collect(), "no worker has booted"
    gates.open("first")
    supervisor.wait("^READY=1\nSTATUS=1 worker serving$")
    before = time.monotonic_ns() // 1000
    one.send_signal(signal.SIGHUP)
    reloading = supervisor.wait(r"^RELOADING=1\nMONOTONIC_USEC=(\d+)$")
    assert before <= int(reloading.group(1)) <= time.monotonic_ns() // 1000
    supervisor.wait("^READY=1\nSTATUS=Reloaded$")
    (tmp_path / "gated.py").write_text("raise RuntimeError('broken')\n")
    one.send_signal(signal.SIGHUP)
    supervisor.wait("^RELOADING=1$")
    supervisor.wait("^READY=1\nSTATUS=Reload failed: the previous workers keep serving$")
    assert one.stop() == 0
    supervisor.wait("^STOPPING=1$")


def test_systemd_follows_an_upgrade(server, supervisor):
    one = server("echo", env={"NOTIFY_SOCKET": supervisor.name})
    supervisor.wait("^READY=1$")
    one.send_signal(signal.SIGUSR2)
    new = int(one.log.wait(r"started a new master \(pid:(\d+)\)")[0].group(1))
    supervisor.wait("^READY=1$")
    os.kill(one.pid, signal.SIGTERM)
    one.wait_exit()
    supervisor.wait(f"^MAINPID={new}$")
    supervisor.wait(f"^MAINPID={new}\nREADY=1$")
    assert "STOPPING" not in supervisor.collect()
    os.kill(new, signal.SIGTERM)
    supervisor.wait("^STOPPING=1$")
    wait_until(lambda: not session_members(one.pid), "everything is gone")


def activated(sockets, *, pid="own"):
    """A command that starts the server as systemd does: sockets from 3 on, and who they are meant for."""
    given = [one.fileno() for one in sockets]
    return [
        sys.executable,
        "-c",
        "import fcntl, os, sys\n"
        f"given = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in {given}]\n"
        "for place, fd in enumerate(given): os.dup2(fd, 3 + place)\n"
        f"os.environ['LISTEN_PID'] = str(os.getpid()) if {pid!r} == 'own' else {pid!r}\n"
        f"os.environ['LISTEN_FDS'] = '{len(given)}'\n"
        "os.execv(sys.executable, sys.argv[1:])",
        *COMMAND,
    ]


def listening(family, address):
    one = socket.socket(family, socket.SOCK_STREAM)
    one.bind(address)
    one.listen(64)
    os.set_inheritable(one.fileno(), True)
    return one


def test_sockets_of_systemd_are_served_and_survive(server, tmp_path):
    path = str(tmp_path / "activated.sock")
    with (
        listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp,
        listening(socket.AF_UNIX, path) as unix,
    ):
        # A request that came before the server did: systemd starts it for that one.
        early = Client(tcp.getsockname(), PATIENCE_S)
        early.send_request("GET", "/echo?early")
        one = server(
            "echo", command=activated([tcp, unix]), bind=["127.0.0.1:1"], pass_fds=[tcp.fileno(), unix.fileno()]
        )
        assert early.read_response().text.startswith("early ")
        early.close()
        with Client(path, PATIENCE_S) as client:
            assert client.request("GET", "/echo?x").status == 200
        first = set(one.workers())
        one.send_signal(signal.SIGHUP)
        wait_until(lambda: one.workers() and not first & set(one.workers()), "another worker")
        assert one.get("/echo?x").status == 200
        one.send_signal(signal.SIGUSR2)
        new = int(one.log.wait(r"started a new master \(pid:(\d+)\)")[0].group(1))
        one.log.wait("Booting worker", 3)
        os.kill(one.pid, signal.SIGTERM)
        one.wait_exit()
        one.log.wait("Master has been promoted.")
        assert one.get("/echo?x").status == 200
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not session_members(one.pid), "everything is gone")
        assert Path(path).exists(), "it is systemd's"


def test_sockets_meant_for_somebody_else_are_not_ours(server):
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp:
        one = server("echo", command=activated([tcp], pid="1"), pass_fds=[tcp.fileno()])
        assert one.address != tcp.getsockname()


def test_a_descriptor_can_be_an_address(server):
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp:
        one = server("echo", bind=[f"fd://{tcp.fileno()}"], pass_fds=[tcp.fileno()])
        assert one.address == tcp.getsockname()
        assert one.get("/echo?x").status == 200


def test_an_abstract_socket_has_no_file(server, tmp_path):
    name = f"ferricorn-test-{os.getpid()}-{time.time_ns()}"
    one = server("echo", bind=["127.0.0.1:0", f"unix:@{name}"], cwd=tmp_path, env={"PYTHONPATH": str(APPS)})
    with Client("\0" + name, PATIENCE_S) as client:
        assert client.request("GET", "/echo?x").status == 200
    assert f"unix:@{name}" in one.log.text
    assert not list(tmp_path.glob("@*"))


# -- PID 1, root, pidfile --------------------------------------------------------------------------


def test_orphans_of_the_application_are_reaped(server):
    """As PID 1 of a container; being a subreaper is the same without one."""
    adopting = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execv(sys.executable, sys.argv[1:])"
    one = server("identity", command=[sys.executable, "-c", adopting, *COMMAND])
    orphan = one.get("/orphan").text
    assert orphan.isdigit()
    wait_until(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan is reaped")
    assert one.get("/").status == 200
    assert one.log.text.count("Booting worker") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("groups", [[], ["--initgroups"]])
def test_the_application_is_imported_without_privileges(server, tmp_path, groups):
    nobody = pwd.getpwnam("nobody")
    path = tmp_path / "one.sock"
    # The interpreter may be installed where only root can read it; then that user can import nothing new.
    config = tmp_path / "config.py"
    config.write_text("import ast, faulthandler, inspect, logging, signal, threading, traceback\n")
    arguments = ["--user", "nobody", "--group", str(nobody.pw_gid), *groups]
    bind = ["127.0.0.1:0", f"unix:{path}"]
    one = server("identity", "-c", str(config), *arguments, bind=bind)
    uid, gid, rest = one.get().text.split(" ", 2)
    assert (int(uid), int(gid)) == (nobody.pw_uid, nobody.pw_gid)
    assert rest == f"[{nobody.pw_gid}]", "none of root's groups are left"
    assert path.stat().st_uid == nobody.pw_uid
    assert Path(f"/proc/{one.pid}").stat().st_uid == 0, "the arbiter goes on as it was"
    os.kill(one.pid, signal.SIGHUP)
    one.log.wait("Booting worker", 2)
    assert one.get().status == 200


def test_a_pidfile_left_by_a_dead_server_is_taken_over(server, tmp_path):
    pidfile = tmp_path / "one.pid"
    one = server("echo", "--pid", str(pidfile))
    assert pidfile.read_text() == f"{one.pid}\n"
    os.kill(one.pid, signal.SIGKILL)
    one.wait_exit()
    # The number belongs to somebody else by now: ourselves, who are older than the file, and pid 1.
    pidfile.write_text("1\n")
    os.utime(pidfile, (0, 0))
    two = server("echo", "--pid", str(pidfile))
    assert pidfile.read_text() == f"{two.pid}\n"
    three = server("echo", "--pid", str(pidfile), ready=False)
    assert three.wait_exit() == 1
    three.log.wait(f"Already running on PID {two.pid}")
    assert pidfile.read_text() == f"{two.pid}\n"
    assert two.stop() == 0
    assert not pidfile.exists()


@pytest.mark.parametrize("more", [(), ("--preload",)])
def test_a_nice_server_is_not_warned_of_its_forks(server, more):
    """CPython counts threads wrongly where a process's name has a space, and then warns on stderr at each fork."""
    one = server("hello:app", "-w", "2", *more, command=("nice", "-n", "5", *COMMAND))
    for pid in (one.pid, *one.workers()):
        assert " " not in Path(f"/proc/{pid}/comm").read_text()
    assert "DeprecationWarning" not in one.log.text
