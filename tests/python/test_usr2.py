"""USR2: a second master on the same sockets, promotion, roll-back, and upgrades from and to gunicorn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import GUNICORN, PATIENCE_S, session_members, wait_until
from load import Load
from wire import Client

pytestmark = pytest.mark.ours

CALM = {"keep_alive": 3, "one_shot": 3, "pause": 0.003}


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def second_master(one) -> int:
    """The pid of the new master, once its workers serve."""
    one.log.wait(r"Listening at: .+ \(\d+\)$", 2)
    pid = int(one.log.wait(r"Listening at: .+ \((\d+)\)$", 2)[1].group(1))
    assert pid != one.pid
    return pid


def gone(pid: int) -> bool:
    """Also when nobody has reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix:{}/one.sock", "reuse_port"])
def test_an_upgrade_loses_nothing_and_the_new_master_is_promoted(server, tmp_path, address):
    pidfile = tmp_path / "one.pid"
    reuse = ["--reuse-port"] if address == "reuse_port" else []
    bind = "127.0.0.1:0" if reuse else address.format(tmp_path)
    one = server("echo", "--threads", "2", "--pid", str(pidfile), *reuse, workers=2, bind=[bind])
    one.log.wait("Booting worker", 2)
    with Load(one.address, **CALM) as load:
        one.send_signal(signal.SIGUSR2)
        new = second_master(one)
        one.log.wait("Booting worker", 4)
        wait_until(lambda: len(load.counters.workers) >= 3, "a worker of the new master answers")
        assert pidfile.read_text() == f"{one.pid}\n"
        assert Path(f"{pidfile}.2").read_text() == f"{new}\n"
        os.kill(one.pid, signal.SIGTERM)
        assert one.wait_exit() == 0
        one.log.wait("Master has been promoted.")
        load.wait_answered(load.counters.answered + 30)
    try:
        assert load.counters.lost == 0, load.counters
        wait_until(lambda: pidfile.exists() and pidfile.read_text() == f"{new}\n", "the pidfile names the new master")
        assert not Path(f"{pidfile}.2").exists()
        assert one.get("/echo?x").status == 200
        os.kill(new, signal.SIGHUP)
        one.log.wait("Booting worker", 6)
        assert one.get("/echo?x").status == 200
    finally:
        os.kill(new, signal.SIGTERM)
    wait_until(lambda: not session_members(one.pid), "everything is gone")
    assert not pidfile.exists()
    if bind.startswith("unix:"):
        assert not Path(bind.removeprefix("unix:")).exists(), "the last one takes the socket file away"


def test_an_upgrade_can_be_taken_back_at_any_time(server, tmp_path):
    """WINCH leaves the old master without workers, HUP brings them back, then the new master goes."""
    pidfile, path = tmp_path / "one.pid", tmp_path / "one.sock"
    one = server("echo", "--threads", "2", "--pid", str(pidfile), workers=2, bind=[f"unix:{path}"])
    one.log.wait("Booting worker", 2)
    first = set(one.workers())
    with Load(one.address, **CALM) as load:
        one.send_signal(signal.SIGUSR2)
        new = second_master(one)
        one.log.wait("Booting worker", 4)
        wait_until(lambda: len(load.counters.workers) >= 3, "a worker of the new master answers")
        one.send_signal(signal.SIGWINCH)
        wait_until(lambda: not first & set(children(one.pid)), "the old workers have gone")
        one.send_signal(signal.SIGHUP)
        one.log.wait("Booting worker", 6)
        wait_until(lambda: len(children(one.pid)) == 3, "two workers and a master")
        back = {str(pid) for pid in children(one.pid)}
        wait_until(lambda: back & set(load.counters.workers), "the old master's workers answer")
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: gone(new) and new not in children(one.pid), "the new master has gone")
        load.wait_answered(load.counters.answered + 30)
    assert load.counters.lost == 0, load.counters
    assert pidfile.read_text() == f"{one.pid}\n"
    assert not Path(f"{pidfile}.2").exists()
    assert path.exists(), "the socket file is still the old master's"
    assert one.stop() == 0
    assert not path.exists()


def test_one_successor_at_a_time_and_a_broken_one_changes_nothing(server, tmp_path):
    config = tmp_path / "config.py"
    config.write_text("def pre_exec(arbiter):\n    arbiter.log.info('pre_exec in another process')\n")
    one = server("echo", "-c", str(config), "--threads", "2")
    config.write_text(config.read_text() + "workers = 'many'\n")
    one.send_signal(signal.SIGUSR2)
    one.log.wait("pre_exec in another process")
    one.log.wait(r"Upgrade failed: the new master \(pid:\d+\) ended with exit code 1")
    assert one.get("/echo?x").status == 200
    config.write_text("workers = 1\n")
    one.send_signal(signal.SIGUSR2)
    new = second_master(one)
    one.send_signal(signal.SIGUSR2)
    one.log.wait("USR2 signal ignored. Child exists")
    os.kill(new, signal.SIGUSR2)
    one.log.wait("USR2 signal ignored. Parent exists")
    os.kill(new, signal.SIGQUIT)
    wait_until(lambda: gone(new), "the new master has gone")
    assert one.get("/echo?x").status == 200


def test_a_changed_address_is_opened_by_the_new_master(server, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(f"bind = ['unix:{tmp_path}/a.sock', 'unix:{tmp_path}/b.sock']\n")
    one = server("echo", "-c", str(config), bind=[])
    config.write_text(f"bind = ['unix:{tmp_path}/b.sock', 'unix:{tmp_path}/c.sock']\n")
    one.send_signal(signal.SIGUSR2)
    new = second_master(one)
    one.log.wait("Booting worker", 2)
    os.kill(one.pid, signal.SIGTERM)
    one.wait_exit()
    one.log.wait("Master has been promoted.")
    for name in ("b", "c"):
        with Client(f"{tmp_path}/{name}.sock", PATIENCE_S) as client:
            assert client.request("GET", "/echo?x").status == 200
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not session_members(one.pid), "everything is gone")


@pytest.mark.parametrize("direction", ["from gunicorn", "to gunicorn"])
def test_gunicorn_and_the_server_upgrade_to_each_other(server, tmp_path, direction):
    """The names in the environment are gunicorn's: the program that USR2 executes may be either."""
    program = tmp_path / "program"
    ours, theirs = f"{sys.executable} -m ferricorn", " ".join(GUNICORN)
    first, second = (theirs, ours) if direction == "from gunicorn" else (ours, theirs)
    # USR2 repeats the command line, whose script the operator has exchanged meanwhile.
    script = (
        "import runpy, sys\nmodule, *options = open({!r}).read().split()\n"
        "sys.argv[1:1] = options\nrunpy.run_module(module, run_name='__main__')\n"
    )
    choice = tmp_path / "choice"
    program.write_text(script.format(str(choice)))
    choice.write_text(first.split(" -m ")[1])
    one = server("echo:application", "--threads", "2", command=[sys.executable, str(program)], workers=2)
    with Load(one.address, keep_alive=0, one_shot=3, pause=0.01) as load:
        choice.write_text(second.split(" -m ")[1])
        one.send_signal(signal.SIGUSR2)
        new = second_master(one)
        one.log.wait("Booting worker", 4)
        one.log.wait("Starting " + second.split(" -m ")[1].split()[0])
        wait_until(lambda: len(load.counters.workers) >= 3, "a worker of the new master answers")
        os.kill(one.pid, signal.SIGTERM)
        one.wait_exit()
        one.log.wait("Master has been promoted.")
        load.wait_answered(load.counters.answered + 10)
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not session_members(one.pid), "everything is gone")
    assert load.counters.refused == load.counters.wrong == 0, load.counters


def test_ps_shows_what_a_process_is(server):
    one = server("echo", "--name", "shop")
    (worker,) = one.workers()

    def shown(pid):
        line = ["ps", "-o", "args=", str(pid)]
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip()

    assert shown(one.pid) == "ferricorn: master [shop]"
    wait_until(lambda: shown(worker) == "ferricorn: worker [shop]", "the worker is named")
