"""Command lines that users type: each works as it does with gunicorn."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import (
    APPS,
    COMMAND,
    IS_OURS,
    NAME,
    REPOSITORY,
    Finished,
    clean_environment,
    session_members,
    wait_until,
)
from wire import Client

# -- what to serve ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "body"),
    [
        ("hello", "default"),
        ("hello:app", "Hello, World!\n"),
        pytest.param("hello:site.api.app", "dotted", marks=pytest.mark.ours),
        ("hello:instance", "object"),
        ("package.wsgi", "package"),
        ("package.wsgi:application", "package"),
        ("hello:create_app()", "hello world"),
        ("hello:create_app('Mars')", "hello Mars"),
        ("hello:create_app('Mars', greeting='hail')", "hail Mars"),
        ("hello:create_app(name='Mars')", "hello Mars"),
        ("hello:Site('class')", "class"),
    ],
)
def test_application_syntax(server, application, body):
    assert server(application).get().text == body


def test_flags_may_follow_or_precede_the_application(server):
    assert server("hello:app", "--threads", "2").get().status == 200
    assert server("--threads=2", "hello:app").get().status == 200


def test_the_main_command_line(server):
    one = server("hello:app", "-w", "4", "--threads", "2", workers=1).wait_ready(4)
    assert len(one.workers()) == 4
    assert one.get().text == "Hello, World!\n"
    assert one.stop() == 0


def test_long_flags_with_equal_signs(server):
    one = server("--workers=2", "--bind=127.0.0.1:0", "hello:app", bind=())
    one.wait_ready(2)
    assert one.get().status == 200


def test_long_flags_may_be_abbreviated(server):
    assert server("--thr", "2", "--graceful=3", "hello:app").get().status == 200


@pytest.mark.parametrize(
    "flags",
    [
        ["--timeout", "10"],
        ["-t", "10"],
        ["--max-requests", "1000"],
        ["--max-requests", "1000", "--max-requests-jitter", "50"],
        ["--keep-alive", "5"],
        ["--graceful-timeout", "3"],
        ["--backlog", "64"],
        ["--worker-connections", "50"],
        ["--limit-request-line", "2000"],
        ["--limit-request-fields", "20"],
        ["--limit-request-field_size", "1000"],
        ["--log-level", "debug"],
        ["--name", "site"],
        ["-k", "gthread"],
        ["-k", "sync"],
        ["--worker-class", "gunicorn.workers.gthread.ThreadWorker"],
        ["--forwarded-allow-ips", "*"],
        ["--worker-tmp-dir", "/dev/shm"],
        ["--no-sendfile"],
        ["--reuse-port"],
    ],
    ids=" ".join,
)
def test_usual_flags_are_accepted(server, flags):
    if "--reuse-port" in flags:
        # gunicorn announces no address then; a free port is not knowable from outside.
        pytest.skip("needs a fixed port") if not IS_OURS else None
    if flags == ["-k", "sync"] and not IS_OURS:
        pytest.skip("another worker class of gunicorn")
    assert server("hello:app", *flags).get().status == 200


# -- where things are ------------------------------------------------------------------------------


def test_chdir_is_where_the_application_is_found_and_runs(server, tmp_path):
    one = server(f"--chdir={APPS}", "hello:where", cwd=tmp_path)
    assert one.get().text.split()[2] == str(APPS)


def test_pythonpath_is_searched(server, tmp_path):
    assert server("--pythonpath", str(APPS), "hello", cwd=tmp_path).get().text == "default"


def test_the_start_directory_is_searched(server, tmp_path):
    shutil.copy(APPS / "hello.py", tmp_path / "elsewhere.py")
    assert server("elsewhere", cwd=tmp_path).get().text == "default"


def test_env_flag_sets_variables_of_the_application(server):
    assert server("-e", "COLOUR=blue", "hello:where").get().text.split()[3] == "blue"


# -- config files ----------------------------------------------------------------------------------

CONFIG = f"workers = 2\nchdir = {str(APPS)!r}\n"


def test_config_file_by_path(server, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    server("-c", "config.py", "hello:app", cwd=tmp_path).wait_ready(2)
    server("--config", f"file:{tmp_path}/config.py", "hello:app").wait_ready(2)


@pytest.mark.ours
def test_config_file_by_bare_name_as_in_old_articles(server, tmp_path):
    (tmp_path / "myconfig.py").write_text(CONFIG)
    server("-c", "myconfig", "package.wsgi:application", cwd=tmp_path).wait_ready(2)


def test_config_module(server):
    one = server("-c", "python:package.conf").wait_ready(2)
    assert one.get().text == "Hello, World!\n", "wsgi_app of the config names the application"


def test_config_file_of_the_start_directory(server, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(CONFIG)
    server("hello:app", cwd=tmp_path).wait_ready(2)


@pytest.mark.ours
def test_our_own_config_file_wins_over_gunicorns(server, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("raise SystemError\n")
    (tmp_path / "ferricorn.conf.py").write_text(CONFIG)
    server("hello:app", cwd=tmp_path).wait_ready(2)


def test_command_line_wins_over_variables_and_config(server, tmp_path):
    (tmp_path / "config.py").write_text("workers = 4\nthreads = 3\nchdir = " + repr(str(APPS)))
    one = server(
        "-c",
        str(tmp_path / "config.py"),
        "-w",
        "1",
        "hello:where",
        env={"GUNICORN_CMD_ARGS": "-w 3 -e COLOUR=red"},
    )
    assert one.get().text.split()[3] == "red"
    assert len(one.workers()) == 1


def test_command_line_addresses_replace_those_of_the_config(server, tmp_path):
    (tmp_path / "config.py").write_text("bind = ['127.0.0.1:0', '127.0.0.1:0']\n")
    assert len(server("-c", str(tmp_path / "config.py"), "hello:app").addresses()) == 1
    assert len(server("-c", str(tmp_path / "config.py"), "hello:app", bind=()).addresses()) == 2


def test_check_config_loads_and_ends(tmp_path):
    assert Finished(["--check-config", "hello:app"]).code == 0
    (tmp_path / "config.py").write_text("workers = -1\n")
    assert Finished(["--check-config", "-c", str(tmp_path / "config.py"), "hello:app"]).code == 1


def test_print_config_lists_settings():
    shown = Finished(["--print-config", "-w", "3", "hello:app"])
    assert shown.code == 0
    assert re.search(r"^workers\s+= 3\b", shown.output, re.MULTILINE)
    assert re.search(r"^timeout\s+= 30\b", shown.output, re.MULTILINE)


# -- variables -------------------------------------------------------------------------------------


def test_web_concurrency_is_the_default_number_of_workers(server):
    one = server("hello:app", env={"WEB_CONCURRENCY": "2"}).wait_ready(2)
    assert len(one.workers()) == 2


def test_port_is_the_default_address(server):
    one = server("hello:app", bind=(), env={"PORT": "0"})
    assert re.search(r"Listening at: http://0\.0\.0\.0:\d+ ", one.log.text)
    assert one.get().status == 200


def test_cmd_args_are_read(server):
    server("hello:app", env={"GUNICORN_CMD_ARGS": "--workers=2 --threads 2"}).wait_ready(2)


@pytest.mark.ours
def test_our_own_cmd_args_win(server):
    environment = {"GUNICORN_CMD_ARGS": "--workers=3", "FERRICORN_CMD_ARGS": "--workers=2"}
    one = server("hello:app", env=environment).wait_ready(2)
    assert len(one.workers()) == 2


@pytest.mark.ours
def test_every_setting_has_a_variable(server):
    server("hello:app", env={"FERRICORN_WORKERS": "2"}).wait_ready(2)


@pytest.mark.ours
def test_empty_web_concurrency_counts_as_unset(server):
    assert len(server("hello:app", env={"WEB_CONCURRENCY": ""}).workers()) == 1


# -- addresses -------------------------------------------------------------------------------------


def test_several_addresses(server, tmp_path):
    one = server("hello:app", bind=("127.0.0.1:0", f"unix:{tmp_path}/app.sock", "localhost:0"))
    addresses = one.addresses()
    assert len(addresses) == 3
    for address in addresses:
        with Client(address, 20) as client:
            assert client.request().status == 200


def test_port_alone_means_every_interface(server):
    one = server("hello:app", bind=(":0",))
    assert re.search(r"Listening at: http://0\.0\.0\.0:\d+ ", one.log.text)
    assert one.get().status == 200


def test_ipv6_address(server):
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 on this machine")
    one = server("hello:app", bind=("[::1]:0",))
    assert re.search(r"Listening at: http://\[::1\]:\d+ ", one.log.text)
    assert one.get().status == 200


def test_unix_socket_is_made_and_removed(server, tmp_path):
    path = tmp_path / "app.sock"
    one = server("hello:app", bind=(f"unix:{path}",))
    assert path.is_socket()
    assert f"Listening at: unix:{path} ({one.pid})" in one.log.text
    assert one.get().status == 200
    assert one.stop() == 0
    assert not path.exists()


def test_stale_unix_socket_is_replaced(server, tmp_path):
    path = tmp_path / "app.sock"
    first = server("hello:app", bind=(f"unix:{path}",))
    os.kill(first.pid, signal.SIGKILL)
    first.wait_exit()
    first.wait_gone()
    assert path.is_socket()
    assert server("hello:app", bind=(f"unix:{path}",)).get().status == 200


def test_umask_decides_the_mode_of_a_unix_socket(server, tmp_path):
    path = tmp_path / "app.sock"
    server("hello:app", "--umask", "0o117", bind=(f"unix:{path}",))
    assert path.stat().st_mode & 0o777 == 0o660


# -- processes -------------------------------------------------------------------------------------


def test_preload_imports_once_and_in_no_worker(server, gates):
    one = server("imported", "--preload", workers=2)
    (importer,) = gates.notes("imported")
    assert int(importer) not in one.booted()
    assert (int(importer) == one.pid) != IS_OURS, "gunicorn's arbiter imports it itself"


def test_without_preload_every_worker_imports(server, gates):
    one = server("imported", workers=2)
    assert sorted(gates.wait_notes("imported", 2)) == sorted(str(pid) for pid in one.booted())


def test_pidfile_lives_as_long_as_the_arbiter(server, tmp_path):
    path = tmp_path / "app.pid"
    one = server("hello:app", "--pid", str(path))
    assert path.read_text() == f"{one.pid}\n"
    assert one.stop() == 0
    assert not path.exists()


def test_access_log_on_standard_output(server):
    one = server("hello:app", "--access-logfile=-")
    one.get("/seen?x=1")
    one.output.wait(r'"GET /seen\?x=1 HTTP/1\.1" 200 14 ')


# -- other ways in ---------------------------------------------------------------------------------


def test_version():
    shown = Finished(["--version"], bind=())
    assert shown.code == 0
    assert re.fullmatch(NAME + r" \(version \d+\.\d+\.\d+\S*\)\n", shown.output)
    assert Finished(["-v"], bind=()).output == shown.output


def test_help():
    shown = Finished(["--help"], bind=())
    assert shown.code == 0
    for flag in ("--workers", "--threads", "--bind", "--limit-request-field_size", "--preload"):
        assert flag in shown.output


@pytest.mark.ours
def test_console_script_is_installed(server):
    script = Path(sys.executable).with_name("ferricorn")
    assert script.exists(), "pip install gives a ferricorn command"
    assert server("hello:app", command=[str(script)]).get().status == 200


def test_run_as_a_module(server):
    assert server("hello:app", command=[sys.executable, "-m", NAME]).get().status == 200


def test_interrupt_from_the_keyboard_stops_everything(server):
    one = server("hello:app", workers=2)
    os.killpg(one.pid, signal.SIGINT)
    assert one.wait_exit() == 0
    one.wait_gone()


@pytest.mark.ours
def test_second_make_run_only_starts(tmp_path):
    """In a tree of which only the times of the files matter: this one may have been built in another way."""
    make = shutil.which("make")
    if not make or not (REPOSITORY / "Makefile").exists():
        pytest.skip("no make, or not run from a source tree")
    for path in ["Cargo.toml", "Cargo.lock", "pyproject.toml", "src/lib.rs", "examples/flask_app/requirements.txt"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())

    def planned():
        text = subprocess.run(
            [make, "--dry-run", "run"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": os.environ["PATH"]},
        ).stdout
        return [line for line in text.splitlines() if not line.startswith("make")]

    start = "cd examples/flask_app && exec ../../.venv/bin/ferricorn app:app -w 4 --threads 2 -b 0.0.0.0:5000"
    assert any("maturin develop --release" in line for line in planned())
    (tmp_path / ".venv").mkdir()
    for name in [".made", ".tools", ".built"]:
        (tmp_path / ".venv" / name).touch()
    assert planned() == [start]
    later = time.time() + 10
    os.utime(tmp_path / "src/lib.rs", (later, later))
    assert any("maturin develop --release" in line for line in planned())


def test_errors_go_to_a_file_when_there_is_no_terminal(tmp_path):
    log = tmp_path / "error.log"
    with open(os.devnull, "r+b") as nothing:
        arbiter = subprocess.Popen(
            [*COMMAND, "-b", "127.0.0.1:0", "--error-logfile", str(log), "hello:app"],
            cwd=APPS, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, env=clean_environment(),
        )  # fmt: skip
    try:
        wait_until(lambda: log.exists() and "Booting worker" in log.read_text(), "a worker boots")
        os.kill(arbiter.pid, signal.SIGTERM)
        assert arbiter.wait(20) == 0
        assert "Shutting down: Master" in log.read_text()
    finally:
        for pid in session_members(arbiter.pid):
            os.kill(pid, signal.SIGKILL)
        arbiter.wait()
