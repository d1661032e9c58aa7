"""Files that a privileged master writes, in directories where others may write: nothing of root's is given away.

`--user` makes the master root's and the workers somebody else's; who has the log directory may be the workers' user.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from test_files import resident_kib

from harness import COMMAND, kill_session, wait_until
from wire import Client, Disconnected

NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up privileges")
AS_NOBODY = ("--user", str(NOBODY), "--group", str(NOBODY), "--preload")
SECRET = "root's own words\n"


@pytest.fixture
def place():
    """A directory that everybody can reach: `logs` in it is the workers' user's, `secret` is root's."""
    directory = Path(tempfile.mkdtemp(prefix="ferricorn-place-"))
    directory.chmod(0o755)
    logs = directory / "logs"
    logs.mkdir()
    if os.geteuid() == 0:
        os.chown(logs, NOBODY, NOBODY)
    secret = directory / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def by_force(server):
    """Servers whose files were tampered with need not end in order."""
    yield
    for one in server.started:
        kill_session(one.pid)


def log_files(place, which):
    """Arguments for logs in the foreign directory; `which` is the one that is looked at."""
    access, error = place / "logs" / "access.log", place / "logs" / "error.log"
    arguments = ["--access-logfile", str(access), "--error-logfile", str(error)]
    return arguments, {"access": access, "error": error}[which]


def start(server, place, *arguments, binds=()):
    """A server on a unix socket, which needs no log to be found."""
    path = place / "socket"
    one = server("self_contained:app", *arguments, bind=(f"unix:{path}", *binds), ready=False)
    one.address = str(path)

    def answers():
        with contextlib.suppress(OSError, Disconnected), Client(one.address, 2) as client:
            return client.request("GET", "/").status == 200

    wait_until(answers, "it serves")
    return one


def is_untouched(path: Path) -> bool:
    status = path.stat()
    return (status.st_uid, status.st_mode & 0o777, path.read_text()) == (0, 0o600, SECRET)


def stir(one, number=signal.SIGUSR1):
    """Have every process look at its logs: by the signal, and by requests and time."""
    if number:
        one.send_signal(number)
    for _ in range(20):
        with contextlib.suppress(OSError, Disconnected), Client(one.address, 2) as client:
            client.request("GET", "/")


def assert_untouched_for(one, secret, seconds):
    """Files are looked after once a second, so for a little more than that nothing may happen."""
    with pytest.raises(AssertionError, match="not within"):
        wait_until(lambda: stir(one, None) or not is_untouched(secret), "somebody touches it", seconds)


# -- log files -------------------------------------------------------------------------------------


@ROOT
@pytest.mark.ours
@pytest.mark.parametrize("which", ["error", "access"])
@pytest.mark.parametrize("how", ["usr1", "follow"])
def test_a_log_that_becomes_a_symlink_gives_nothing_away(server, place, which, how):
    arguments, path = log_files(place, which)
    one = start(server, place, *AS_NOBODY, *arguments)
    path.rename(path.with_suffix(".1"))
    path.symlink_to(place / "secret")
    stir(one, signal.SIGUSR1 if how == "usr1" else None)
    assert_untouched_for(one, place / "secret", 1.5)


@ROOT
@pytest.mark.ours
@pytest.mark.parametrize("which", ["error", "access"])
def test_a_log_that_becomes_a_hard_link_gives_nothing_away(server, place, which):
    """Where the system does not protect hard links, anybody can make one to a file that is not theirs."""
    arguments, path = log_files(place, which)
    one = start(server, place, *AS_NOBODY, *arguments)
    path.rename(path.with_suffix(".1"))
    os.link(place / "secret", path)
    stir(one)
    assert_untouched_for(one, place / "secret", 1.5)


@ROOT
@pytest.mark.ours
def test_a_log_directory_that_becomes_a_symlink_gives_nothing_away(server, place):
    """The last name is honest; the one before it is not."""
    inner, roots = place / "logs" / "app", place / "roots"
    inner.mkdir()
    os.chown(inner, NOBODY, NOBODY)
    roots.mkdir(mode=0o700)
    (place / "secret").rename(roots / "error.log")
    one = start(server, place, *AS_NOBODY, "--error-logfile", str(inner / "error.log"))
    inner.rename(place / "logs" / "old")
    inner.symlink_to(roots)
    stir(one)
    assert_untouched_for(one, roots / "error.log", 1.5)


@ROOT
@pytest.mark.ours
@pytest.mark.parametrize("which", ["error", "access"])
def test_a_log_that_is_a_symlink_at_the_start_gives_nothing_away(server, place, which):
    """Refused, or written by the workers' user: root's file stays as it is."""
    arguments, path = log_files(place, which)
    path.symlink_to(place / "secret")
    os.lchown(path, NOBODY, NOBODY)
    one = server("self_contained:app", *AS_NOBODY, *arguments, ready=False)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: one.process.poll() is not None or not is_untouched(place / "secret"), "an end", 1.5)
    assert is_untouched(place / "secret")


@ROOT
@pytest.mark.ours
@pytest.mark.parametrize("how", ["start", "usr1"])
def test_a_log_that_is_a_symlink_to_a_descriptor_of_another_process_gives_nothing_away(server, place, how):
    """`/proc/PID/fd/N` opens a file by its descriptor, also one that may not be opened by its name."""
    arguments, path = log_files(place, "error")

    def lay():
        path.symlink_to(f"/proc/{os.getpid()}/fd/{held.fileno()}")
        os.lchown(path, NOBODY, NOBODY)

    with (place / "secret").open("a") as held:
        if how == "start":
            lay()
            one = server("self_contained:app", *AS_NOBODY, *arguments, ready=False)
            assert one.wait_exit() == 1
            one.log.wait("isn't opened as root: .*of the kernel")
        else:
            one = start(server, place, *AS_NOBODY, *arguments)
            path.rename(path.with_suffix(".1"))
            lay()
            stir(one)
            assert_untouched_for(one, place / "secret", 1.5)
    assert is_untouched(place / "secret")


@ROOT
@pytest.mark.ours
def test_a_log_that_was_there_before_keeps_its_owner(server, place):
    """What we did not make is not ours to give away; its lines are written all the same."""
    logs = place / "roots"
    logs.mkdir(mode=0o755)
    path = logs / "access.log"
    path.write_text("from before\n")
    path.chmod(0o640)
    one = start(server, place, *AS_NOBODY, "--access-logfile", str(path))
    wait_until(lambda: "GET / HTTP/1.1" in path.read_text(), "a line")
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, 0, 0o640)
    assert one.process.poll() is None


@pytest.mark.parametrize("which", ["--access-logfile", "--error-logfile"])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr"])
def test_a_log_may_be_a_standard_stream_by_its_name_in_dev(server, place, which, name):
    """As container images do; it is a symlink, and root's."""
    one = start(server, place, which, name)
    with contextlib.suppress(OSError, Disconnected), Client(one.address, 2) as client:
        client.request("GET", "/")
    stream = one.output if name == "/dev/stdout" else one.log
    stream.wait("GET / HTTP/1.1" if which == "--access-logfile" else "Booting worker")


def test_a_log_may_be_a_symlink_of_its_own_user(server, place):
    """A link to another disk, as operators make it, with nobody else in the directory."""
    directory, disk = place / "own", place / "disk"
    directory.mkdir(mode=0o755)
    disk.mkdir(mode=0o755)
    (directory / "access.log").symlink_to(disk / "access.log")
    one = start(server, place, "--access-logfile", str(directory / "access.log"))
    with Client(one.address, 2) as client:
        client.request("GET", "/")
    wait_until(lambda: "GET / HTTP/1.1" in (disk / "access.log").read_text(), "a line")


@pytest.mark.ours
@pytest.mark.parametrize("which", ["error", "access"])
def test_a_log_that_becomes_a_pipe_holds_nobody(server, place, which):
    arguments, path = log_files(place, which)
    one = start(server, place, *arguments)
    path.rename(path.with_suffix(".1"))
    os.mkfifo(path)
    one.send_signal(signal.SIGUSR1)
    # The signal is acted upon in every process before the next one is.
    one.send_signal(signal.SIGTTIN)
    wait_until(lambda: len(one.workers()) == 2, "the master acts", 3)
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(5) == 0


# -- the pidfile -----------------------------------------------------------------------------------


def with_own_pid(prepare: str):
    """Runs `prepare` in a shell whose pid, `$$`, will be the master's."""
    return ["sh", "-c", f'{prepare}; exec "$@"', "sh", *COMMAND]


@pytest.mark.ours
def test_a_pidfile_writes_through_no_symlink_that_somebody_has_laid(server, place):
    path = place / "logs" / "app.pid"
    names = [f"{path}.$$", f"{path}.tmp", f"{path}~", f"{path}.new", f"{place}/logs/.app.pid.$$"]
    prepare = "; ".join(f"ln -s {place}/secret {name}" for name in names)
    one = server("hello:app", "--pid", str(path), command=with_own_pid(prepare))
    assert (place / "secret").read_text() == SECRET
    assert (place / "secret").stat().st_mode & 0o777 == 0o600
    assert not path.is_symlink()
    assert path.read_text() == f"{one.pid}\n"


@pytest.mark.ours
def test_a_pidfile_is_written_although_a_dead_server_of_the_same_pid_left_half_of_one(server, place):
    """As in a container, where the master has the same number after each crash."""
    path = place / "logs" / "app.pid"
    one = server("hello:app", "--pid", str(path), command=with_own_pid(f"echo > {path}.$$"))
    assert path.read_text() == f"{one.pid}\n"


def test_a_pidfile_that_is_a_symlink_is_replaced_and_its_target_is_not_touched(server, place):
    path = place / "logs" / "app.pid"
    path.symlink_to(place / "secret")
    one = server("hello:app", "--pid", str(path))
    assert (place / "secret").read_text() == SECRET
    assert path.read_text() == f"{one.pid}\n"


@pytest.mark.ours
def test_who_can_only_read_a_pidfile_that_is_left_over_does_not_stop_a_restart(server, place):
    path = place / "app.pid"
    one = server("hello:app", "--pid", str(path))
    kill_session(one.pid)
    assert path.read_text() == f"{one.pid}\n"
    with path.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        fcntl.lockf(reader, fcntl.LOCK_SH)
        second = server("hello:app", "--pid", str(path))
        assert path.read_text() == f"{second.pid}\n"


@pytest.mark.ours
def test_a_full_disk_leaves_no_half_of_a_pidfile(server, place):
    """A limit on the size of files fails the write as a full disk does."""
    path = place / "logs" / "app.pid"
    one = server(
        "hello:app", "--pid", str(path), command=["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *COMMAND], ready=False
    )
    assert one.wait_exit() == 1
    one.log.wait("pid file|pidfile")
    assert list(path.parent.iterdir()) == []


@pytest.mark.ours
@pytest.mark.parametrize("what", ["fifo", "endless"])
def test_a_stop_is_not_held_by_what_somebody_put_in_the_pidfiles_place(server, place, what):
    path = place / "logs" / "app.pid"
    one = server("hello:app", "--pid", str(path))
    path.unlink()
    os.mkfifo(path) if what == "fifo" else path.symlink_to("/dev/zero")
    # Not to fill the machine's memory.
    resource.prlimit(one.pid, resource.RLIMIT_AS, (1 << 30, 1 << 30))
    most = 0

    def has_exited():
        nonlocal most
        with contextlib.suppress(OSError, StopIteration):
            most = max(most, resident_kib(one.pid))
        return one.process.poll() is not None

    one.send_signal(signal.SIGTERM)
    wait_until(has_exited, "the master ends", 3)
    assert most < 200 * 1024, f"{most} KiB"
    assert one.process.returncode == 0
    assert path.is_fifo() or path.is_symlink(), "it is not the server's to remove"


@pytest.mark.ours
def test_a_start_is_not_held_by_a_pipe_in_the_pidfiles_place(server, place):
    """It is refused with a line, or replaced."""
    path = place / "logs" / "app.pid"
    os.mkfifo(path)
    one = server("hello:app", "--pid", str(path), ready=False)
    wait_until(lambda: re.search("Listening at|pid ?file", one.log.text, re.IGNORECASE), "it goes on", 3)


# -- socket files ----------------------------------------------------------------------------------


FOREIGN = """
import os, socket, sys
path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path + ".new")
listener.listen()
os.rename(path + ".new", path)
print("bound", flush=True)
while True:
    client, _ = listener.accept()
    client.sendall(b"foreign")
    client.close()
"""


@contextlib.contextmanager
def foreign_listener(path):
    """Another process that listens at the path."""
    process = subprocess.Popen([sys.executable, "-c", FOREIGN, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"bound\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def answer_at(path) -> bytes:
    with Client(str(path), 5) as client:
        return client.read_to_end()


@pytest.mark.ours
@pytest.mark.parametrize("how", ["stop", "quick stop", "reload"])
def test_a_socket_that_another_process_has_bound_meanwhile_stays(server, tmp_path, how):
    path, config = tmp_path / "s", tmp_path / "conf.py"
    config.write_text(f"bind = ['unix:{path}', '127.0.0.1:0']\n")
    one = server("hello:app", "-c", str(config), bind=())
    with foreign_listener(path):
        if how == "reload":
            config.write_text("bind = ['127.0.0.1:0']\n")
            one.send_signal(signal.SIGHUP)
            one.log.wait("Booting worker", 2)
            wait_until(lambda: len(one.workers()) == 1, "the old worker has gone")
            one.send_signal(signal.SIGTERM)
        else:
            one.send_signal(signal.SIGQUIT if how == "quick stop" else signal.SIGTERM)
        one.wait_exit()
        assert path.is_socket()
        assert answer_at(path) == b"foreign"


@pytest.mark.ours
def test_a_file_in_the_sockets_place_stays(server, tmp_path):
    path = tmp_path / "s"
    one = server("hello:app", bind=(f"unix:{path}",))
    path.unlink()
    path.write_text("notes")
    assert one.stop() == 0
    assert path.read_text() == "notes"


@pytest.mark.ours
def test_a_socket_of_our_own_is_removed_at_the_end(server, tmp_path):
    path = tmp_path / "s"
    one = server("hello:app", bind=(f"unix:{path}",))
    assert one.stop() == 0
    assert not path.exists()


@ROOT
@pytest.mark.ours
def test_a_symlink_in_the_sockets_place_at_the_start_gives_nothing_away(server, place):
    """Dangling or not: nothing is made or changed behind it."""
    path, target = place / "logs" / "s", place / "made"
    path.symlink_to(target)
    one = server("self_contained:app", *AS_NOBODY, bind=(f"unix:{path}",), ready=False)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: one.process.poll() is not None or path.is_socket(), "an end or a socket", 3)
    assert not target.exists()
    path.unlink()
    path.symlink_to(place / "secret")
    one = server("self_contained:app", *AS_NOBODY, bind=(f"unix:{path}",), ready=False)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: one.process.poll() is not None or path.is_socket(), "an end or a socket", 1)
    assert is_untouched(place / "secret")
