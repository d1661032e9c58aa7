"""What applications and configuration files do beyond the documentation, and find to work under gunicorn.

Every case here was tried against gunicorn first, and runs against it.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from harness import APPS, IS_OURS, wait_until

SYNC = ("-k", "sync")
THREADS = ("--threads", "2")
BOTH = pytest.mark.parametrize("arguments", [SYNC, THREADS], ids=["sync", "threads"])
PRELOAD = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])

IMPORTS = "import os, sys\nsys.path.insert(0, os.environ['APPS'])\nimport gate\n"
APPLICATION = """
import os, gate
{before}
def view(environ):
    return str(os.getpid())
{after}
def application(environ, start_response):
    body = str(view(environ)).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def site(server, tmp_path):
    def start(*arguments, before="", after="", conf="", **options):
        (tmp_path / "site_app.py").write_text(APPLICATION.format(before=before, after=after))
        (tmp_path / "conf.py").write_text(IMPORTS + conf)
        env = {"APPS": str(APPS)}
        line = ("site_app", "-c", "conf.py", "--pythonpath", env["APPS"], *arguments)
        return server(*line, cwd=tmp_path, env=env, **options)

    start.directory = tmp_path
    return start


# -- signals ---------------------------------------------------------------------------------------

WAITS = "def view(environ):\n    gate.wait('view')\n    return 'done'\n"


def stopped_while_busy(one, gates, number=signal.SIGTERM):
    """Signals the worker while a request runs; returns the request's answer."""
    with one.connect() as client:
        client.send_request("GET", "/")
        gates.wait_reached("view")
        (worker,) = set(one.booted())
        os.kill(worker, number)
        gates.open("view")
        answer = client.read_response()
    wait_until(lambda: worker not in one.workers(), "the worker has left")
    return answer


@BOTH
def test_a_handler_that_post_worker_init_sets_is_called_and_may_chain(site, gates, arguments):
    one = site(
        *arguments,
        after=WAITS,
        conf="import signal\n"
        "def post_worker_init(worker):\n"
        "    old = signal.getsignal(signal.SIGTERM)\n"
        "    def handler(number, frame):\n        gate.note('called', number)\n        old(number, frame)\n"
        "    signal.signal(signal.SIGTERM, handler)\n",
    )
    assert stopped_while_busy(one, gates).text == "done"
    assert gates.notes("called") == ["15"]
    one.log.wait("Booting worker", 2)
    assert one.stop() == 0


@BOTH
def test_a_handler_that_post_fork_sets_is_replaced(site, gates, arguments):
    one = site(
        *arguments,
        after=WAITS,
        conf="import signal\n"
        "def post_fork(server, worker):\n"
        "    signal.signal(signal.SIGTERM, lambda number, frame: gate.note('called', number))\n",
    )
    assert stopped_while_busy(one, gates).text == "done"
    assert gates.notes("called") == []
    assert one.stop() == 0


@BOTH
def test_a_handler_that_a_view_sets(site, gates, arguments):
    """Only the main thread may: with threads it is an error of the application, as in any program."""
    one = site(
        *arguments,
        before="import signal",
        after="def view(environ):\n"
        "    try:\n"
        "        signal.signal(signal.SIGUSR2, lambda number, frame: gate.note('called', number))\n"
        "    except ValueError:\n        return 'refused'\n"
        "    return 'set'\n",
    )
    is_main = arguments is SYNC
    assert one.get("/").text == ("set" if is_main else "refused")
    if is_main:
        os.kill(one.booted()[0], signal.SIGUSR2)
        assert gates.wait_notes("called") == ["12"]
    assert one.stop() == 0


@pytest.mark.parametrize("hook", ["when_ready", "on_reload"])
def test_a_handler_of_the_master_that_a_hook_sets(site, gates, hook):
    one = site(
        conf=f"import signal\ndef {hook}(server):\n"
        "    signal.signal(signal.SIGWINCH, lambda number, frame: gate.note('called', os.getpid()))\n"
        "    gate.note('set', 1)\n"
    )
    if hook == "on_reload":
        one.send_signal(signal.SIGHUP)
    gates.wait_notes("set")
    one.send_signal(signal.SIGWINCH)
    assert gates.wait_notes("called") == [str(one.pid)]
    assert one.stop() == 0


def test_asyncio_in_a_view_takes_and_gives_back_the_signals(site, gates):
    """`add_signal_handler` sets the wake-up descriptor, and sets it to none at the end."""
    one = site(
        *SYNC,
        before="import asyncio, signal\n"
        "signal.signal(signal.SIGUSR2, lambda number, frame: gate.note('called', number))\n",
        after="async def main():\n"
        "    loop = asyncio.get_running_loop()\n    event = asyncio.Event()\n"
        "    loop.add_signal_handler(signal.SIGWINCH, event.set)\n"
        "    signal.raise_signal(signal.SIGWINCH)\n"
        "    await asyncio.wait_for(event.wait(), 10)\n"
        "    loop.remove_signal_handler(signal.SIGWINCH)\n    return 'seen'\n"
        "def view(environ):\n    return asyncio.run(main())\n",
    )
    for _ in range(2):
        assert one.get("/").text == "seen"
    os.kill(one.booted()[0], signal.SIGUSR2)
    assert gates.wait_notes("called") == ["12"]
    begun = time.monotonic()
    assert one.stop() == 0
    if IS_OURS:
        assert time.monotonic() - begun < 10


@BOTH
def test_a_timer_that_interrupts_all_the_time(site, gates, arguments):
    one = site(
        *arguments,
        before="import signal\nCOUNT = [0]\n"
        "def tick(number, frame):\n    COUNT[0] += 1\n"
        "signal.signal(signal.SIGALRM, tick)\nsignal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)\n",
        after="def view(environ):\n    return COUNT[0]\n",
    )
    wait_until(lambda: int(one.get("/").text) > 50, "the timer runs while the worker serves")
    assert one.stop() == 0


@BOTH
def test_a_handler_for_children_beside_subprocess(site, gates, arguments):
    one = site(
        *arguments,
        before="import signal, subprocess\n"
        "signal.signal(signal.SIGCHLD, lambda number, frame: gate.note('child', number))\n",
        after="def view(environ):\n    return subprocess.check_output(['echo', 'said'], text=True)\n",
    )
    assert one.get("/").text == "said\n"
    assert gates.wait_notes("child")[0] == "17"
    assert one.stop() == 0


# -- loggers ---------------------------------------------------------------------------------------


@PRELOAD
def test_a_level_that_when_ready_sets_is_every_process_s(site, preload):
    one = site(
        *preload,
        conf="import logging\ndef on_starting(server):\n    server.log.error_log.setLevel(logging.WARNING)\n",
        ready=False,
    )
    wait_until(lambda: one.workers(), "a worker")
    one.log.wait("^", 0)
    assert one.stop() == 0
    assert "Booting worker" not in one.log.join() and "Shutting down" not in one.log.text


def test_loggers_that_a_configuration_file_disables(site):
    one = site(
        "--access-logfile",
        "-",
        conf="import logging.config\n"
        "def post_fork(server, worker):\n"
        "    logging.config.dictConfig({'version': 1, 'disable_existing_loggers': True})\n",
    )
    assert one.get("/quiet").status == 200
    assert one.stop() == 0
    assert "/quiet" not in one.output.join() and "Worker exiting" not in one.log.join()
    assert "Shutting down: Master" in one.log.text


# -- objects of hooks ------------------------------------------------------------------------------


def test_what_hooks_read_of_their_objects(site, gates):
    one = site(
        *THREADS,
        conf="def worker_facts(worker):\n"
        "    return [worker.age, worker.ppid == os.getppid(), worker.pid == os.getpid(), worker.nr, worker.booted,\n"
        "        worker.alive, worker.aborted, worker.timeout, len(worker.sockets), worker.cfg.threads,\n"
        "        worker.reloader is None, type(worker.tmp.last_update()).__name__, str(worker).startswith('<')]\n"
        "def post_worker_init(worker):\n    gate.note('worker', worker_facts(worker))\n"
        "def when_ready(server):\n"
        "    gate.note('server', [\n"
        "        server.pid == os.getpid(), server.master_pid, server.master_name, server.reexec_pid,\n"
        "        server.num_workers, server.timeout, server.worker_age, server.systemd, len(server.LISTENERS),\n"
        "        server.LISTENERS[0].getsockname()[0], sorted(map(str, server.START_CTX)), server.cfg.workers,\n"
        "        server.address[0][0],\n"
        "        type(server.WORKERS).__name__, server.proc_name, server.app.cfg is server.cfg, server.pidfile])\n",
    )
    (worker,) = gates.wait_notes("worker")
    assert worker == "[1, True, True, 0, False, True, False, 15.0, 1, 2, True, 'float', True]"
    (server,) = gates.wait_notes("server")
    assert server == (
        "[True, 0, 'Master', 0, 1, 30, 0, False, 1, '127.0.0.1', ['0', 'args', 'cwd'], 1, '127.0.0.1', 'dict', "
        "'site_app', True, None]"
    )
    assert one.stop() == 0


def test_the_environment_of_each_worker_by_pre_fork(site):
    one = site(
        *THREADS,
        conf="def pre_fork(server, worker):\n    os.environ['NUMBER'] = str(worker.age)\n",
        after="def view(environ):\n    return os.environ['NUMBER']\n",
        workers=2,
    )
    wait_until(lambda: {one.get("/").text for _ in range(8)} == {"1", "2"}, "both workers")
    assert one.stop() == 0


@PRELOAD
def test_a_thread_that_post_fork_starts(site, gates, preload):
    one = site(
        *preload,
        conf="import threading\ndef post_fork(server, worker):\n"
        "    def run():\n        gate.wait('asked')\n        gate.note('runs', os.getpid())\n"
        "    threading.Thread(target=run, daemon=True).start()\n",
    )
    gates.wait_reached("asked")
    gates.open("asked")
    assert gates.wait_notes("runs") == [str(one.booted()[0])]
    assert one.stop() == 0


# -- threads and profilers -------------------------------------------------------------------------


@BOTH
def test_a_profile_function_sees_views(site, gates, arguments):
    one = site(
        *arguments,
        before="import threading, sys\nSEEN = set()\n"
        "def profile(frame, event, argument):\n    SEEN.add(frame.f_code.co_name)\n"
        "threading.setprofile(profile)\nsys.setprofile(profile)\n",
        after="def inner():\n    pass\ndef view(environ):\n    inner()\n    return 'inner' in SEEN\n",
    )
    assert one.get("/").text == "True"
    assert one.stop() == 0


# -- leaving ---------------------------------------------------------------------------------------

ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])


@BOTH
@PRELOAD
def test_what_an_executor_has_been_given_is_done_before_the_end(site, gates, arguments, preload):
    one = site(
        *arguments,
        *preload,
        before="import atexit, concurrent.futures, time\n"
        "LOG = open('buffered.txt', 'a')\nexecutor = concurrent.futures.ThreadPoolExecutor(1)\n"
        "def late():\n    time.sleep(0.4)\n    LOG.write('late')\n    gate.note('order', 'late')\n"
        "atexit.register(lambda: gate.note('order', 'atexit ' + str(os.getpid())))\n",
        after="def view(environ):\n    executor.submit(late)\n    executor.submit(late)\n    return os.getpid()\n",
    )
    worker = one.get("/").text
    assert one.stop() == 0
    order = [line for line in gates.notes("order") if line == "late" or worker in line]
    assert order == ["late", "late", f"atexit {worker}"]
    assert (site.directory / "buffered.txt").read_text() == "latelate"


# A child of gunicorn's worker has the worker's handler of TERM, and the two wait for each other.
@pytest.mark.ours
@BOTH
@ENDS
def test_daemons_of_multiprocessing_end_with_their_worker(site, gates, arguments, number):
    one = site(
        *arguments,
        before="import multiprocessing, time\ndef run():\n    gate.note('daemon', os.getpid())\n    time.sleep(120)\n",
        after="def view(environ):\n"
        "    multiprocessing.get_context('fork').Process(target=run, daemon=True).start()\n    return os.getpid()\n",
    )
    one.get("/")
    gates.wait_notes("daemon")
    one.send_signal(number)
    assert one.wait_exit() == 0
    one.wait_gone()
