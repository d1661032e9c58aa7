"""Signal handlers of applications and their libraries: what they see, and that workers stop in order all the same."""

from __future__ import annotations

import os
import signal
import time

import pytest

from harness import APPS, IS_OURS, wait_until
from wire import Disconnected

THREADS = pytest.mark.parametrize("threads", ["2", "1"])


def stop_with_a_request(one, gates, number=signal.SIGTERM):
    """The answer to a request that ran when the stop came, or None, and the server's last log."""
    with one.connect() as client:
        client.send_request("GET", "/?slow")
        gates.wait_reached("slow")
        one.send_signal(number)
        one.log.wait("Handling signal")
        # The handler of the application has run, or there is none that tells.
        if "HANDLER" in one.env and one.env["HANDLER"] not in QUIET:
            gates.wait_notes("handled")
        gates.open("slow")
        try:
            answer = client.read_response()
        except (Disconnected, OSError):
            answer = None
    assert one.wait_exit() == 0
    one.wait_gone()
    return answer, one.log.join()


QUIET = ("none", "ignore", "default", "interrupt", "faulthandler", "wakeup")


@pytest.fixture
def started(server):
    def start(how, *arguments, **env):
        one = server("handlers", "--graceful-timeout", "6", *arguments, env={"HANDLER": how, **env})
        one.env = {"HANDLER": how}
        return one

    return start


@THREADS
def test_python_sees_a_callable_for_each_signal_of_a_worker(started, gates, threads):
    started("none", "--threads", threads)
    names = gates.wait_notes("callable", 6)
    assert sorted(names) == sorted(["SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGABRT", "SIGWINCH"])


@THREADS
@pytest.mark.parametrize("how", ["none", "chain", "interrupt", "restore_previous"])
def test_a_handler_that_chains_stops_the_worker_in_order(started, gates, how, threads):
    if how == "restore_previous" and threads == "1" and not IS_OURS:
        pytest.skip("gunicorn's thread that polls is not interrupted")
    one = started(how, "--threads", threads)
    begun = time.monotonic()
    answer, log = stop_with_a_request(one, gates)
    assert answer.status == 200
    assert time.monotonic() - begun < 5, log
    assert "SIGKILL" not in log
    assert len(gates.notes("atexit")) == 1


@pytest.mark.ours
@THREADS
@pytest.mark.parametrize("how", ["leave", "set_flag", "fail", "ignore", "sigwait"])
def test_a_handler_that_does_not_chain_does_not_keep_the_worker(started, gates, how, threads):
    one = started(how, "--threads", threads)
    begun = time.monotonic()
    answer, log = stop_with_a_request(one, gates)
    if how in ("leave", "fail") and threads == "1":
        # The handler runs where the request runs, and its exception is the request's.
        assert answer.status in (200, 500)
    else:
        assert answer.status == 200
    assert time.monotonic() - begun < 5, log
    assert "SIGKILL" not in log
    assert len(gates.notes("atexit")) == 1


@THREADS
@pytest.mark.parametrize("how", ["default", "restore"])
def test_the_default_ends_the_worker_at_once(started, gates, how, threads):
    one = started(how, "--threads", threads)
    begun = time.monotonic()
    answer, log = stop_with_a_request(one, gates)
    assert answer is None
    assert time.monotonic() - begun < 4, log
    assert gates.notes("atexit") == []


@THREADS
def test_an_exit_from_a_handler_ends_the_worker_in_order(started, gates, threads):
    """`sys.exit(0)` in a handler of a signal that only the application knows."""
    one = started("leave", "--threads", threads, SIGNAL="SIGUSR2")
    worker = int(one.get("/").text)
    os.kill(worker, signal.SIGUSR2)
    gates.wait_notes("atexit")
    one.log.wait("Booting worker with pid", 2)
    assert "Traceback" not in one.log.text
    assert one.stop() == 0


@pytest.mark.ours
@THREADS
def test_a_wakeup_descriptor_of_the_application_goes_on_to_work(started, gates, threads):
    one = started("wakeup", "--threads", threads)
    worker = int(one.get("/").text)
    os.kill(worker, signal.SIGUSR2)
    assert gates.wait_notes("usr2") == [str(int(signal.SIGUSR2))]
    assert str(int(signal.SIGUSR2)) in gates.wait_notes("woken")
    # gunicorn writes the signals of its own there too.
    answer, _ = stop_with_a_request(one, gates)
    assert answer.status == 200
    assert str(int(signal.SIGTERM)) in gates.notes("woken")


MASTER = """
import gate, os, signal, sys
NUMBER = signal.SIGTERM
def when_ready(server):
    before = signal.getsignal(NUMBER)
    names = "HUP QUIT INT TERM TTIN TTOU USR1 USR2 WINCH CHLD".split()
    gate.note("of_master", [callable(signal.getsignal(getattr(signal, f"SIG{name}"))) for name in names])
    def handler(number, frame):
        gate.note("handled", number)
        if os.environ["HOW"] == "chain":
            before(number, frame)
        if os.environ["HOW"] == "restore":
            signal.signal(number, before)
            os.kill(os.getpid(), number)
        if os.environ["HOW"] == "leave":
            sys.exit(0)
        if os.environ["HOW"] == "fail":
            raise RuntimeError("the handler is broken")
    signal.signal(NUMBER, handler)
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
@pytest.mark.parametrize("how", ["chain", "restore", "leave", "fail"])
def test_a_handler_that_a_hook_sets_in_the_master_may_call_the_one_before(server, gates, tmp_path, how, preload):
    if how == "fail" and not IS_OURS:
        pytest.skip("gunicorn leaves with 255")
    path = tmp_path / "conf.py"
    path.write_text(MASTER)
    env = {"PYTHONPATH": str(APPS), "HOW": how, "HANDLER": "none"}
    one = server("handlers", "-c", str(path), "--threads", "2", *preload, env=env)
    assert gates.wait_notes("of_master") == [str([True] * 10)]
    assert one.get("/").status == 200
    assert one.stop() == 0
    assert gates.notes("handled") == [str(int(signal.SIGTERM))]


@pytest.mark.ours
def test_the_masters_handlers_are_not_the_applications(started, gates):
    """Workers and the fork server forget them: gunicorn imports a preloaded application before it sets them."""
    one = started("none", "--threads", "2", "--preload")
    assert gates.notes("callable") == []
    assert one.stop() == 0


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGQUIT"])
@THREADS
def test_handlers_of_c_code_are_kept(started, gates, name, threads):
    one = started("faulthandler", "--threads", threads, SIGNAL=name)
    worker = int(one.get("/").text)
    os.kill(worker, getattr(signal, name))
    dump = gates.directory / "dump"
    wait_until(lambda: "most recent call first" in dump.read_text(), "the stacks are dumped")
    assert int(one.get("/").text) == worker, "it serves on"
    assert one.stop() == 0


@pytest.mark.ours
def test_a_quick_stop_reaches_a_worker_that_dumps_on_quit(started, gates):
    one = started("faulthandler", "--threads", "2", SIGNAL="SIGQUIT")
    one.get("/")
    begun = time.monotonic()
    assert one.stop(signal.SIGINT) == 0
    assert time.monotonic() - begun < 4
    assert len(gates.notes("atexit")) == 1
    assert "SIGKILL" not in one.log.text


@THREADS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_exit_handlers_run_at_a_quick_stop(started, gates, number, threads):
    one = started("none", "--threads", threads)
    one.get("/")
    assert one.stop(number) == 0
    assert len(gates.notes("atexit")) == 1


@pytest.mark.parametrize("names", ["INT", "QUIT", "INT QUIT HUP"])
def test_signals_that_were_ignored_at_the_start_work(server, gates, names, tmp_path):
    """A shell script's `ferricorn ... &` starts with SIGINT and SIGQUIT ignored, `nohup` with SIGHUP."""
    conf = tmp_path / "hooks.py"
    conf.write_text(
        "import gate\n"
        "def worker_int(worker): gate.note('hooks', 'worker_int')\n"
        "def worker_exit(server, worker): gate.note('hooks', 'worker_exit')\n"
    )
    from harness import COMMAND

    command = ["sh", "-c", f"trap '' {names}; exec \"$@\"", "sh", *COMMAND]
    one = server("handlers", "-c", str(conf), "--threads", "2", command=command, env={"PYTHONPATH": "."})
    one.get("/")
    assert one.stop(signal.SIGINT) == 0
    assert gates.notes("hooks") == ["worker_int", "worker_exit"]
    assert len(gates.notes("atexit")) == 1


@THREADS
def test_coverage_of_a_worker_is_saved(server, tmp_path, threads):
    """coverage with `sigterm = true`: it saves, sets the handler from before and sends the signal again."""
    coverage = pytest.importorskip("coverage")
    rc = tmp_path / "rc"
    rc.write_text(f"[run]\nsigterm = true\nparallel = true\ndata_file = {tmp_path}/data\ninclude = */covered.py\n")
    (tmp_path / "covered.py").write_text(
        "import coverage\ncoverage.process_startup()\nimport inside\napplication = inside.application\n"
    )
    (tmp_path / "inside.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '2')])\n"
        "    return [b'ok']\n"
    )
    rc.write_text(rc.read_text().replace("covered.py", "inside.py"))
    one = server(
        "covered",
        "--threads",
        threads,
        "--graceful-timeout",
        "6",
        cwd=tmp_path,
        env={"COVERAGE_PROCESS_START": str(rc)},
    )
    assert one.get("/").status == 200
    assert one.stop() == 0
    assert "SIGKILL" not in one.log.join()
    data = coverage.CoverageData(str(tmp_path / "data"))
    for part in tmp_path.glob("data.*"):
        saved = coverage.CoverageData(str(part))
        saved.read()
        data.update(saved)
    assert {2, 3} <= set(data.lines(str(tmp_path / "inside.py"))), "the lines of the request"


@THREADS
def test_the_signal_that_wakes_the_event_loop_is_the_applications_too(server, gates, threads):
    """While requests are few and brief the worker's own thread waits for SIGURG. The application has a handler."""
    one = server("urgent:app", "--threads", threads)
    (worker,) = one.workers()
    with one.connect() as client:
        for count in range(1, 11):
            for _ in range(30):
                assert client.request("GET", "/").body == b"ok"
            os.kill(worker, signal.SIGURG)
            gates.wait_notes("urgent", count)
