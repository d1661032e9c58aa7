"""`gunicorn.error` and `gunicorn.access` as applications, configuration files and hooks find them."""

import re
import signal
from pathlib import Path

from harness import wait_until

STAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[(\d+)\]"


def line(level, text):
    return rf"^{STAMP} \[{level}\] {re.escape(text)}$"


def test_an_application_borrows_handlers_and_level(server, gates):
    one = server("borrowing", "--access-logfile", "-")
    assert gates.wait_notes("handlers") == ["[True]"]
    assert gates.wait_notes("level") == ["INFO"]
    assert gates.wait_notes("access") == ["1"]
    one.get("/path")
    (imported,) = one.log.wait(line("INFO", "imported: info"))
    (served,) = one.log.wait(line("WARNING", "request /path"))
    assert imported.group(1) == served.group(1) == str(one.workers()[0])
    assert "imported: debug" not in one.log.text


def test_the_level_follows_loglevel(server, gates):
    one = server("borrowing", "--log-level", "debug")
    one.log.wait(line("DEBUG", "imported: debug"))
    assert gates.wait_notes("level") == ["DEBUG"]
    assert gates.wait_notes("access") == ["0"]


def test_a_traceback_follows_its_line(server):
    one = server("borrowing")
    one.get("/exception")
    one.log.wait(line("ERROR", "caught /exception") + r"\nTraceback \(most recent call last\):\n")
    one.log.wait(r"^ValueError: of the application$")


def test_the_application_decides_about_its_own_records(server):
    one = server("borrowing")
    one.get("/own-level")
    one.log.wait(line("DEBUG", "now with debug"))
    one.get("/own-format")
    one.log.wait(r"^OWN ERROR formatted$")


def test_the_access_logger_writes_the_access_log(server, tmp_path):
    log = tmp_path / "access.log"
    one = server("borrowing", "--access-logfile", str(log))
    one.get("/access")
    wait_until(lambda: "GET /access" in log.read_text(), "the request's line")
    assert "a line of the application's own" in log.read_text().splitlines()


def test_reopening_includes_files_of_the_application(server, tmp_path):
    error_log, own = tmp_path / "error.log", tmp_path / "own.log"
    one = server("borrowing", "--error-logfile", str(error_log), env={"OWN_FILE": str(own)}, ready=False)
    wait_until(lambda: error_log.exists() and "Booting worker" in error_log.read_text(), "a worker")
    address = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", error_log.read_text())
    one.address = ("127.0.0.1", int(address.group(1)))
    one.get("/file")
    assert own.read_text() == "to the file\n"
    for path in (error_log, own):
        path.rename(f"{path}.1")
    one.send_signal(signal.SIGUSR1)
    wait_until(lambda: error_log.exists() and own.exists(), "new files")
    one.get("/file")
    one.get("/after")
    assert own.read_text() == "to the file\n"
    wait_until(lambda: "request /after" in error_log.read_text(), "the borrowed logger follows")
    assert Path(f"{own}.1").read_text() == "to the file\n"


CONF = """
import logging

# Before there is a server's log, this goes nowhere and breaks nothing.
logging.getLogger("gunicorn.error").info("while it is read")

def on_starting(server):
    server.log.info("starting %s", "up")
    server.log.log("warning", "by name")

def post_fork(server, worker):
    worker.log.error("forked")
    logging.getLogger("gunicorn.error").critical("critically")

def post_worker_init(worker):
    try:
        1 / 0
    except ZeroDivisionError:
        worker.log.exception("in %s", worker)
"""


def test_hooks_log_through_their_objects(server, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text(CONF)
    one = server("hello:app", "-c", str(conf))
    (starting,) = one.log.wait(line("INFO", "starting up"))
    one.log.wait(line("WARNING", "by name"))
    assert starting.group(1) == str(one.pid)
    (forked,) = one.log.wait(line("ERROR", "forked"))
    pid = forked.group(1)
    assert pid == str(one.workers()[0])
    one.log.wait(line("CRITICAL", "critically"))
    one.log.wait(line("ERROR", f"in <Worker {pid}>") + r"\nTraceback ")
    one.log.wait(r"^ZeroDivisionError: division by zero$")
