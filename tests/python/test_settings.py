"""What an operator asks about settings: where a value came from, what it means here, what there is."""

from __future__ import annotations

import os
import re

import pytest

from ferricorn import _core
from harness import COMMAND, HAS_GIL, Finished

pytestmark = pytest.mark.ours


def test_print_config_tells_where_each_value_came_from(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("import multiprocessing\nbind = ['127.0.0.1:0']\nmax_requests = 500\numask = 0o27\n")
    shown = Finished(
        ["--print-config", "-c", str(config), "--threads", "3", "hello:app"],
        bind=(),
        env={
            "WEB_CONCURRENCY": "4",
            "GUNICORN_CMD_ARGS": "--backlog 99",
            "FERRICORN_CMD_ARGS": "--timeout 5",
            "FERRICORN_GRACEFUL_TIMEOUT": "7",
        },
    )
    assert shown.code == 0
    for name, value, source in [
        ("workers", "4", "from WEB_CONCURRENCY"),
        ("bind", r"\['127\.0\.0\.1:0'\]", f"from {re.escape(str(config))}"),
        ("max_requests", "500", f"from {re.escape(str(config))}"),
        ("umask", "0o27", f"from {re.escape(str(config))}"),
        ("threads", "3", "from the command line"),
        ("backlog", "99", "from GUNICORN_CMD_ARGS"),
        ("timeout", "5", "from FERRICORN_CMD_ARGS"),
        ("graceful_timeout", "7", "from FERRICORN_GRACEFUL_TIMEOUT"),
        ("keepalive", "65", "default"),
        ("control_socket_mode", "0o600", "default"),
    ]:
        assert re.search(rf"^{name} += {value}  # {source}$", shown.output, re.MULTILINE), f"{name}\n{shown.output}"
    assert all("  # " in line for line in shown.output.splitlines())


def test_auto_is_a_worker_per_core_and_the_log_says_why(server):
    """Any cgroup's quota allows one worker; an affinity for one core allows no more."""
    core = min(os.sched_getaffinity(0))
    pinned = ["taskset", "--cpu-list", str(core), *COMMAND]
    one = server("hello:app", "-w", "auto", command=pinned)
    why = "this process may use 1 core" if HAS_GIL else "without a GIL the threads of one worker use all cores"
    one.log.wait(rf"\[INFO\] workers = auto is 1: {why}")
    assert one.get("/").status == 200
    assert len(one.workers()) == 1
    shown = Finished(["--print-config", "hello:app"], bind=(), command=pinned, env={"WEB_CONCURRENCY": "auto"})
    assert re.search(r"^workers += 1  # from WEB_CONCURRENCY$", shown.output, re.MULTILINE)
    refused = Finished(["-w", "automatic", "hello:app"], bind=())
    assert refused.code == 2
    assert "argument -w/--workers: invalid int value: 'automatic'" in refused.error


def test_check_config_finds_what_is_misspelt(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("worker = 4\nthreads = 2\ndef post_forks(server, worker):\n    pass\n")
    checked = Finished(["--check-config", "-c", str(config), "hello:app"])
    assert checked.code == 1
    assert "Unknown setting worker in" in checked.error
    assert "did you mean workers?" in checked.error
    assert "did you mean post_fork?" in checked.error
    checked = Finished(["--check-config", "hello:app"], env={"FERRICORN_THREAD": "2"})
    assert checked.code == 1
    assert "did you mean FERRICORN_THREADS?" in checked.error


def test_check_config_imports_the_application(tmp_path):
    assert Finished(["--check-config", "hello:app"]).code == 0
    broken = Finished(["--check-config", "import_fails:app"])
    assert broken.code == 1
    assert "Traceback" in broken.error
    missing = Finished(["--check-config", "hello:no_such"])
    assert missing.code == 1
    assert "Failed to find attribute 'no_such' in 'hello'" in missing.error


def test_check_config_explains_what_is_different_here(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("asgi_loop = 'uvloop'\nworker_tmp_dir = '/dev/shm'\nworkers = 2\n")
    checked = Finished(["--check-config", "-c", str(config), "-k", "gthread", "hello:app"])
    assert checked.code == 0, checked.error
    assert "Warning: asgi_loop = uvloop (from" in checked.error
    assert "has no effect: only ASGI workers use it." in checked.error
    assert re.search(r"^Note: worker_tmp_dir = /dev/shm .*There is no heartbeat file", checked.error, re.MULTILINE)
    assert re.search(r"^Note: worker_class = gthread \(from the command line\): ", checked.error, re.MULTILINE)
    assert "workers = 2" not in checked.error, "what is as in gunicorn needs no word"
    assert Finished(["--check-config", "hello:app"]).error == ""


def test_help_fits_a_terminal_and_is_grouped():
    shown = Finished(["--help"], bind=())
    assert shown.code == 0
    lines = shown.output.splitlines()
    assert max(map(len, lines)) < 80
    headings = [line for line in lines if re.fullmatch(r"[A-Z][A-Za-z/2 ]+:", line)]
    assert headings[:3] == ["Config File:", "Server Socket:", "Worker Processes:"]
    assert "Control:" in headings
    assert "ferricorn app:app -w 4 --threads 2 -b 0.0.0.0:5000" in shown.output


def test_every_setting_of_gunicorn_is_supported_with_its_flags():
    config = pytest.importorskip("gunicorn.config")
    ours = {row["name"]: row["flags"] for row in _core.settings()}
    assert len(config.KNOWN_SETTINGS) == 120
    for setting in config.KNOWN_SETTINGS:
        assert set(setting.cli or []) <= set(ours[setting.name]), setting.name
