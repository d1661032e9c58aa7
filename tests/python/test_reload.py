"""`--reload`: what is saved is served, and a mistake is shown instead of ending the server."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from harness import APPS, IS_OURS, wait_until

VERSION = """
import gate
import {helper}
gate.note("import", "{body}")

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("{body}" + {helper}.MORE).encode()]
"""
ENGINES = ["poll", "inotify", "auto"] if IS_OURS else ["poll"]
# After this time without a change the worker reloads.
QUIET_S = 0.1
EXTRA = ("--pythonpath", str(APPS), "--graceful-timeout", "5")


def save(directory, name, text):
    """As editors do: the whole new file takes the place of the old one."""
    fresh = directory / f"{name}.new"
    fresh.write_text(text)
    fresh.replace(directory / name)


def write_version(directory, body, helper="first"):
    save(directory, "version.py", VERSION.format(body=body, helper=helper))


@pytest.fixture
def project(tmp_path):
    directory = tmp_path / "project"
    directory.mkdir()
    write_version(directory, "one")
    (directory / "first.py").write_text("MORE = ''\n")
    return directory


def answers(one, text):
    wait_until(lambda: one.get().text == text, f"{text!r} is answered")


def is_imported_again(gates, count, file):
    if not IS_OURS:
        # gunicorn misses a change before its first look at the file.
        stamp = file.stat().st_mtime + 1
        os.utime(file, (stamp, stamp))
    return len(gates.notes("import")) >= count


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_saved_is_served(server, gates, project, engine):
    one = server("version", "--reload", "--reload-engine", engine, *EXTRA, cwd=project)
    answers(one, "one")
    one.log.wait("Reloader is on. Use in development only!")
    (before,) = one.workers()
    write_version(project, "two")
    answers(one, "two")
    one.log.wait(r"\[INFO\] Worker reloading: .*/version\.py modified")
    wait_until(lambda: before not in one.workers(), "the old worker is gone")
    # A module that the application imports counts like its own.
    save(project, "first.py", "MORE = ' and more'\n")
    answers(one, "two and more")
    assert one.process.poll() is None
    assert "exited with code" not in one.log.text
    assert one.stop() == 0


def test_all_workers_are_replaced_and_hooks_are_called(server, gates, project):
    config = project / "config.py"
    config.write_text(
        "import gate\n"
        "def worker_int(worker):\n    gate.note('worker_int', worker.pid)\n"
        "def worker_exit(server, worker):\n    gate.note('worker_exit', worker.pid)\n"
    )
    one = server(
        "version", "--reload", "-c", str(config), *EXTRA, cwd=project, workers=2, env={"PYTHONPATH": str(APPS)}
    )
    gates.wait_notes("import", 2)
    before = one.workers()
    write_version(project, "two")
    wait_until(lambda: len(one.workers()) == 2 and not set(before) & set(one.workers()), "new workers only")
    assert sorted(gates.wait_notes("worker_int", 2)) == sorted(map(str, before))
    assert sorted(gates.wait_notes("worker_exit", 2)) == sorted(map(str, before))
    answers(one, "two")


@pytest.mark.ours
def test_many_saves_at_once_are_one_reload(server, gates, project):
    one = server("version", "--reload", *EXTRA, cwd=project)
    answers(one, "one")
    for attempt in range(20):
        imports = len(gates.notes("import"))
        longest, before = 0.0, time.monotonic()
        for number in range(20):
            write_version(project, f"{attempt}.{number}")
            save(project, "first.py", f"MORE = ' of {number}'\n")
            now = time.monotonic()
            longest, before = max(longest, now - before), now
        answers(one, f"{attempt}.19 of 19")
        # A busy machine may stop this process between two saves for so long that they are two changes.
        if longest < QUIET_S / 2:
            assert len(gates.notes("import")) == imports + 1, "reloaded once"
            return
    raise AssertionError("twenty saves were never at once")


@pytest.mark.ours
def test_a_change_during_a_slow_import_is_noticed(server, gates, project):
    slow = "import gate\ngate.wait('import')\n" + VERSION.format(body="slow", helper="first")
    (project / "version.py").write_text(slow)
    one = server("version", "--reload", *EXTRA, cwd=project, ready=False)
    gates.wait_reached("import")
    write_version(project, "two")
    gates.open("import")
    one.wait_ready()
    answers(one, "two")


def test_a_syntax_error_is_shown_and_waits_for_the_next_change(server, gates, project):
    one = server("version", "--reload", *EXTRA, cwd=project, workers=2)
    gates.wait_notes("import", 2)
    before = one.workers()
    save(project, "version.py", "def application(:\n")
    one.log.wait("^SyntaxError", 2)
    wait_until(lambda: not set(before) & set(one.workers()), "the old workers are gone")
    wait_until(lambda: one.get().status == 500, "the mistake is answered")
    answer = one.get("/anything")
    assert answer.header("Content-Type").startswith("text/plain")
    assert "SyntaxError" in answer.text
    assert "version.py" in answer.text
    write_version(project, "mended")
    wait_until(lambda: one.get().text == "mended", "the mended version")
    assert one.process.poll() is None


@pytest.mark.ours
@pytest.mark.parametrize("engine", ENGINES)
def test_any_mistake_at_the_start_waits_for_the_next_change(server, gates, project, engine):
    write_version(project, "new", helper="missing")
    one = server("version", "--reload", "--reload-engine", engine, *EXTRA, cwd=project)
    answer = one.get()
    assert answer.status == 500
    assert "ModuleNotFoundError: No module named 'missing'" in answer.text
    # It is mended in a file that nobody has imported, or that was not there.
    save(project, "missing.py", "raise RuntimeError('not yet')\n")
    wait_until(lambda: "RuntimeError: not yet" in one.get().text, "the next mistake")
    save(project, "missing.py", "MORE = ' is here'\n")
    answers(one, "new is here")
    save(project, "version.py", "app = None\n")
    wait_until(lambda: "Failed to find attribute 'application' in 'version'." in one.get().text, "one line of it")
    write_version(project, "mended")
    answers(one, "mended")
    assert one.stop() == 0


@pytest.mark.ours
def test_a_broken_page_does_not_reload_itself(server, gates, project):
    fence = project / "fence.txt"
    fence.write_text("x")
    one = server("version", "--reload", "--reload-extra-file", "fence.txt", *EXTRA, cwd=project)
    answers(one, "one")
    save(project, "version.py", "1 / 0\n")
    wait_until(lambda: "ZeroDivisionError" in one.get().text, "the mistake")
    one.log.wait("Waiting for a file to change")
    # The reload for this file comes after any that the page could have caused.
    save(project, "fence.txt", "changed")
    one.log.wait("Worker reloading: .*fence.txt modified")
    reloads = one.log.wait(r"Worker reloading: .*/(\S+) modified", 0)
    assert [reload.group(1) for reload in reloads] == ["version.py", "fence.txt"]


def test_extra_files_and_patterns_are_watched(server, gates, project):
    (project / "templates" / "deep").mkdir(parents=True)
    template = project / "templates" / "deep" / "page.html"
    template.write_text("x")
    settings = project / "settings.ini"
    settings.write_text("x")
    one = server(
        "version", "--reload", "--reload-engine", "poll",
        "--reload-extra-file", "settings.ini", "--reload-extra-file", "templates/**/*.html",
        *EXTRA, cwd=project,
    )  # fmt: skip
    answers(one, "one")
    for count, file in enumerate((settings, template), 2):
        file.write_text(f"changed {count}")
        wait_until(lambda: is_imported_again(gates, count, file), f"import number {count}")  # noqa: B023
        one.log.wait(rf"Worker reloading: .*{re.escape(file.name)} modified")
        answers(one, "one")
    if IS_OURS:
        (project / "templates" / "new.html").write_text("x")
        gates.wait_notes("import", 4)


@pytest.mark.ours
def test_what_cannot_be_watched_is_told(server, project):
    one = server("version", "--reload", "--reload-extra-file", "*.none", *EXTRA, cwd=project)
    one.log.wait(r"\[WARNING\] Pattern .*\*\.none currently matches no files")
    other = server("version", "--reload", "--preload", *EXTRA, cwd=project)
    other.log.wait(r"\[WARNING\] --reload has no effect with --preload")
    assert "Reloader is on" not in other.log.text
    assert other.get().text == "one"


def test_without_reload_nothing_is_watched(server, gates, project):
    one = server("version", *EXTRA, cwd=project)
    answers(one, "one")
    (worker,) = one.workers()
    if IS_OURS:
        threads = Path(f"/proc/{worker}/task").glob("*/comm")
        assert "ferricorn-reload" not in "".join(thread.read_text() for thread in threads)
    write_version(project, "two")
    assert one.get().text == "one"
    one.send_signal(signal.SIGHUP)
    answers(one, "two")
    assert "Reloader" not in one.log.text
    assert "Worker reloading" not in one.log.text
