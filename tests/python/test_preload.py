"""`--preload`: one import per generation, in a process of its own, shared by its workers; HUP imports anew."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import APPS, fork_servers, wait_until
from load import Load

pytestmark = pytest.mark.ours

CALM = {"keep_alive": 3, "one_shot": 3, "pause": 0.003}


def write(directory: Path, word: str, then: str = "") -> None:
    fresh = directory / "fresh.py"
    fresh.write_text(
        f"import os, gate\ngate.note('import', f'{word} {{os.getpid()}}')\n{then}\n"
        "def application(environ, start_response):\n"
        f"    body = (environ['QUERY_STRING'] + f' {word}').encode()\n"
        "    start_response('200 OK', [('Content-Length', str(len(body)))])\n    return [body]\n"
    )
    fresh.replace(directory / "versions.py")


def start(server, tmp_path, *arguments, **options):
    return server(
        "versions", "--preload", "--threads", "2", "--pythonpath", str(APPS), *arguments, cwd=tmp_path, **options
    )


def serving(one) -> set[int]:
    """Workers, without the fork server: those that the log announced."""
    return set(one.workers()) & set(one.booted())


def test_workers_share_one_import_and_are_the_arbiters_children(server, gates, tmp_path):
    write(tmp_path, "one")
    one = start(server, tmp_path, workers=3)
    one.log.wait("Booting worker", 3)
    ((word, fork_server),) = (line.split() for line in gates.notes("import"))
    assert word == "one" and int(fork_server) != one.pid and int(fork_server) not in one.booted()
    assert set(one.booted()) <= set(one.workers()), "adopted from the fork server"
    victim = one.booted()[0]
    os.kill(victim, signal.SIGKILL)
    one.log.wait(rf"Worker \(pid:{victim}\) was sent SIGKILL")
    one.log.wait("Booting worker", 4)
    assert len(gates.notes("import")) == 1, "the next one comes from the same fork server"
    assert one.get("/?x").text == "x one"
    assert one.stop() == 0


def test_hup_imports_the_new_code_and_loses_nothing(server, gates, tmp_path):
    write(tmp_path, "one")
    one = start(server, tmp_path, workers=2)
    one.log.wait("Booting worker", 2)
    before = serving(one)
    with Load(one.address, **CALM) as load:
        write(tmp_path, "two")
        one.send_signal(signal.SIGHUP)
        wait_until(lambda: len(serving(one)) == 2 and not before & serving(one), "new workers alone")
        load.wait_answered(load.counters.answered + 20)
    assert load.counters.lost == 0, load.counters
    assert set(load.counters.workers) == {"one", "two"}
    assert one.get("/?x").text == "x two"
    wait_until(lambda: len(one.workers()) == 2 and len(fork_servers(one)) == 1, "the old fork server has gone")
    assert [line.split()[0] for line in gates.notes("import")] == ["one", "two"]
    assert one.stop() == 0


@pytest.mark.parametrize("broken", ["raise RuntimeError('broken deploy')", "os._exit(5)"])
def test_hup_with_broken_code_keeps_workers_and_their_code(server, gates, tmp_path, broken):
    write(tmp_path, "one")
    one = start(server, tmp_path, workers=2)
    one.log.wait("Booting worker", 2)
    before = serving(one)
    with Load(one.address, **CALM) as load:
        write(tmp_path, "two", broken)
        one.send_signal(signal.SIGHUP)
        one.log.wait("Reload failed: The application failed to preload.")
    assert load.counters.lost == 0, load.counters
    assert serving(one) == before
    # What dies now is replaced by what it was, although the files say something else.
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    one.log.wait("Booting worker", 3)
    wait_until(lambda: len(serving(one)) == 2 and victim not in serving(one), "two workers again")
    assert {one.get("/?x").text for _ in range(8)} == {"x one"}
    write(tmp_path, "new")
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: {one.get("/?x").text for _ in range(4)} == {"x new"}, "the mended code")
    assert one.stop() == 0


def test_a_fork_server_that_dies_takes_no_worker_with_it(server, gates, tmp_path):
    write(tmp_path, "one")
    one = start(server, tmp_path, workers=2)
    one.log.wait("Booting worker", 2)
    (fork_server,) = fork_servers(one)
    with Load(one.address, **CALM) as load:
        os.kill(fork_server, signal.SIGKILL)
        one.log.wait(rf"The fork server \(pid:{fork_server}\) is gone")
        one.send_signal(signal.SIGTTIN)
        one.log.wait("Booting worker", 3)
        load.wait_answered(load.counters.answered + 20)
    assert load.counters.lost == 0, load.counters
    assert len(gates.notes("import")) == 2
    assert one.stop() == 0


def test_all_goes_when_the_arbiter_is_killed(server, gates, tmp_path):
    write(tmp_path, "one")
    one = start(server, tmp_path, workers=2)
    one.log.wait("Booting worker", 2)
    os.kill(one.pid, signal.SIGKILL)
    one.wait_exit()
    one.wait_gone()


def test_an_import_without_end_is_bounded_and_a_stop_does_not_wait_for_it(server, gates, tmp_path):
    write(tmp_path, "one", "gate.wait('never')")
    one = start(server, tmp_path, "--boot-timeout", "1", ready=False)
    assert one.wait_exit() == 1
    one.log.wait(r"The application was not imported within \d s")
    assert one.log.text.count("Preloading") == 1
    other = start(server, tmp_path, ready=False)
    wait_until(lambda: len(gates.notes("import")) == 2, "the import")
    assert other.stop(patience=5) == 0


def test_memory_that_the_import_took_is_shared(server, gates, tmp_path):
    """Fifty megabytes of objects: no worker has a copy of them."""
    write(tmp_path, "one", "DATA = [[number] for number in range(400_000)]")
    one = start(server, tmp_path, workers=2)
    one.log.wait("Booting worker", 2)
    for _ in range(20):
        one.get("/?x")
    for worker in one.booted():
        rollup = Path(f"/proc/{worker}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
        assert private < 20_000, f"{private} KiB of its own"


def test_hooks_run_where_they_can_see_the_application(server, gates, tmp_path):
    write(tmp_path, "one")
    config = tmp_path / "config.py"
    config.write_text(
        "import os, sys, gate\n"
        "def pre_fork(arbiter, worker):\n    gate.note('pre_fork', 'versions' in sys.modules)\n"
        "def post_fork(arbiter, worker):\n    gate.note('post_fork', worker.pid == os.getpid())\n"
        "def child_exit(arbiter, worker):\n    gate.note('child_exit', f'{os.getpid()} {worker.pid}')\n"
    )
    one = start(server, tmp_path, "-c", str(config), env={"PYTHONPATH": str(APPS)})
    (worker,) = one.booted()
    assert one.get("/?x").text == "x one"
    assert gates.notes("pre_fork") == gates.notes("post_fork") == ["True"]
    assert one.stop() == 0
    assert gates.notes("child_exit") == [f"{one.pid} {worker}"]
