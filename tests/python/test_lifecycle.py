"""Nothing is lost while workers are replaced: reload, recycling, scaling and crashes, all under load."""

from __future__ import annotations

import os
import signal

import pytest

from harness import APPS, PATIENCE_S, wait_until
from load import Load
from wire import Client, Disconnected

pytestmark = pytest.mark.ours

# Clients that leave the machine to the servers of the other tests.
CALM = {"keep_alive": 3, "one_shot": 3, "pause": 0.003}


def assert_nothing_lost(load: Load) -> None:
    assert load.counters.lost == 0, load.counters
    assert load.counters.slowest < 5, load.counters


def most_processes(server, seen: set[int]) -> int:
    """The number of workers now; all that were ever seen are collected."""
    workers = server.workers()
    seen.update(workers)
    return len(workers)


# -- reload ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("surge", "most"), [("1", 4), ("2", 5)])
def test_hup_replaces_worker_by_worker_and_loses_nothing(server, surge, most):
    one = server("echo", "--threads", "2", "--reload-surge", surge, workers=3, env={"IMPORT_S": "0.15"})
    one.log.wait("Booting worker", 3)
    before = set(one.workers())
    counts = []
    with Load(one.address, **CALM) as load:
        one.send_signal(signal.SIGHUP)

        def replaced():
            now = set(one.workers())
            counts.append(len(now))
            return len(now) == 3 and not before & now

        wait_until(replaced, "three new workers alone")
        load.wait_answered(load.counters.answered + 20)
    assert_nothing_lost(load)
    assert max(counts) <= most, f"at most {surge} more than three workers"
    assert min(counts) >= 3, "never fewer than before"


def test_a_request_is_not_kept_waiting_by_the_import_of_a_reload(server):
    one = server("echo", "--threads", "2", env={"IMPORT_S": "1"})
    one.get("/echo?x")
    with Load(one.address, **CALM) as load:
        (before,) = one.workers()
        one.send_signal(signal.SIGHUP)
        wait_until(lambda: one.workers() and before not in one.workers(), "the new worker alone")
    assert_nothing_lost(load)
    assert load.counters.slowest < 0.9, "one worker always served"
    assert len(load.counters.workers) == 2


def test_signals_are_heard_during_a_reload(server, gates, tmp_path):
    (tmp_path / "held_import.py").write_text(
        "import gate\nfrom echo import application\ngate.note('slow', 'x')\n"
        "if len(open(gate._path('slow.notes')).readlines()) > 1: gate.wait('import')\n"
    )
    one = server("held_import", "--pythonpath", str(APPS), "--threads", "2", cwd=tmp_path)
    gates.wait_notes("slow")
    one.get("/echo?x")
    one.send_signal(signal.SIGHUP)
    gates.wait_reached("import")
    one.send_signal(signal.SIGTTIN)
    one.log.wait("Booting worker", 3)
    one.send_signal(signal.SIGTTOU)
    one.log.wait("Handling signal: ttou")
    assert one.get("/echo?x").status == 200
    assert one.stop() == 0


def test_a_second_hup_during_a_reload_starts_over_with_the_newest_code(server, gates, tmp_path):
    def write(word, then=""):
        fresh = tmp_path / "fresh.py"
        fresh.write_text(
            f"import gate\n{then}\n"
            "def application(environ, start_response):\n"
            f"    start_response('200 OK', [('Content-Length', '3')])\n    return [b'{word}']\n"
        )
        fresh.replace(tmp_path / "versions.py")

    write("one")
    one = server("versions", "--pythonpath", str(APPS), cwd=tmp_path, workers=2)
    assert one.get().text == "one"
    write("two", "gate.wait('two')")
    one.send_signal(signal.SIGHUP)
    gates.wait_reached("two")
    write("new")
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: {one.get().text for _ in range(6)} == {"new"}, "the newest code alone")
    wait_until(lambda: len(one.workers()) == 2, "two workers")
    assert "two" not in one.get().text


def test_hup_with_code_that_exits_keeps_the_old_workers(server, gates, tmp_path):
    (tmp_path / "broken.py").write_text("from echo import application\n")
    one = server("broken", "--pythonpath", str(APPS), "--threads", "2", cwd=tmp_path, workers=2)
    gates.wait_notes("import", 2)
    before = set(one.workers())
    with Load(one.address, **CALM) as load:
        (tmp_path / "broken.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
        one.send_signal(signal.SIGHUP)
        one.log.wait("Reload failed: Worker failed to boot.")
        one.log.wait("The previous workers keep serving.")
        wait_until(lambda: set(one.workers()) == before, "the old workers alone")
    assert_nothing_lost(load)
    assert one.stop() == 0


def test_hup_takes_the_new_number_of_workers(server, tmp_path):
    config = tmp_path / "config.py"
    config.write_text("workers = 4\nthreads = 2\n")
    one = server("echo", "-c", str(config))
    one.log.wait("Booting worker", 4)
    before = set(one.workers())
    with Load(one.address, **CALM) as load:
        for wanted in (2, 5):
            config.write_text(f"workers = {wanted}\nthreads = 2\n")
            one.send_signal(signal.SIGHUP)
            wait_until(
                lambda wanted=wanted, before=before: len(one.workers()) == wanted and not before & set(one.workers()),
                f"{wanted} new workers",
            )
            before = set(one.workers())
    assert_nothing_lost(load)


def test_hup_moves_to_other_addresses(server, tmp_path):
    """Kept addresses lose nothing, also when the next HUP comes before the last old worker has gone."""
    config = tmp_path / "config.py"

    def bind(*names):
        config.write_text(f"workers = 2\nthreads = 2\nbind = {[f'unix:{tmp_path}/{name}.sock' for name in names]}\n")

    bind("a", "b")
    one = server("echo", "-c", str(config), bind=[], env={"IMPORT_S": "0.1"})
    one.log.wait("Booting worker", 2)
    with Load(f"{tmp_path}/b.sock", **CALM) as load:
        bind("b", "c")
        one.send_signal(signal.SIGHUP)
        one.log.wait("Booting worker", 4)
        before = set(one.booted()[:3])
        bind("b", "d")
        one.send_signal(signal.SIGHUP)
        wait_until(lambda: len(one.workers()) == 2 and not before & set(one.workers()), "the newest alone")
        with Client(f"{tmp_path}/d.sock", PATIENCE_S) as client:
            assert client.request("GET", "/echo?x").status == 200
    assert_nothing_lost(load)
    wait_until(
        lambda: sorted(path.stem for path in tmp_path.glob("*.sock")) == ["b", "d"], "dropped addresses have no file"
    )
    # An address that cannot be had leaves everything as it is.
    (tmp_path / "file.sock").write_text("no socket")
    bind("b", "file")
    one.send_signal(signal.SIGHUP)
    one.log.wait("Reload failed: .*is not a socket")
    assert one.stop() == 0
    assert [path.stem for path in tmp_path.glob("*.sock")] == ["file"]


def test_ttou_during_a_reload_ends_with_fewer_new_workers(server):
    one = server("echo", "--threads", "2", workers=3, env={"IMPORT_S": "0.2"})
    one.log.wait("Booting worker", 3)
    before = set(one.workers())
    with Load(one.address, **CALM) as load:
        one.send_signal(signal.SIGHUP)
        one.log.wait("Booting worker", 4)
        one.send_signal(signal.SIGTTOU)
        wait_until(lambda: len(one.workers()) == 2 and not before & set(one.workers()), "two new workers")
    assert_nothing_lost(load)


def test_hup_to_the_whole_group_kills_no_worker(server):
    one = server("echo", "--threads", "2", workers=2)
    with Load(one.address, **CALM) as load:
        os.killpg(one.pid, signal.SIGHUP)
        one.log.wait("Handling signal: hup")
        one.log.wait("Booting worker", 4)
    assert_nothing_lost(load)
    assert "was sent SIGHUP" not in one.log.text


# -- recycling -------------------------------------------------------------------------------------


def test_max_requests_has_a_successor_before_anybody_leaves(server):
    one = server("echo", "--threads", "2", "--max-requests", "60", workers=2, env={"IMPORT_S": "0.2"})
    one.log.wait("Booting worker", 2)
    seen, counts = set(), []
    with Load(one.address, **CALM) as load:

        def six_lived():
            counts.append(most_processes(one, seen))
            return len(seen) >= 6

        wait_until(six_lived, "six workers have lived")
    assert_nothing_lost(load)
    assert max(counts) <= 3, "one retires at a time"
    assert min(counts) >= 2, "its successor is there before it goes"


def test_max_requests_alone_keeps_serving_through_a_slow_import(server):
    """A single worker with an import of a second: nobody waits for it."""
    one = server("echo", "--threads", "2", "--max-requests", "30", env={"IMPORT_S": "1"})
    one.get("/echo?x")
    with Load(one.address, **CALM) as load:
        wait_until(lambda: len(load.counters.workers) >= 2, "the successor answers")
    assert_nothing_lost(load)
    assert load.counters.slowest < 0.9, load.counters


def test_a_worker_that_holds_too_much_memory_is_replaced(server):
    one = server("echo", "--threads", "2", "--max-worker-memory", "150")
    (before,) = one.workers()
    with Load(one.address, **CALM) as load:
        one.get("/grow?200")
        one.log.wait(rf"Worker \(pid:{before}\) holds \d+ MiB, more than 150 \(max_worker_memory\)")
        wait_until(lambda: one.workers() and before not in one.workers(), "another worker alone")
    assert_nothing_lost(load)


def test_workers_are_replaced_when_their_time_is_over(server):
    one = server("echo", "--threads", "2", "--max-worker-lifetime", "1", workers=2)
    before = set(one.booted())
    with Load(one.address, **CALM) as load:
        one.log.wait(r"Worker \(pid:\d+\) is \d+ s old \(max_worker_lifetime\) and is replaced", 2)
        wait_until(lambda: not before & set(one.workers()), "all of the first have gone")
    assert_nothing_lost(load)


def test_a_retiring_worker_that_is_stuck_is_cut_and_its_requests_are_named(server, gates):
    one = server("echo", "--threads", "2", "--max-requests", "2", "--graceful-timeout", "1")
    (stuck,) = one.workers()
    with one.connect() as client:
        client.send_request("GET", "/block?never")
        gates.wait_reached("never")
        one.get("/echo?x")
        one.log.wait("Booting worker", 2)
        assert client.read_to_end() == b""
    one.log.wait(r"\[ERROR\].*GET /block")
    wait_until(lambda: stuck not in one.workers(), "the stuck worker is gone")
    assert one.get("/echo?x").status == 200


# -- crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "segv", "exit", "kill, reuse_port"])
def test_a_crash_loses_only_what_was_running(server, how):
    how, *options = how.split(", ")
    one = server("echo", "--threads", "2", *(["--reuse-port"] if options else []), workers=2)
    one.log.wait("Booting worker", 2)
    with Load(one.address, keep_alive=0, one_shot=4, pause=0.003) as load:
        for number in range(3):
            before = set(one.workers())
            if how == "kill":
                os.kill(min(before), signal.SIGKILL)
            else:
                with pytest.raises((Disconnected, OSError)):
                    one.get(f"/{how}?7")
            one.log.wait("Booting worker", 3 + number)
            wait_until(lambda before=before: len(set(one.workers()) | before) > 2, "a new worker")
        load.wait_answered(load.counters.answered + 30)
    # At each crash no more than the two threads of that worker and its queue can have been hit.
    assert load.counters.lost <= 3 * 4, load.counters
    assert load.counters.refused == load.counters.wrong == 0, load.counters
    assert one.stop() == 0


def test_requests_that_a_crash_took_are_named(server, gates):
    one = server("echo", "--threads", "2")
    (worker,) = one.workers()
    with one.connect() as client:
        client.send_request("GET", "/block?never")
        gates.wait_reached("never")
        os.kill(worker, signal.SIGKILL)
        assert client.read_to_end() == b""
    one.log.wait(rf"\[ERROR\] Worker \(pid:{worker}\): cut after \d+ ms: GET /block")


def test_workers_that_never_served_are_replaced_ever_more_slowly(server, tmp_path, gates):
    """After the first start a broken worker never stops the server, nor spins."""
    (tmp_path / "later.py").write_text(
        "import os, gate\nfrom echo import application\nif os.path.exists(gate._path('break')): os._exit(9)\n"
    )
    one = server("later", "--pythonpath", str(APPS), "--threads", "2", cwd=tmp_path, workers=2)
    gates.wait_notes("import", 2)
    healthy = one.get("/echo?x").text.split()[1]
    (gates.directory / "break").touch()
    (victim,) = (pid for pid in one.workers() if str(pid) != healthy)
    with Load(one.address, **CALM) as load:
        os.kill(victim, signal.SIGKILL)
        attempts = one.log.wait(r"Worker \(pid:\d+\) ended before it served; the next attempt is in ([\d.]+)(m?s)", 4)
    waited = [float(match.group(1)) * {"ms": 1, "s": 1000}[match.group(2)] for match in attempts]
    assert waited[:4] == [100, 200, 400, 800], waited
    assert int(healthy) in one.workers()
    assert load.counters.lost <= 6, load.counters
    (gates.directory / "break").unlink()
    wait_until(lambda: len(one.workers()) == 2 and len(set(one.workers())) == 2, "two workers again")


def test_a_worker_that_somebody_terminates_is_replaced_while_it_finishes(server, gates):
    one = server("echo", "--threads", "2")
    (worker,) = one.workers()
    with one.connect() as client:
        client.send_request("GET", "/block?slow")
        gates.wait_reached("slow")
        os.kill(worker, signal.SIGTERM)
        wait_until(lambda: one.get("/echo?x").text.split()[1] != str(worker), "another worker answers")
        gates.open("slow")
        assert client.read_response().text.startswith("slow ")


# -- stop ------------------------------------------------------------------------------------------


def test_term_says_what_became_of_the_requests(server, gates):
    one = server("echo", "--threads", "2", "--graceful-timeout", "1", workers=2)
    for _ in range(10):
        one.get("/echo?x")
    with one.connect() as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.read_response().status == 400
    with one.connect() as client:
        client.send_request("GET", "/block?never")
        gates.wait_reached("never")
        assert one.stop() == 0
    one.log.wait(r"\[INFO\] Requests: 10 served, 1 refused, 1 cut")
    one.log.wait(r"GET /block")


def test_stop_delay_keeps_accepting_for_a_while(server):
    one = server("echo", "--threads", "2", "--stop-delay", "1", workers=2)
    with Load(one.address, until_refused=True, **CALM) as load:
        one.send_signal(signal.SIGTERM)
        one.log.wait(r"Stopping in 1 s")
        load.wait_answered(load.counters.answered + 50)
        assert one.process.poll() is None
        # A worker that dies now is still replaced.
        os.kill(one.workers()[0], signal.SIGTERM)
        one.log.wait("Booting worker", 3)
        assert one.wait_exit() == 0
        load.join()
    assert load.counters.lost == 0, load.counters


def test_health_says_not_ready_while_the_stop_is_delayed(server):
    """Kubernetes takes the pod out of its endpoints while the last requests still come."""
    one = server("echo", "--threads", "2", "--stop-delay", "60", "--health-path", "/-/health")
    assert one.get("/-/health/ready").status == 200
    one.send_signal(signal.SIGTERM)
    one.log.wait(r"Stopping in 60 s")
    answer = one.get("/-/health/ready")
    assert (answer.status, "about to stop" in answer.text) == (503, True)
    assert one.get("/-/health/live").status == one.get("/echo?x").status == 200
    assert one.stop() == 0


def test_a_second_term_cuts_the_delay(server):
    one = server("echo", "--stop-delay", "60")
    one.send_signal(signal.SIGTERM)
    one.log.wait(r"Stopping in 60 s")
    assert one.get("/echo?x").status == 200
    assert one.stop() == 0
