"""What surrounds a server: variables of orchestrators, standard streams of supervisors, time zones, other kinds of
applications."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from harness import APPS, COMMAND, Finished, Server, clean_environment, wait_until

# A pod beside services of such names, and a container of `docker --link`.
POD = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
    **{
        name.replace("X", service): value
        for service in ("FERRICORN", "FERRICORN_WORKERS", "FERRICORN_BIND", "FERRICORN_WEB", "GUNICORN", "DATABASE")
        for name, value in {
            "X_SERVICE_HOST": "10.96.7.9",
            "X_SERVICE_PORT": "80",
            "X_SERVICE_PORT_HTTP": "80",
            "X_PORT": "tcp://10.96.7.9:80",
            "X_PORT_80_TCP": "tcp://10.96.7.9:80",
            "X_PORT_80_TCP_PROTO": "tcp",
            "X_PORT_80_TCP_PORT": "80",
            "X_PORT_80_TCP_ADDR": "10.96.7.9",
            "X_PORT_53_UDP": "udp://10.96.7.9:53",
            "X_NAME": "/web/ferricorn",
            "X_ENV_LANG": "C",
        }.items()
    },
}


def test_service_links_of_a_pod_are_no_settings(server):
    done = Finished(["--check-config", "hello"], env=POD)
    assert done.code == 0, done.error
    assert "Unknown variable" not in done.error
    one = server("hello", env=POD)
    assert one.get("/").status == 200
    assert one.stop() == 0
    log = one.log.join()
    assert "Unknown variable" not in log
    assert "WARNING" not in log


@pytest.mark.ours
def test_a_mistyped_variable_is_still_named():
    done = Finished(["--check-config", "hello"], env={**POD, "FERRICORN_WORKRES": "2"})
    assert done.code == 1
    assert "FERRICORN_WORKRES: did you mean FERRICORN_WORKERS?" in done.error


# -- standard streams -------------------------------------------------------------------------------


@pytest.mark.ours
@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "/dev/fd/2"])
def test_a_standard_stream_that_is_a_socket_takes_the_access_log(path):
    """As under journald."""
    ours, theirs = socket.socketpair()
    seen = bytearray()

    def read():
        while block := ours.recv(65536):
            seen.extend(block)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    process = subprocess.Popen(
        [*COMMAND, "-b", "127.0.0.1:0", "--access-logfile", path, "--error-logfile", "/dev/stderr", "hello"],
        cwd=APPS,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    theirs.close()
    try:
        found = wait_until(lambda: re.search(rb"Listening at: http://127.0.0.1:(\d+)", seen), "it listens")
        with socket.create_connection(("127.0.0.1", int(found.group(1))), 10) as client:
            client.sendall(b"GET /seen HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        wait_until(lambda: b"GET /seen HTTP/1.1" in seen, "the access log arrives")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.ours
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_stream_that_nobody_reads_does_not_keep_term(kind):
    if kind == "pipe":
        unread, theirs = os.pipe()
    else:
        first, second = socket.socketpair()
        unread, theirs = first.detach(), second.detach()
    log_end, log = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "-b", "127.0.0.1:0", "--access-logfile", "-", "--threads", "2", "hello"],
        cwd=APPS,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=log,
        start_new_session=True,
    )
    os.close(theirs)
    os.close(log)
    from harness import Transcript

    transcript = Transcript(os.fdopen(log_end, "rb", 0))
    try:
        port = int(transcript.wait(r"Listening at: http://127.0.0.1:(\d+)")[0].group(1))
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            request = b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
            for _ in range(400):
                client.sendall(request)
                received = b""
                while not received.endswith(b"\r\n\r\nhello") and b"\r\n\r\n" not in received:
                    block = client.recv(65536)
                    assert block, "the server goes on"
                    received += block
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(unread)


# -- time zones -------------------------------------------------------------------------------------

ZONED = """
import os, time
os.environ["TZ"] = "Pacific/Kiritimati"
time.tzset()

def application(environ, start_response):
    if environ["PATH_INFO"] == "/move":
        os.environ["TZ"] = "America/Caracas"
        time.tzset()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.parametrize("arguments", [(), ("--preload",)])
def test_log_lines_follow_the_time_zone_of_the_application(server, tmp_path, arguments):
    (tmp_path / "zoned.py").write_text(ZONED)
    one = server("zoned", "--access-logfile", "-", "--threads", "2", *arguments, cwd=tmp_path, env={"TZ": "UTC"})
    one.get("/first")
    line = one.output.wait(r"^.*GET /first.*$")[0].group(0)
    assert " +1400]" in line
    one.get("/move")
    one.get("/second")

    def moved():
        # A line of the second in which the zone changed may still have the old one.
        one.get("/again")
        lines = [line for line in one.output.text.splitlines() if "GET /again" in line]
        return lines and " -0400]" in lines[-1]

    wait_until(moved, "lines have the new zone")
    assert one.stop() == 0
    exiting = one.log.wait(r"^.*Worker exiting.*$")[0].group(0)
    assert "-0400]" in exiting


# -- applications of another kind -------------------------------------------------------------------

ASGI = """
import functools

async def function(scope, receive, send): pass

class Instance:
    async def __call__(self, scope, receive, send): pass

instance = Instance()
partial = functools.partial(function, None)

@functools.wraps(function)
def decorated(*args): return function(*args)

async def factory(): return instance

def make(): return instance
"""


@pytest.mark.ours
@pytest.mark.parametrize("preload", [(), ("--preload",)])
@pytest.mark.parametrize("before", ["", "import inspect\n"])
@pytest.mark.parametrize("target", ["function", "instance", "partial", "decorated", "factory()", "make()"])
def test_an_asgi_application_is_refused_in_one_line(tmp_path, target, before, preload):
    (tmp_path / "kinds.py").write_text(before + ASGI)
    done = Finished([f"kinds:{target}", *preload], cwd=tmp_path)
    assert done.code == 4, done.error
    lines = [line for line in done.error.splitlines() if "serves WSGI" in line]
    assert lines, done.error
    assert "Traceback" not in done.error
    assert "never awaited" not in done.error


@pytest.mark.ours
def test_check_config_names_an_asgi_application(tmp_path):
    (tmp_path / "kinds.py").write_text(ASGI)
    done = Finished(["--check-config", "kinds:instance"], cwd=tmp_path)
    assert done.code == 1
    assert "is ASGI" in done.error


WSGI_KINDS = """
import functools

def function(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

class Instance:
    def __call__(self, environ, start_response): return function(environ, start_response)

class Iterated:
    def __init__(self, environ, start_response): start_response("200 OK", [("Content-Length", "2")])
    def __iter__(self): yield b"ok"
    async def __call__(self): pass

class Odd:
    func = "not a partial"
    def __call__(self, environ, start_response): return function(environ, start_response)

instance, odd, partial = Instance(), Odd(), functools.partial(function)
"""


@pytest.mark.parametrize("target", ["function", "instance", "Iterated", "odd", "partial"])
def test_wsgi_applications_of_every_kind_are_served(server, tmp_path, target):
    (tmp_path / "kinds.py").write_text(WSGI_KINDS)
    one = server(f"kinds:{target}", cwd=tmp_path)
    assert one.get("/").text == "ok"
    assert one.stop() == 0


MODULES = """
import sys

def app(environ, start_response):
    start_response("200 OK", [])
    return ["\\n".join(sys.modules).encode()]
"""


@pytest.mark.ours
def test_what_an_application_does_not_import_costs_it_no_memory(server, tmp_path):
    """Each process of the server would have 1 MiB more of its own."""
    (tmp_path / "modules.py").write_text(MODULES)
    bare = subprocess.run(
        [sys.executable, "-c", "import logging, socket, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(server("modules:app", cwd=tmp_path).get("/").text.split())
    assert "logging" in loaded
    assert not ({"inspect", "typing", "dis", "asyncio", "email", "argparse"} & loaded) - set(bare.stdout.split())


CUSTOM_CLASS = """
from gunicorn.workers.gthread import ThreadWorker

class TimeoutWorker(ThreadWorker):
    '''As functions-framework has on Cloud Functions.'''
    def handle_request(self, req, conn):
        return super().handle_request(req, conn)
"""


@pytest.mark.ours
@pytest.mark.parametrize("arguments", [(), ("--check-config",)])
@pytest.mark.parametrize("how", ["class", "path"])
def test_a_custom_worker_class_is_refused_with_what_to_use(tmp_path, arguments, how):
    (tmp_path / "own.py").write_text(CUSTOM_CLASS)
    value = "own.TimeoutWorker" if how == "class" else "'own.TimeoutWorker'"
    (tmp_path / "gunicorn.conf.py").write_text(f"import own\nworker_class = {value}\n")
    done = Finished([*arguments, "hello", "--pythonpath", str(APPS)], cwd=tmp_path)
    assert done.code == 1
    assert "request_timeout" in done.error
    assert "Traceback" not in done.error


# -- small ------------------------------------------------------------------------------------------


@pytest.mark.ours
@pytest.mark.parametrize(
    ("arguments", "name"), [((), "sync"), (("-k", "sync"), "sync"), (("--threads", "3"), "hybrid (3 threads)")]
)
def test_the_log_names_the_worker_that_was_asked_for(server, arguments, name):
    one = server("hello", *arguments)
    assert one.log.wait(r"Using worker: (.+)$")[0].group(1) == name


EXITS = """
import os, sys
{how}({code})
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_an_exit_with_0_at_import(tmp_path, preload):
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
    one = Server(["exits", *preload], cwd=tmp_path)
    try:
        if preload:
            assert one.wait_exit() == 0
        else:
            # The worker is started again, as in gunicorn.
            one.log.wait("Booting worker with pid", 2)
            assert one.stop() == 0
    finally:
        one.reap()


@pytest.mark.ours
def test_threads_of_a_preloaded_application_are_no_warning(server, tmp_path):
    (tmp_path / "threaded.py").write_text(
        "import os, threading\n"
        "stop = threading.Event()\n"
        "def start(): threading.Thread(target=stop.wait, name='exporter', daemon=True).start()\n"
        "start()\n"
        "os.register_at_fork(after_in_child=start)\n"
        "def application(environ, start_response):\n"
        "    body = ' '.join(sorted(one.name for one in threading.enumerate())).encode()\n"
        "    start_response('200 OK', [('Content-Length', str(len(body)))])\n"
        "    return [body]\n"
    )
    one = server("threaded", "--preload", cwd=tmp_path)
    assert "exporter" in one.get("/").text
    assert one.stop() == 0
    log = one.log.join()
    assert "exporter" in log, "the line names it"
    assert "WARNING" not in log
