"""An application that forks in every way that Python has, and some that C has. Children say their pids to the test."""

import concurrent.futures
import contextlib
import ctypes
import json
import logging
import multiprocessing
import os
import platform
import pty
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs

import gate

NAP_S = 60
FORK = multiprocessing.get_context("fork")
LISTING = (
    "import json, os; there = '/proc/self/fd/'; "
    "print(json.dumps({n: os.readlink(there + n) for n in os.listdir(there) if os.path.islink(there + n)}))"
)


def on_user_signal(number, frame):
    gate.note("handled", os.getpid())


# What the application says about signals is its own, in its children too.
signal.signal(signal.SIGALRM, on_user_signal)

KEPT = []

close = os.close
if "gevent" in sys.modules:
    from gevent import monkey

    # gevent's closes pipes when the hub turns next: who reads until the end before that waits for ever.
    close = monkey.get_original("os", "close")


def nap():
    time.sleep(NAP_S)


def nap_in_c():
    """In a child of which Python does not know, Python code had better not run."""
    ctypes.PyDLL(None).sleep(NAP_S)


def square(number):
    return number * number


def descriptors():
    """Number and target of every descriptor of this process, but that of the listing itself."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[entry.name] = str(entry.readlink())
    return found


def status_of(pid, patience=4.0, again=None):
    """How the child ended, as subprocess counts; None when it had to be killed. Each half second it is sent `again`."""
    deadline = time.monotonic() + patience
    next_signal = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        if again and time.monotonic() > next_signal:
            next_signal += 0.5
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, again)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


# -- forks, by their name --------------------------------------------------------------------------


def fork_python():
    return os.fork()


def fork_c():
    """As a C library forks: Python is not asked, `pthread_atfork` is."""
    return ctypes.PyDLL(None).fork()


def fork_raw():
    """As a library with its own system calls forks: nobody is asked."""
    number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    return ctypes.PyDLL(None).syscall(number, int(signal.SIGCHLD), 0, 0, 0, 0)


FORKS = {"python": fork_python, "c": fork_c, "raw": fork_raw}


def fork(query, child, is_noted=True):
    """Fork as the query says; `child` runs in the child, which then ends without ado."""
    pid = FORKS[query.get("fork", "python")]()
    if pid == 0:
        code = 70
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    if is_noted:
        gate.note("child", pid)
    return pid


# -- children that are ended -----------------------------------------------------------------------


def terminated(query):
    child = FORK.Process(target=nap, daemon=True)
    child.start()
    gate.note("child", child.pid)
    child.terminate()
    child.join(3)
    code = child.exitcode
    child.kill()
    child.join()
    return str(code)


def signalled(query):
    number = getattr(signal, f"SIG{query['signal']}")

    def child():
        gate.reach("child")
        nap() if query.get("fork", "python") == "python" else nap_in_c()

    pid = fork(query, child)
    deadline = time.monotonic() + 10
    while not gate._path("child.reached").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(pid, number)
    # gevent loses an interrupt that comes right before it waits: 1 of 100 on a busy machine, also without a server.
    is_lossy = number == signal.SIGINT and "gevent" in sys.modules
    return str(status_of(pid, 3, number if is_lossy else None))


def dispositions(query):
    """Signals that a child blocks and catches, and the descriptor that Python would write to when one comes."""
    pipe, end = os.pipe()

    def child():
        with open("/proc/self/status") as status:
            fields = dict(line.split(":\t", 1) for line in status.read().splitlines() if line.startswith("Sig"))
        os.write(end, json.dumps([fields["SigBlk"], fields["SigCgt"], signal.set_wakeup_fd(-1)]).encode())

    pid = fork(query, child)
    close(end)
    with open(pipe, "rb") as said:
        text = said.read().decode()
    status_of(pid)
    return text


def program_signals(query):
    """SigBlk and SigIgn of a program that is started: both survive an exec."""
    words = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def own_handler(query):
    pid = fork(query, lambda: (gate.reach("child"), os.kill(os.getpid(), signal.SIGALRM), time.sleep(0)))
    status_of(pid)
    return str(pid)


def pool(query):
    """Pools end their processes by TERM, the sooner they end the likelier."""
    total = 0
    for _ in range(int(query.get("times", 1))):
        with FORK.Pool(4) as workers:
            total += sum(workers.map(square, range(10)))
    return str(total)


def executor(query):
    context = multiprocessing.get_context(query["method"])
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as workers:
        return str(sum(workers.map(square, range(10))))


def process(query):
    context = multiprocessing.get_context(query["method"])
    child = context.Process(target=square, args=(2,))
    child.start()
    gate.note("child", child.pid)
    child.join(30)
    return str(child.exitcode)


# -- children that live on -------------------------------------------------------------------------


def left(query):
    """A child that sleeps."""
    return str(fork(query, nap_in_c))


def left_without_descriptors(query):
    """Forked while the process has as many descriptors as it may."""
    held, limits = [], resource.getrlimit(resource.RLIMIT_NOFILE)
    if "limit" in query:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(query["limit"]), limits[1]))
    with contextlib.suppress(OSError):
        while True:
            held.append(os.dup(0))
    pid = os.fork()
    if pid == 0:
        nap_in_c()
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for number in held:
        close(number)
    gate.note("child", pid)
    return str(pid)


def left_process(query):
    child = FORK.Process(target=nap, daemon=query.get("daemon") == "yes")
    child.start()
    KEPT.append(child)
    gate.note("child", child.pid)
    return str(child.pid)


def daemon(query):
    """A double fork: nobody's child, in a session of its own."""

    def child():
        os.setsid()
        pid = os.fork()
        if pid == 0:
            for number in (0, 1, 2):
                close(number)
            os.open("/dev/null", os.O_RDWR)
            os.dup2(0, 1)
            os.dup2(0, 2)
            nap()
            os._exit(0)
        gate.note("child", pid)

    # Only the daemon is noted, by the process between.
    status_of(fork(query, child, is_noted=False))
    return "started"


def busy_child(query):
    """A child that does what a child should not: it uses what it finds of the server."""

    def child():
        logging.getLogger("gunicorn.error").info("said by a child")
        print("printed by a child", file=sys.stderr, flush=True)

    return str(status_of(fork(query, child)))


# -- children that leave by our door ---------------------------------------------------------------


def returns(query):
    pid = os.fork()
    if pid:
        gate.note("child", pid)
        return f"parent {os.getpid()}"
    return f"child {os.getpid()}"


def raises(query):
    pid = os.fork()
    if pid:
        gate.note("child", pid)
        return f"parent {os.getpid()}"
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "ValueError": ValueError}[query["what"]](3)


def exits(query):
    pid = os.fork()
    if pid:
        gate.note("child", pid)
        return f"parent {os.getpid()}"
    sys.exit(3)


def returns_with_thread(query):
    """The child has a thread that Python would wait for at its end."""
    pid = os.fork()
    if pid:
        gate.note("child", pid)
        return f"parent {os.getpid()}"
    threading.Thread(target=nap).start()
    sys.exit(3)


def late_use(query):
    """The child uses what belongs to its worker's request: every attempt is refused."""
    start_response, environ = query["call"]
    pipe, end = os.pipe()

    def child():
        raised = []
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        for attempt in (lambda: write(b"child"), lambda: environ["wsgi.early_hints"]([("Link", "a")])):
            try:
                attempt()
            except ConnectionResetError as error:
                raised.append(str(error))
        os.write(end, json.dumps(raised).encode())

    pid = fork({}, child)
    close(end)
    with open(pipe, "rb") as said:
        text = said.read().decode()
    status_of(pid)
    return text


# -- programs --------------------------------------------------------------------------------------


def run_open(query):
    words = [sys.executable, "-S", "-E", "-c", LISTING]
    return subprocess.run(words, capture_output=True, text=True, check=True, close_fds=False).stdout


def run_shell(query):
    """`os.system`, which asks nobody what to inherit."""
    path = gate._path("listing")
    os.system(f'{sys.executable} -S -E -c "{LISTING}" > {path}')
    return path.read_text()


def run_spawn(query):
    path = gate._path("listing")
    action = [(os.POSIX_SPAWN_OPEN, 1, str(path), os.O_CREAT | os.O_WRONLY, 0o600)]
    words = [sys.executable, "-S", "-E", "-c", LISTING]
    pid = os.posix_spawn(sys.executable, words, os.environ, file_actions=action)
    status_of(pid)
    return path.read_text()


def run_exec(query):
    pipe, end = os.pipe()

    def child():
        os.dup2(end, 1)
        os.execv(sys.executable, [sys.executable, "-S", "-E", "-c", LISTING])

    pid = fork(query, child)
    close(end)
    with open(pipe, "rb") as said:
        text = said.read().decode()
    status_of(pid)
    return text


def run_terminal(query):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-S", "-E", "-c", LISTING])
    gate.note("child", pid)
    said = b""
    try:
        while block := os.read(terminal, 65536):
            said += block
    except OSError:
        pass
    close(terminal)
    status_of(pid)
    return said.decode()


def run_c(query):
    """The C library's `system`, with the GIL held."""
    path = gate._path("listing")
    ctypes.PyDLL(None).system(f'{sys.executable} -S -E -c "{LISTING}" > {path}'.encode())
    return path.read_text()


def listed(query):
    """The descriptors of a child that is a copy of this process."""
    pipe, end = os.pipe()

    def child():
        close(pipe)
        found = descriptors()
        del found[str(end)]
        os.write(end, json.dumps(found).encode())

    pid = fork(query, child)
    close(end)
    with open(pipe, "rb") as said:
        text = said.read().decode()
    status_of(pid)
    return text


def read_in_child(query):
    """How many bytes a child reads of the request's body."""
    pipe, end = os.pipe()

    def child():
        _, environ = query["call"]
        os.write(end, str(len(environ["wsgi.input"].read())).encode())

    pid = fork({"fork": "python"}, child)
    close(end)
    with open(pipe) as said:
        text = said.read()
    status_of(pid)
    return text


def large(query):
    return "x" * (4 << 20)


def late(query):
    gate.wait("late")
    return "late"


def mapped(query):
    """The shared writable memory of a child."""
    pipe, end = os.pipe()

    def child():
        with open("/proc/self/maps") as maps:
            os.write(end, "".join(line for line in maps if " rw-s " in line).encode())

    pid = fork(query, child)
    close(end)
    with open(pipe, "rb") as said:
        text = said.read().decode()
    status_of(pid)
    return text


def server(query):
    """Another server, started by this one with everything that it lets go of."""
    words = [sys.executable, "-m", "ferricorn", "-b", "127.0.0.1:0", "hello:app"]
    process = subprocess.Popen(words, close_fds=False, stderr=subprocess.PIPE, text=True)
    KEPT.append(process)
    gate.note("child", process.pid)
    for line in process.stderr:
        if "Booting worker" in line:
            break
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return str(process.pid)


# -- what the worker is asked ----------------------------------------------------------------------


def pid(query):
    return str(os.getpid())


def block(query):
    gate.wait(query["gate"])
    return f"unblocked {os.getpid()}"


def pieces(start_response, query):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if query.get("fork"):
        child = os.fork()
        if child:
            gate.note("child", child)
    for number in range(3):
        yield b"piece %d\n" % number


def broken(start_response, query):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"first"
    gate.wait("break")
    raise ValueError("broken on purpose")


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    name = environ["PATH_INFO"].strip("/") or "pid"
    if name in ("pieces", "broken"):
        return globals()[name](start_response, query)
    query["call"] = (start_response, environ)
    body = globals()[name](query).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
