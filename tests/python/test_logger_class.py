"""`logger_class`, `logconfig`, `logconfig_dict`, `logconfig_json`. Runs against gunicorn as well."""

import json
import re
import signal
from pathlib import Path

import pytest

from harness import APPS, Finished, wait_until

WITHOUT_GUNICORN = {"PYTHONPATH": str(APPS.parent / "without_gunicorn")}
STAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\]"


@pytest.fixture
def conf(tmp_path):
    def write(text):
        path = tmp_path / "conf.py"
        path.write_text(f"import sys\nsys.path.insert(0, {str(APPS)!r})\n{text}\n")
        return str(path)

    return write


def entries(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def access_entries(one, count):
    wait_until(lambda: len(entries(one.output.text)) >= count, f"{count} access entries")
    return entries(one.output.text)


@pytest.mark.parametrize("form", ["'own_loggers.JsonLogger'", "own_loggers.JsonLogger"])
@pytest.mark.parametrize(
    "environment", [{}, pytest.param(WITHOUT_GUNICORN, marks=pytest.mark.ours)], ids=["beside-gunicorn", "alone"]
)
def test_a_json_logger(server, conf, form, environment):
    path = conf(f"import own_loggers\nthreads = 2\nlogger_class = {form}\naccesslog = '-'\nloglevel = 'debug'")
    one = server("request_hooks:app", "-c", path, ready=False, env=environment)
    one.log.wait(r"Booting worker")
    listening = one.log.wait(r"Listening at: http://127\.0\.0\.1:(\d+)")
    one.address = ("127.0.0.1", int(listening[0].group(1)))
    one.get("/length?x=1", [("User-Agent", "test")])
    # The line follows the answer: the next request may run on another thread meanwhile.
    access_entries(one, 1)
    one.get("/raises")
    first, *_ = access_entries(one, 2)
    micros = first.pop("micros")
    assert 0 < micros < 20_000_000
    assert first == {
        "access": "GET /length?x=1 HTTP/1.1",
        "status": 201,
        "sent": 5,
        "agent": "test",
        "type": "text/plain",
        "host": True,
        "thread": False,
    }
    assert access_entries(one, 2)[-1]["status"] == 500
    one.log.wait("Error handling request GET /raises")
    log = [json.loads(line) for line in one.log.text.splitlines() if line.startswith("{")]
    messages = {entry["message"]: entry for entry in log}
    assert messages["Error handling request GET /raises"] == {
        "level": "ERROR",
        "logger": "gunicorn.error",
        "message": "Error handling request GET /raises",
        "exception": "ValueError",
    }
    assert one.stop() == 0
    wait_until(lambda: "Shutting down: Master" in one.log.text, "the last line")
    # Nothing goes past the logger.
    stray = [line for line in one.log.join().splitlines() if not line.startswith("{")]
    assert stray == []


def test_setup_and_reopening(server, conf, gates, tmp_path):
    log = tmp_path / "error.log"
    path = conf(f"logger_class = 'own_loggers.JsonLogger'\nerrorlog = {str(log)!r}")
    one = server("hello:app", "-c", path, ready=False)
    wait_until(lambda: log.exists() and "Booting worker" in log.read_text(), "a worker")
    assert gates.notes("setup") == ["info"]
    wait_until(lambda: len(one.workers()) == 1, "the worker")
    log.rename(f"{log}.1")
    address = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", Path(f"{log}.1").read_text())
    one.address = ("127.0.0.1", int(address.group(1)))
    one.get()
    one.send_signal(signal.SIGUSR1)
    gates.wait_notes("reopened", 2)
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: log.exists() and "Hang up" in log.read_text(), "the new file")
    gates.wait_notes("setup", 2)


def test_an_access_log_with_a_filter_and_own_atoms(server, conf):
    text = "accesslog = '-'\naccess_log_format = '%(t)s %(r)s %(s)s %(b)s %(L)s'\n"
    one = server("hello:app", "-c", conf(text + "logger_class = 'own_loggers.NoHealthChecks'"))
    one.get("/health")
    one.get("/other")
    one.output.wait(r"^\[now\] GET /other HTTP/1\.1 200 14 0\.\d{6}$")
    assert "/health" not in one.output.text


def test_atoms_are_extended(server, conf):
    text = "accesslog = '-'\naccess_log_format = '%(own)s|%({x-own}i)s|%({PATH_INFO}e)s|%(nothing)s'\n"
    one = server("hello:app", "-c", conf(text + "logger_class = 'own_loggers.AtomsLogger'"))
    one.get("/a%20b", [("X-Own", 'quo"ted')])
    one.output.wait(r'^200 OK list GET\|quo\\"ted\|/a b\|-$')


@pytest.mark.ours
def test_refused_requests_have_their_line(server, conf):
    text = "accesslog = '-'\nlogger_class = 'own_loggers.JsonLogger'"
    one = server("hello:app", "-c", conf(text), ready=False)
    one.log.wait(r"Booting worker")
    listening = one.log.wait(r"Listening at: http://127\.0\.0\.1:(\d+)")
    one.address = ("127.0.0.1", int(listening[0].group(1)))
    with one.connect() as client:
        client.send(b"GET /twice HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert client.read_response().status == 400
    (entry,) = access_entries(one, 1)
    assert entry["status"] == 400


@pytest.mark.ours
def test_a_broken_logger_stops_nothing(server, conf):
    one = server("hello:app", "-c", conf("accesslog = '-'\nlogger_class = 'own_loggers.Broken'"))
    assert one.get().status == 200
    one.log.wait(r"^ValueError: access is broken$")
    assert one.get().status == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logger_class = 'no_such.Logger'", r"Error: class uri 'no_such\.Logger' invalid or not found"),
        ("logger_class = 'own_loggers.Unsettable'", r"^Error: cannot be set up$"),
        ("logconfig = 'no-such.ini'", r"^Error: log config 'no-such\.ini' not found$"),
        ("logconfig_dict = {'handlers': {'x': {'class': 'no.Such'}}}", r"^Error: Unable to configure handler 'x'$"),
    ],
)
def test_what_cannot_be_used_stops_the_start(conf, text, message):
    ended = Finished(["hello:app", "-c", conf(text)])
    assert ended.code == 1
    assert re.search(message, ended.error, re.MULTILINE), ended.error


@pytest.mark.ours
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such.Logger", "No module named 'no_such'"),
        ("own_loggers.Jsonlogger", "module 'own_loggers' has no attribute 'Jsonlogger'"),
        ("Nothing", "Entry point ('gunicorn.loggers', 'Nothing') not found"),
    ],
)
def test_a_wrong_name_of_a_logger_is_told_in_one_line(conf, name, why):
    arguments = ["hello:app", "-c", conf(f"logger_class = {name!r}")]
    for ended in (Finished(arguments), Finished(["--check-config", *arguments])):
        assert ended.code == 1
        assert f"\nError: class uri {name!r} invalid or not found: {why} (logger_class)\n" in ended.error
        assert "Traceback" not in ended.error


DICT = """{
    "formatters": {"own": {"format": "DICT %(levelname)s %(name)s %(message)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own", "stream": "ext://sys.stdout"}},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["own"], "propagate": False},
        "gunicorn.access": {"level": "INFO", "handlers": ["own"], "propagate": False}
    },
    "root": {"level": "WARNING", "handlers": ["own"]}
}"""


@pytest.mark.parametrize("source", ["dict", "json"])
def test_a_configuration_of_logging(server, conf, tmp_path, source):
    text = f"logconfig_dict = {DICT}"
    if source == "json":
        (tmp_path / "log.json").write_text(DICT.replace("False", "false"))
        text = f"logconfig_json = {str(tmp_path / 'log.json')!r}"
    one = server("hello:app", "-c", conf(text), ready=False)
    (listening,) = one.output.wait(r"^DICT INFO gunicorn\.error Listening at: http://127\.0\.0\.1:(\d+) \(\d+\)$")
    one.address = ("127.0.0.1", int(listening.group(1)))
    one.output.wait(r"^DICT INFO gunicorn\.error Booting worker with pid: \d+$")
    one.get("/with-dict")
    # No accesslog is needed.
    one.output.wait(r'^DICT INFO gunicorn\.access 127\.0\.0\.1 - - \[.*\] "GET /with-dict HTTP/1\.1" 200 14 ')
    assert one.stop() == 0
    assert one.log.join() == ""


INI = """
[loggers]
keys=root, gunicorn.error, gunicorn.access

[handlers]
keys=own, file

[formatters]
keys=own

[logger_root]
level=INFO
handlers=own

[logger_gunicorn.error]
level=INFO
handlers=own
propagate=0
qualname=gunicorn.error

[logger_gunicorn.access]
level=INFO
handlers=file
propagate=0
qualname=gunicorn.access

[handler_own]
class=StreamHandler
formatter=own
args=(sys.stdout, )

[handler_file]
class=FileHandler
formatter=own
args=("%(here)s/access.log", )

[formatter_own]
format=INI %(levelname)s %(message)s
"""


def test_an_ini_file(server, conf, tmp_path):
    (tmp_path / "log.ini").write_text(INI)
    one = server("hello:app", "--log-config", str(tmp_path / "log.ini"), ready=False)
    (listening,) = one.output.wait(r"^INI INFO Listening at: http://127\.0\.0\.1:(\d+) ")
    one.address = ("127.0.0.1", int(listening.group(1)))
    one.output.wait(r"^INI INFO Booting worker")
    one.get("/ini")
    log = tmp_path / "access.log"
    wait_until(lambda: '"GET /ini HTTP/1.1" 200' in log.read_text(), "the access log of the file")
    assert log.read_text().startswith("INI INFO 127.0.0.1 - - ")


def test_the_dict_wins_over_json_and_ini(server, conf, tmp_path):
    (tmp_path / "log.json").write_text(DICT.replace("False", "false").replace("DICT", "JSON"))
    (tmp_path / "log.ini").write_text(INI)
    text = f"logconfig_dict = {DICT}\nlogconfig_json = {str(tmp_path / 'log.json')!r}\n"
    one = server("hello:app", "-c", conf(text + f"logconfig = {str(tmp_path / 'log.ini')!r}"), ready=False)
    one.output.wait(r"^DICT INFO gunicorn\.error Booting")


@pytest.mark.ours
def test_wsgi_errors_follows_the_error_log(server, conf):
    one = server("request_hooks:app", "-c", conf(f"logconfig_dict = {DICT}"), ready=False)
    (listening,) = one.output.wait(r"Listening at: http://127\.0\.0\.1:(\d+) ")
    one.address = ("127.0.0.1", int(listening.group(1)))
    one.output.wait(r"Booting worker")
    one.get("/errors")
    one.output.wait(r"^raw text$")


def test_the_traceback_has_the_applications_lines(server, conf):
    one = server("request_hooks:app", "-c", conf(f"logconfig_dict = {DICT}"), ready=False)
    (listening,) = one.output.wait(r"Listening at: http://127\.0\.0\.1:(\d+) ")
    one.address = ("127.0.0.1", int(listening.group(1)))
    one.output.wait(r"Booting worker")
    assert one.get("/raises").status == 500
    one.output.wait(r"Error handling request")
    one.output.wait(r'^  File ".*request_hooks\.py", line \d+')


def test_a_reload_brings_the_new_form(server, conf):
    one = server("hello:app", "-c", conf(f"logconfig_dict = {DICT}"), ready=False)
    one.output.wait(r"^DICT INFO gunicorn\.error Booting")
    conf(f"logconfig_dict = {DICT.replace('DICT', 'NEWER')}")
    one.send_signal(signal.SIGHUP)
    one.output.wait(r"^NEWER INFO gunicorn\.error Booting")
    # A second reload before the first is through would take it back.
    one.output.wait(r"Worker exiting \(pid: \d+\)$")
    wait_until(lambda: len(one.workers()) == 1, "one generation")
    conf("logconfig_dict = {'handlers': {'x': {'class': 'no.Such'}}}")
    one.send_signal(signal.SIGHUP)
    one.output.wait(r"^NEWER ERROR gunicorn\.error reloading the logger configuration failed")
    one.output.wait(r"Booting", 3)
