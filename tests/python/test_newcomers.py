"""What somebody sees who starts the server for the first time and gets something wrong."""

from __future__ import annotations

import os
import pty
import re
import socket
import struct
import tempfile
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from harness import APPS, COMMAND, PATIENCE_S, Finished, Server, clean_environment, wait_until

pytestmark = pytest.mark.ours


def check(*arguments: str, cwd: Path = APPS) -> Finished:
    return Finished(["--check-config", *arguments], bind=(), cwd=cwd)


def test_a_configuration_that_is_right_gets_one_line():
    done = check("hello:app", "-w", "2", "-k", "gthread")
    assert done.code == 0
    assert done.output == (
        "OK: 2 settings given, 1 differs from gunicorn (worker_class); the application can be loaded.\n"
    )
    assert check("hello:app").output.startswith("OK: 0 settings given, none differs from gunicorn; ")


def test_everything_wrong_is_listed_in_one_run(tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(
        "worker_class = 'tornado'\nworkers = 'many'\nbind = '127.0.0.1:port'\nadmin_bind = ':x'\nraw_env = ['A']\n"
        "access_log_format = '%(nothing'\nstatsd_host = 'statsd.invalid:8125'\nthread = 3\n"
    )
    done = check("no_such_module:app", cwd=tmp_path)
    assert done.code == 1
    for part in (
        "Error: worker_class = tornado (from ",
        "Error: Invalid value for workers: many (from ",
        "Error: Invalid value for bind: 127.0.0.1:port (from ",
        "): 'port' is not a valid port number.",
        "Error: Invalid value for admin_bind: :x (from ",
        "Error: Invalid value for raw_env: ",
        "Error: invalid access_log_format at 0",
        "Error: statsd_host = statsd.invalid:8125 cannot be resolved",
        "did you mean threads?",
        "ModuleNotFoundError: No module named 'no_such_module'",
    ):
        assert part in done.error, f"{part!r} in\n{done.error}"
    assert not done.output


def test_a_check_warns_of_what_a_server_would_not_find(tmp_path):
    gone = tmp_path / "gone"
    arguments = [f"--{name}={gone}/file" for name in ("log-config", "error-logfile", "access-logfile", "pid")]
    done = check("hello:app", "-w", "0", f"-bunix:{gone}/file", *arguments)
    assert done.code == 0 and done.output.startswith("OK: ")
    warnings = [line for line in done.error.splitlines() if line.startswith("Warning: ")]
    assert warnings == [
        "Warning: workers = 0 (from the command line): nothing is answered until a worker is added (SIGTTIN).",
        f"Warning: logconfig = {gone}/file: {gone}/file does not exist",
        *(
            f"Warning: {name} = {gone}/file: {gone} does not exist"
            for name in ("errorlog", "accesslog", "pidfile", "bind")
        ),
    ]
    assert "Warning: logconfig = gone.ini: gone.ini does not exist" in check("hello:app", "--log-config=gone.ini").error
    found = [word.replace(str(gone), str(tmp_path)) for word in arguments[1:]]
    assert "Warning" not in check("hello:app", f"-bunix:{tmp_path}/file", *found).error
    assert not list(tmp_path.iterdir())


def test_an_unknown_level_fails_the_check_and_warns_a_server(server):
    done = check("hello:app", "--log-level", "chatty")
    assert done.code == 1
    levels = "none of debug, info, warning, error, critical: info is used."
    assert f"Warning: loglevel = chatty (from the command line) is {levels}" in done.error
    one = server("hello:app", "--log-level", "chatty")
    one.log.wait(re.escape(f"[WARNING] loglevel = chatty (from the command line) is {levels}"))


@pytest.mark.parametrize(
    ("source", "typed", "said"),
    [
        ("app = print", "app", "Failed to find attribute 'application' in 'app'. Did you mean 'app:app'?"),
        ("app = print", "app:aap", "Failed to find attribute 'aap' in 'app'. Did you mean 'app:app'?"),
        ("def create_app(): pass", "app", "in 'app'. Did you mean 'app:create_app()'?"),
        ("app = print", "app.py", "did you mean 'app:app'?"),
        ("app = print", "./app.py:app", "did you mean 'app:app'?"),
        ("app = print", "./app.py", "did you mean 'app:app'?"),
        ("application = print", "app.py", "did you mean 'app:application'?"),
        ("run = print", "app:nothing", "Failed to find attribute 'nothing' in 'app'.\n"),
    ],
)
def test_hints_name_what_is_there(tmp_path, source, typed, said):
    (tmp_path / "app.py").write_text(f"{source}\n")
    done = check(typed, cwd=tmp_path)
    assert done.code == 1
    assert said in done.error


def test_a_file_elsewhere_is_hinted_at_with_its_directory(tmp_path):
    (tmp_path / "app.py").write_text("app = print\n")
    assert f"did you mean 'app:app' with --chdir {tmp_path}?" in check(f"{tmp_path}/app.py").error


def test_a_port_in_use_names_the_process_that_has_it(server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = server("hello:app", bind=(f"127.0.0.1:{port}",), ready=False)
        one.log.wait(rf"The address \('127\.0\.0\.1', {port}\) is in use by process {os.getpid()} \(.+\)\.$")
        one.log.wait("Connection in use")
    one.wait_ready()


def test_a_unix_socket_in_use_names_its_server(server):
    # Short, because the path of a unix socket is.
    with tempfile.TemporaryDirectory() as directory:
        first: Server = server("hello:app", bind=(f"unix:{directory}/s",))
        second = server("hello:app", bind=(f"unix:{directory}/s",), ready=False)
        second.log.wait(rf"is in use by process {first.pid} \(\w+")


def test_errors_are_wrapped_at_the_terminals_width():
    master, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    pid = os.fork()
    if pid == 0:
        os.chdir(APPS)
        os.dup2(terminal, 2)
        os.execvpe(COMMAND[0], [*COMMAND, "-k", "tornado", "hello:app"], clean_environment())
    os.close(terminal)
    text = b""
    os.set_blocking(master, False)

    def ended() -> bool:
        nonlocal text
        try:
            text += os.read(master, 65536)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    wait_until(ended, "the server has ended", PATIENCE_S)
    os.waitpid(pid, 0)
    os.close(master)
    lines = text.decode().replace("\r", "").splitlines()
    assert len(lines) > 2, lines
    assert all(len(line) <= 60 for line in lines), lines
    assert (
        " ".join(line.strip() for line in lines)
        .strip()
        .startswith("Error: worker_class = tornado (from the command line)")
    )
