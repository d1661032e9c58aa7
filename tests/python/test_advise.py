"""`ferricornc advise`: the rule case by case, and that following it does what it says."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading

import pytest
from test_control import serving

from ferricorn._advise import Load, advice
from harness import clean_environment
from wire import Client

pytestmark = pytest.mark.ours


def load(**changed):
    """Two workers of two threads on four cores, 10 s: 100 requests a second of 4 ms that hardly wait."""
    usual = {"seconds": 10, "cores": 4, "workers": 2, "threads": 2, "requests": 1000}
    return Load(**{**usual, "queue_s": 0.5, "service_s": 4, "cpu_s": 2, **changed})


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (
            load(),
            r"^Leave it: requests wait 0 ms for a thread, threads are busy 10% of the time, each worker uses 10% ",
        ),
        (load(requests=29), r"^29 requests have finished in 10 s, too few for advice\. `advise 100` watches for 100 s"),
        # Views that wait for others: threads.
        (
            load(workers=1, requests=400, service_s=20, queue_s=60, cpu_s=1),
            r"^Requests wait 150 ms for a thread while threads are busy 100% .* uses 10% of a core: "
            r"8 threads instead of 2 would cut the wait to under 5 ms\.$",
        ),
        # The same, and then Python would be full.
        (
            load(workers=1, requests=400, service_s=20, queue_s=60, cpu_s=3),
            r"8 threads instead of 2 .*\. Each worker may then use 100% of a core: if it does, add a worker as well\.$",
        ),
        # Python computes: workers, as far as there are cores.
        (
            load(workers=1, service_s=20, queue_s=60, cpu_s=9.8),
            r"one interpreter runs Python on one core at a time, so 4 workers instead of 1 would help",
        ),
        (
            load(workers=2, service_s=20, queue_s=5, cpu_s=19),
            r"so 4 workers instead of 2 would help, and more threads would not\.$",
        ),
        (load(workers=4, service_s=80, queue_s=60, cpu_s=39), r"the 4 cores are what is missing"),
        (load(workers=1, cores=1, service_s=20, queue_s=60, cpu_s=9.8), r"the 1 cores are what is missing"),
        # And as far as there is memory.
        (
            load(workers=2, service_s=20, queue_s=5, cpu_s=19, worker_bytes=150_000_000, memory_left=2_000_000_000),
            r"so 4 workers instead of 2 would help, and more threads would not\. A worker takes up to 150 MB, "
            r"and 2000 MB are left\.$",
        ),
        (
            load(workers=2, service_s=20, queue_s=5, cpu_s=19, worker_bytes=150_000_000, memory_left=200_000_000),
            r"so 3 workers instead of 2 would help, .* and 200 MB are left: memory is the limit\. `--preload` lets ",
        ),
        (
            load(workers=2, service_s=20, queue_s=5, cpu_s=19, worker_bytes=150_000_000, memory_left=100_000_000),
            r"so another worker would help, but there is no memory for it\. A worker takes up to 150 MB, and 100 MB ",
        ),
        # Code that keeps the GIL while it waits.
        (
            load(workers=1, requests=400, service_s=20, queue_s=60, cpu_s=1, gil_s=50),
            r"^Requests wait 150 ms for a thread, most of it for the GIL, while .* uses 10% of a core: some code keeps "
            r"the interpreter while it waits, so more workers would help and more threads would not\. `stack PID` says",
        ),
        (
            load(workers=1, requests=400, service_s=20, queue_s=60, gil_s=50, worker_bytes=9_000_000, memory_left=8),
            r"`stack PID` says which\. A worker takes up to 9 MB, and 1 MB are left: memory is the limit\.",
        ),
        # A neighbour that does not answer.
        (
            load(workers=1, requests=40, service_s=20, queue_s=1200, cpu_s=0.1),
            r"it would take 122 threads in each worker, so what the views wait for is too slow",
        ),
        # Long waits of few requests, and threads enough on average.
        (load(queue_s=10), r"they come in bursts, and on average the threads are enough"),
    ],
)
def test_the_rule(seen, said):
    assert re.search(said, advice(seen)), advice(seen)


APPLICATION = """
import time
def app(environ, start_response):
    time.sleep(0.05)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@contextlib.contextmanager
def visitors(one, count):
    """Clients, each of which asks again as soon as it is answered."""
    leave = threading.Event()

    def visit():
        with Client(one.address, 20) as client:
            while not leave.is_set():
                client.request("GET", "/")

    threads = [threading.Thread(target=visit) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        leave.set()
        for thread in threads:
            thread.join()


def advise(one, *words):
    """What the command prints, on one line."""
    done = subprocess.run(
        [sys.executable, "-m", "ferricorn.ctl", "-s", one.control, *words],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.slow
def test_who_follows_it_waits_no_longer(server, tmp_path):
    """Eight clients whose view waits 50 ms for something else, on two threads and on as many as are advised."""
    (tmp_path / "slow.py").write_text(APPLICATION)

    def served(threads):
        path = str(tmp_path / f"{threads}.ctl")
        one = server("slow:app", "--threads", str(threads), "--control-socket", path, cwd=tmp_path)
        one.control = path
        # Only a worker that serves has figures.
        assert one.get("/").text == "ok"
        return one

    one = served(2)
    with visitors(one, 8):
        said = advise(one, "-c", "advise 3")
    found = re.search(r"wait (\d+) ms for a thread while threads .* (\d+) threads instead of 2 would cut", said)
    assert found, said
    wait_ms, threads = int(found[1]), int(found[2])
    assert wait_ms > 100
    assert 7 <= threads <= 9, said
    assert one.stop() == 0
    with visitors(one := served(threads), 8):
        said = advise(one, "-j", "-c", "advise 3")
    waits = float(re.search(r'"queue_s": ([\d.]+)', said)[1]) / int(re.search(r'"requests": (\d+)', said)[1])
    assert waits * 1000 < wait_ms / 4, said


def test_what_is_not_asked_for_properly(server, tmp_path):
    path = str(tmp_path / "one.ctl")
    one = server("hello:app", "--control-socket", path)
    one.control = path
    serving(one)
    assert advise(one, "-c", "advise 0.2").startswith("0 requests have finished in 0 s, too few for advice.")
    for words in (["-c", "advise soon"], ["-c", "advise 0"], ["-c", "advise 1 2"]):
        with pytest.raises(AssertionError, match="advise takes a number of seconds, from 0.1 to 3600"):
            advise(one, *words)
