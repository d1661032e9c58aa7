"""What watches a server from outside and counts its processes: the arbiter's children are workers, as in gunicorn.

Airflow's webserver monitor is the strictest: it wants as many children as workers, it takes those for ready whose title
its `post_worker_init` has marked, and it renews workers with TTIN and TTOU. After 120 s of another number it ends the
server.
"""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from harness import APPS, IS_OURS, fork_servers, stop_process, wait_until

READY = "[ready] "
MARKS_TITLE = f"""
import setproctitle
def post_worker_init(worker):
    setproctitle.setproctitle({READY!r} + setproctitle.getproctitle())
"""
APPLICATION = """
import os
def application(environ, start_response):
    try:
        found = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        found = "no child"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getppid()} {found}".encode()]
"""


class Monitor:
    """The counting rules of Airflow 2's `GunicornMonitor`."""

    def __init__(self, pid: int) -> None:
        self.master = psutil.Process(pid)

    def running(self) -> list[psutil.Process]:
        return psutil.Process(self.master.pid).children()

    def ready(self) -> int:
        def is_ready(worker: psutil.Process) -> bool:
            try:
                line = worker.cmdline()
            except psutil.NoSuchProcess:
                return False
            return bool(line) and READY in line[0]

        return sum(map(is_ready, self.running()))

    def wait(self, workers: int) -> None:
        wait_until(lambda: len(self.running()) == workers == self.ready(), f"{workers} workers, all ready")


@pytest.fixture
def preloaded(server, tmp_path):
    (tmp_path / "config.py").write_text(MARKS_TITLE)
    (tmp_path / "counted.py").write_text(APPLICATION)

    def start(*arguments, workers=2, **options):
        line = ("counted", "--preload", "--threads", "2", "-c", "config.py", *arguments)
        one = server(*line, workers=workers, cwd=tmp_path, **options)
        return one, Monitor(one.pid)

    return start


def test_a_monitor_that_renews_workers_sees_workers_only(preloaded):
    one, monitor = preloaded()
    monitor.wait(2)
    seen = {child.pid for child in monitor.running()}
    for _ in range(4):
        one.send_signal(signal.SIGTTIN)
        monitor.wait(3)
        one.send_signal(signal.SIGTTOU)
        monitor.wait(2)
        seen |= {child.pid for child in monitor.running()}
    assert len(seen) == 6, "each round has a new worker, and the oldest leaves"
    assert one.stop() == 0


def test_the_count_is_right_after_a_crash_of_each_worker_and_a_reload(preloaded):
    one, monitor = preloaded()
    monitor.wait(2)
    for _ in range(3):
        for victim in monitor.running():
            victim.kill()
            wait_until(lambda gone=victim: not gone.is_running(), "it is gone")
            monitor.wait(2)
    one.send_signal(signal.SIGHUP)
    one.log.wait("Booting worker with pid", 2 + 6 + 2)
    monitor.wait(2)
    assert one.stop() == 0


def test_the_count_is_right_while_workers_retire_by_themselves(preloaded):
    one, monitor = preloaded("--max-requests", "3")
    wait_until(lambda: one.get("/").status == 200 and len(one.booted()) >= 6, "four replacements")
    monitor.wait(2)
    assert one.stop() == 0


def test_a_worker_has_no_child_to_wait_for(preloaded):
    one, monitor = preloaded(workers=3)
    monitor.wait(3)
    answers = {one.get("/").text for _ in range(12)}
    assert answers == {f"{one.pid} no child"}
    assert one.stop() == 0


@pytest.mark.ours
def test_what_has_moved_on_is_reaped_and_one_fork_server_is_left(preloaded):
    one, monitor = preloaded(workers=3)
    monitor.wait(3)

    def below_workers() -> list[psutil.Process]:
        return [below for worker in monitor.running() for below in worker.children()]

    wait_until(lambda: len(below_workers()) == 1, "nothing is left of the processes before")
    (youngest,) = below_workers()
    assert fork_servers(one) == [youngest.pid]
    # The lines of workers that boot at once come in any order.
    last = max(monitor.running(), key=lambda worker: (worker.create_time(), worker.pid))
    assert youngest.ppid() == last.pid
    assert one.stop() == 0


@pytest.mark.ours
def test_a_fork_server_that_was_killed_below_its_worker_is_made_anew(preloaded, gates):
    one, monitor = preloaded()
    monitor.wait(2)
    (fork_server,) = fork_servers(one)
    os.kill(fork_server, signal.SIGKILL)
    one.log.wait(rf"The fork server \(pid:{fork_server}\) is gone; the application will be imported again")
    one.send_signal(signal.SIGTTIN)
    monitor.wait(3)
    assert one.stop() == 0


@pytest.mark.ours
def test_a_fork_server_that_hangs_below_its_worker_is_killed_at_a_stop(preloaded):
    one, monitor = preloaded("--graceful-timeout", "1")
    monitor.wait(2)
    (fork_server,) = fork_servers(one)
    stop_process(fork_server)
    assert one.stop(patience=10) == 0
    one.wait_gone()


@pytest.mark.ours
def test_an_application_with_threads_keeps_its_fork_server_and_they_keep_running(server, tmp_path, gates):
    (tmp_path / "threaded.py").write_text(
        "import threading, os, gate\n"
        "def run():\n    gate.wait('asked')\n    gate.note('runs in', os.getpid())\n"
        "threading.Thread(target=run, daemon=True).start()\n" + APPLICATION
    )
    one = server("threaded", "--preload", "--pythonpath", str(APPS), workers=2, cwd=tmp_path)
    wait_until(lambda: len(one.workers()) == 3, "two workers and the fork server")
    (fork_server,) = fork_servers(one)
    assert fork_server in one.workers()
    gates.open("asked")
    assert gates.wait_notes("runs in") == [str(fork_server)]
    assert one.stop() == 0


@pytest.mark.ours
def test_an_application_with_a_child_process_keeps_its_fork_server_and_ends_it(server, tmp_path, gates):
    (tmp_path / "parental.py").write_text(
        "import multiprocessing, os, gate, time\n"
        "def run():\n    gate.note('child of', os.getppid())\n    time.sleep(120)\n"
        "multiprocessing.get_context('fork').Process(target=run, daemon=True).start()\n" + APPLICATION
    )
    one = server("parental", "--preload", "--pythonpath", str(APPS), workers=2, cwd=tmp_path)
    (fork_server,) = map(int, gates.wait_notes("child of"))
    assert fork_server in fork_servers(one) and fork_server in one.workers()
    assert one.stop() == 0
    one.wait_gone()


def test_python_runs_its_fork_handlers_in_each_process_once(server, tmp_path, gates):
    (tmp_path / "counted.py").write_text(
        "import os, gate\n"
        "os.register_at_fork(before=lambda: gate.note('before', os.getpid()),\n"
        "    after_in_parent=lambda: gate.note('parent', os.getpid()),\n"
        "    after_in_child=lambda: gate.note('child', os.getpid()))\n" + APPLICATION
    )
    one = server("counted", "--preload", "--threads", "2", "--pythonpath", str(APPS), workers=3, cwd=tmp_path)
    wait_until(lambda: len(gates.notes("parent")) == 3, "three forks")
    assert len(gates.notes("before")) == 3
    workers = set(map(str, one.booted()))
    assert set(gates.notes("child")) == workers and len(gates.notes("child")) == 3
    assert not workers & set(gates.notes("parent")) and not workers & set(gates.notes("before"))
    if not IS_OURS:
        assert set(gates.notes("parent")) == {str(one.pid)}
    assert one.stop() == 0
