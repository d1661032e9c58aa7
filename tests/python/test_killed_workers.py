"""What a worker leaves in the log that was silent for too long, was killed or crashed."""

from __future__ import annotations

import os
import re
import signal

import pytest

from harness import APPS, HAS_GIL, stop_process, wait_until

pytestmark = [pytest.mark.ours, pytest.mark.slow]


def hold(one, gates, path, name):
    """A request that is in the application, from 127.0.0.1."""
    client = one.connect()
    client.send_request("GET", path)
    gates.wait_reached(name)
    return client


@pytest.mark.skipif(not HAS_GIL, reason="no request can hold the interpreter")
def test_a_worker_that_is_silent_leaves_its_requests_and_every_stack(server, gates, tmp_path):
    error = tmp_path / "error.log"
    one = server(
        "lifecycle", "--threads", "2", "--timeout", "2", "--error-logfile", str(error),
        bind=(f"unix:{tmp_path}/s",), ready=False,
    )  # fmt: skip
    wait_until(lambda: error.exists() and "Booting worker" in error.read_text(), "a worker boots")
    wait_until(lambda: (tmp_path / "s").exists(), "the socket")
    one.address = str(tmp_path / "s")
    (worker,) = one.workers()
    # The stacks are in the log's present file, wherever that was when the worker was started.
    error.rename(tmp_path / "error.1")
    one.send_signal(signal.SIGUSR1)
    wait_until(error.exists, "a new file")
    with hold(one, gates, "/block?held", "held"), hold(one, gates, "/hold_the_interpreter?30", "holding"):
        wait_until(lambda: error.read_text().count("Booting worker") == 1, "another worker")
    text = error.read_text()
    assert re.search(rf"\[CRITICAL\] WORKER TIMEOUT \(pid:{worker}\)$", text, re.MULTILINE)
    assert re.search(r"\[ERROR\] In flight for \d+ s: GET /block$", text, re.MULTILINE)
    assert re.search(r"\[ERROR\] In flight for \d+ s: GET /hold_the_interpreter$", text, re.MULTILINE)
    assert "Fatal Python error: Aborted" in text
    assert len(re.findall(r"^(?:Current thread|Thread) 0x[0-9a-f]+", text, re.MULTILINE)) >= 3
    assert re.search(r'File ".*lifecycle\.py", line \d+ in hold_the_interpreter', text)
    assert re.search(r'File ".*gate\.py", line \d+ in wait', text)


def test_an_aborted_worker_still_ends_in_order(server, gates, tmp_path):
    """The hook is called, and what runs at exit runs: the fault handler hands the signal on."""
    config = tmp_path / "conf.py"
    config.write_text("def worker_abort(worker):\n    worker.log.info('aborting %s', worker.pid)\n")
    one = server("lifecycle", "-c", str(config))
    (worker,) = one.workers()
    assert one.get("/pid").text == str(worker)
    os.kill(worker, signal.SIGABRT)
    one.log.wait(r"Fatal Python error: Aborted")
    one.log.wait(rf"\[INFO\] aborting {worker}")
    one.log.wait(rf"Worker \(pid:{worker}\) exited with code 1\.")


def test_a_worker_that_stands_still_is_spoken_for_by_the_arbiter(server, gates):
    one = server("lifecycle", "--threads", "2", "--timeout", "2")
    (worker,) = one.workers()
    with hold(one, gates, "/block?held", "held"):
        stop_process(worker)
        one.log.wait(rf"\[CRITICAL\] WORKER TIMEOUT \(pid:{worker}\)")
        one.log.wait(rf"Worker \(pid:{worker}\): cut after \d+ ms: GET /block from 127\.0\.0\.1$")
        one.log.wait(rf"Worker \(pid:{worker}\) was sent SIGKILL!$")
    assert one.get("/pid").text != str(worker)


def test_a_killed_worker_leaves_what_it_was_doing(server, gates):
    one = server("lifecycle", "--threads", "2")
    (worker,) = one.workers()
    with hold(one, gates, "/block?held", "held"):
        os.kill(worker, signal.SIGKILL)
        one.log.wait(rf"Worker \(pid:{worker}\) was sent SIGKILL! Perhaps out of memory\?")
        one.log.wait(rf"Worker \(pid:{worker}\): cut after \d+ ms: GET /block from 127\.0\.0\.1$")


def test_a_worker_that_crashes_leaves_its_stacks(server, gates):
    one = server("lifecycle", "--threads", "2")
    (worker,) = one.workers()
    with hold(one, gates, "/block?held", "held"):
        os.kill(worker, signal.SIGSEGV)
        one.log.wait(r"Fatal Python error: Segmentation fault")
        one.log.wait(r'File ".*gate\.py", line \d+ in wait')
        one.log.wait(rf"Worker \(pid:{worker}\) was sent SIGSEGV!")
        one.log.wait(rf"Worker \(pid:{worker}\): cut after \d+ ms: GET /block from 127\.0\.0\.1$")


def test_an_import_that_hangs_leaves_its_stack(server, tmp_path):
    (tmp_path / "hangs.py").write_text("import time\n\n\ndef forever():\n    time.sleep(60)\n\n\nforever()\n")
    one = server("hangs:app", cwd=tmp_path, env={"FERRICORN_BOOT_TIMEOUT": "1"}, ready=False)
    one.log.wait(r"\[CRITICAL\] WORKER TIMEOUT")
    one.log.wait(r'File ".*hangs\.py", line 5 in forever')


def test_an_application_keeps_its_own_fault_handler(server, tmp_path):
    """The file is appended to: the successor, which comes at once, opens it too."""
    (tmp_path / "own.py").write_text(
        "import faulthandler\nfrom hello import app\nfaulthandler.enable(open('faults.txt', 'a'))\n"
    )
    one = server("own:app", cwd=tmp_path, env={"PYTHONPATH": str(APPS)})
    (worker,) = one.workers()
    assert one.get().status == 200
    os.kill(worker, signal.SIGABRT)
    wait_until(lambda: "Fatal Python error: Aborted" in (tmp_path / "faults.txt").read_text(), "the application's file")
    one.log.wait(rf"Worker \(pid:{worker}\) was sent SIGABRT!")
    assert "Fatal Python error" not in one.log.text
