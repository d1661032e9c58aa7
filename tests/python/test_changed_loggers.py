"""`gunicorn.access` and `gunicorn.error` are Python's as soon as an application touches them: each change counts."""

from __future__ import annotations

import re

import pytest

from harness import IS_OURS, wait_until

WHEN = pytest.mark.parametrize("when", ["import", "post_fork", "view"])


@pytest.fixture
def changed(server, tmp_path):
    def start(change, when, *arguments):
        env = {"CHANGE": change, "WHEN": when}
        if when == "post_fork":
            conf = tmp_path / "conf.py"
            conf.write_text(
                "def post_fork(server, worker):\n    import changed_loggers\n    changed_loggers.change()\n"
            )
            arguments = (*arguments, "-c", str(conf), "--pythonpath", ".")
        one = server("changed_loggers", "--access-logfile", "-", "--threads", "2", *arguments, env=env)
        if when == "view":
            assert one.get("/change").status == 200
        return one

    return start


def asked(one):
    """Three requests, the last one by hand of the test until its effect can be seen."""
    for path in ("/health", "/page"):
        assert one.get(path).status == 200


def access_lines(one):
    return [line for line in one.output.text.splitlines() if " HTTP/1.1" in line]


@WHEN
@pytest.mark.parametrize(
    "change", ["access_filter", "access_atom_filter", "access_function_filter", "access_handler_filter"]
)
def test_filters_of_the_access_log(changed, change, when):
    one = changed(change, when)
    asked(one)
    one.output.wait(r"GET /page")
    assert one.stop() == 0
    assert not any("/health" in line for line in access_lines(one))


@WHEN
@pytest.mark.parametrize(
    "change",
    ["class", "info", "_log", "handle", "call_handlers", "emit", "handler_class"],
)
def test_classes_and_patched_methods_of_the_access_log(changed, change, when):
    one = changed(f"access_{change}", when)
    asked(one)
    one.output.wait(r"GET /page")
    assert one.stop() == 0
    assert not any("/health" in line for line in access_lines(one))


@WHEN
@pytest.mark.parametrize("change", ["records", "factory", "style"])
def test_what_makes_records_and_text_of_the_access_log(changed, change, when):
    one = changed(f"access_{change}", when)
    asked(one)
    one.output.wait(r"^OWN 127\.0\.0\.1 .*GET /page")
    assert one.stop() == 0
    assert all(line.startswith("OWN") for line in access_lines(one) if "/change" not in line)


def test_a_patch_of_all_loggers_counts_for_the_access_log(changed):
    one = changed("access_everywhere", "import")
    asked(one)
    one.output.wait(r"GET /page")
    assert one.stop() == 0
    assert not any("/health" in line for line in access_lines(one))


def test_a_late_patch_of_all_loggers_counts_soon(changed):
    one = changed("access_everywhere", "view")

    def is_silent():
        before = len(access_lines(one))
        asked(one)
        one.output.wait(r"GET /page")
        wait_until(lambda: any("/page" in line for line in access_lines(one)[before:]), "the page's line")
        return not any("/health" in line for line in access_lines(one)[before:])

    wait_until(is_silent, "the patch counts")
    assert one.stop() == 0


@WHEN
@pytest.mark.parametrize("change", ["class", "records", "methods", "style"])
def test_classes_and_patched_methods_of_the_error_log(changed, change, when):
    one = changed(f"error_{change}", when)
    assert one.get("/fail").status == 500
    one.log.wait(r"\[ERROR\] OWN Error handling request")
    assert one.stop() == 0
    one.log.wait(r"\[INFO\] OWN Worker exiting")


@pytest.mark.parametrize("when", ["import", "post_fork"])
@pytest.mark.parametrize(
    ("change", "start"),
    [
        ("level_names", r"\[\d{4}-.*\] \[\d+\] \[ERROR\] \[OWN\]"),
        ("times", r"\[1970-01-01 00:00:00 \+0000\] \[\d+\] \[ERROR\]"),
        ("format_time", r"\[OWN TIME\] \[\d+\] \[ERROR\]"),
    ],
)
def test_names_of_levels_and_times_of_the_error_log(changed, change, start, when):
    one = changed(f"error_{change}", when)
    assert one.get("/fail").status == 500
    one.log.wait(rf"^{start} Error handling request")
    assert one.stop() == 0


ON_LOG = """
def post_fork(server, worker):
    plain = worker.log.access

    def access(resp, req, environ, request_time):
        if environ["PATH_INFO"] != "/health":
            plain(resp, req, environ, request_time)

    worker.log.access = access
"""
ON_CLASS = """
def post_fork(server, worker):
    kind = type(worker.log)
    plain = kind.access

    def access(self, resp, req, environ, request_time):
        if environ["PATH_INFO"] != "/health":
            plain(self, resp, req, environ, request_time)

    kind.access = access
"""
ON_ATOMS = """
def post_fork(server, worker):
    plain = worker.log.atoms

    def atoms(resp, req, environ, request_time):
        return {**plain(resp, req, environ, request_time), "h": "OWN"}

    worker.log.atoms = atoms
"""
OTHER = """
import logging

def post_fork(server, worker):
    worker.log.access_log = logging.getLogger("other")
    handler = logging.StreamHandler(__import__("sys").stdout)
    handler.addFilter(lambda record: "/health" not in record.getMessage())
    handler.setFormatter(logging.Formatter("OTHER %(message)s"))
    worker.log.access_log.addHandler(handler)
    worker.log.access_log.setLevel("INFO")
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)])
@pytest.mark.parametrize("conf", [ON_LOG, ON_CLASS, ON_ATOMS, OTHER], ids=["object", "class", "atoms", "logger"])
def test_a_hook_changes_the_logger_object(server, tmp_path, conf, preload):
    path = tmp_path / "conf.py"
    path.write_text(conf)
    one = server("hello", "--access-logfile", "-", "--threads", "2", "-c", str(path), *preload)
    asked(one)
    start = {ON_ATOMS: "OWN - ", OTHER: "OTHER 127.0.0.1"}.get(conf, "127.0.0.1")
    one.output.wait(rf"^{re.escape(start)}.*GET /page")
    assert one.stop() == 0
    if conf is not ON_ATOMS:
        assert not any("/health" in line for line in access_lines(one))


@WHEN
@pytest.mark.parametrize("change", ["access_handler", "access_propagate"])
def test_handlers_of_the_access_log_get_each_request_beside_the_file(changed, gates, change, when):
    one = changed(change, when)
    asked(one)
    one.output.wait(r"GET /page")
    notes = wait_until(lambda: [n for n in gates.notes("handled") if "GET /page" in n], "the handler's note")
    assert len(notes) == 1
    assert notes[0].startswith("gunicorn.access INFO 127.0.0.1 - - [")
    assert one.stop() == 0
    assert len([line for line in access_lines(one) if "/page" in line]) == 1


@WHEN
@pytest.mark.parametrize("change", ["access_own_handler", "access_dict_config"])
def test_handlers_of_the_access_log_instead_of_the_file(changed, gates, change, when):
    one = changed(change, when)
    asked(one)
    wait_until(lambda: [n for n in gates.notes("handled") if "GET /page" in n], "the handler's note")
    assert one.stop() == 0
    assert not any("/page" in line for line in access_lines(one))
    if change == "access_dict_config":
        assert not any("/health" in note for note in gates.notes("handled"))


@WHEN
@pytest.mark.parametrize(
    "change", ["access_level", "access_disabled", "access_cleared", "existing_disabled", "all_disabled"]
)
def test_an_access_log_that_is_switched_off(changed, change, when):
    one = changed(change, when)
    asked(one)
    assert one.stop() == 0
    assert not any("/page" in line for line in access_lines(one))


@WHEN
def test_a_formatter_of_the_access_log(changed, when):
    one = changed("access_formatter", when)
    asked(one)
    one.output.wait(r"^OWN 127\.0\.0\.1 .*GET /page")
    assert one.stop() == 0


@WHEN
@pytest.mark.parametrize("change", ["error_handler", "error_propagate"])
def test_handlers_of_the_error_log(changed, gates, change, when):
    one = changed(change, when)
    assert one.get("/fail").status == 500
    one.log.wait("Error handling request")
    wait_until(
        lambda: any("gunicorn.error ERROR Error handling request" in n for n in gates.notes("handled")), "the note"
    )
    assert one.stop() == 0
    wait_until(lambda: any("Worker exiting" in note for note in gates.notes("handled")), "its last line")


@WHEN
@pytest.mark.parametrize("change", ["error_level", "error_disabled"])
def test_an_error_log_that_is_switched_off(changed, change, when):
    one = changed(change, when)
    assert one.get("/fail").status == 500
    asked(one)
    one.output.wait("GET /page")
    assert one.stop() == 0
    assert "Error handling request" not in one.log.text
    assert "Worker exiting" not in one.log.text


@WHEN
def test_a_filter_of_the_error_log(changed, when):
    one = changed("error_filter", when)
    assert one.get("/fail").status == 500
    assert one.stop() == 0
    text = one.log.join()
    assert "Worker exiting" in text
    if not IS_OURS:
        return
    assert "GET /fail" in text, "the message itself is not secret, the traceback is no part of it"


@WHEN
def test_a_formatter_of_the_error_log(changed, when):
    one = changed("error_formatter", when)
    assert one.get("/fail").status == 500
    one.log.wait(r"^OWN ERROR Error handling request")
    # The traceback has the line that failed.
    one.log.wait(r'^  File ".*changed_loggers\.py", line \d+')
    assert one.stop() == 0
    one.log.wait(r"^OWN INFO Worker exiting")


@pytest.mark.parametrize("when", ["import", "post_fork"])
@pytest.mark.parametrize("change", ["all_loggers", "all_records"])
def test_an_agent_in_all_loggers_sees_the_exceptions_of_requests(changed, gates, change, when):
    one = changed(change, when)
    assert one.get("/fail").status == 500
    one.log.wait(r"^\[.*\] \[ERROR\] Error handling request(?s:.*)changed_loggers\.py")
    notes = wait_until(lambda: gates.notes("handled"), "the agent has seen it")
    assert re.fullmatch(r"gunicorn\.error \w+Error True", notes[0])
    assert one.stop() == 0
    assert "has changed" not in one.log.text


@pytest.mark.ours
@WHEN
def test_one_line_says_so_in_each_worker(changed, when):
    one = changed("access_filter", when, "-w", "2")
    if when == "view":
        pytest.skip("the other worker was not changed")
    pattern = r"The application has configured gunicorn\.access: their lines go through Python's logging from now on\."
    one.log.wait(pattern, 2)
    asked(one)
    assert one.stop() == 0
    assert len(re.findall(pattern, one.log.join())) == 2


FEWER = ("--access-log-exclude", "/health,/page*", "--access-log-min-status", "404")


@pytest.mark.ours
@WHEN
def test_fewer_lines_are_fewer_in_python_too(changed, when):
    one = changed("access_propagate", when, *FEWER)
    for path in ("/health", "/page?x", "/page/2", "/fine", "/fail"):
        one.get(path)
    one.output.wait("GET /fail HTTP/1.1. 500")
    assert one.stop() == 0
    lines = [line for line in access_lines(one) if "/change" not in line]
    assert len(lines) == 1 and "GET /fail" in lines[0], lines


@pytest.mark.ours
def test_fewer_lines_are_fewer_with_a_logger_class(server, tmp_path):
    (tmp_path / "own.py").write_text("from gunicorn.glogging import Logger\nclass Own(Logger):\n    pass\n")
    arguments = ("--logger-class", "own.Own", "--pythonpath", str(tmp_path), "--access-logfile", "-")
    one = server("changed_loggers", *arguments, *FEWER, env={"CHANGE": "access_propagate", "WHEN": "never"})
    with one.connect() as client:
        client.send(b"GET /page HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n")
        assert client.read_response().status == 400
    for path in ("/health", "/fine", "/fail"):
        one.get(path)
    one.output.wait("GET /fail HTTP/1.1. 500")
    assert one.stop() == 0
    lines = access_lines(one)
    assert all("/fail" in line or " 400 " in line for line in lines), lines


@pytest.mark.ours
def test_loggers_that_are_only_used_stay_the_servers(server):
    one = server("borrowing", "--access-logfile", "-")
    one.get("/path")
    assert one.stop() == 0
    assert "Python's logging" not in one.log.join()


DJANGO = """
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

SECRET_KEY, ALLOWED_HOSTS, ROOT_URLCONF = "x", ["*"], __name__
USE_TZ, TIME_ZONE = True, "America/Caracas"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": True,
    "filters": {
        "health": {"()": "django.utils.log.CallbackFilter", "callback": lambda r: "/health" not in r.getMessage()}
    },
    "formatters": {"own": {"format": "DJANGO %(name)s %(message)s"}},
    "handlers": {
        "out": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "own",
            "filters": ["health"],
        }
    },
    "loggers": {
        "gunicorn.access": {"handlers": ["out"], "level": "INFO", "propagate": False},
        "gunicorn.error": {"handlers": ["out"], "level": "INFO", "propagate": False},
    },
}
urlpatterns = [path("<str:name>", lambda request, name: HttpResponse(name))]
application = get_wsgi_application()
"""


def test_logging_of_a_django_project(server, tmp_path):
    (tmp_path / "site_wsgi.py").write_text(DJANGO)
    one = server(
        "site_wsgi",
        "--access-logfile",
        "-",
        "--threads",
        "2",
        cwd=tmp_path,
        env={"TZ": "UTC", "DJANGO_SETTINGS_MODULE": "site_wsgi"},
    )
    asked(one)
    line = one.output.wait(r"^DJANGO gunicorn\.access .*GET /page.*$")[0].group(0)
    assert "-0400]" in line, "the time zone is the project's"
    assert one.stop() == 0
    assert not any("/health" in line for line in one.output.join().splitlines())
    assert re.search(r"^DJANGO gunicorn\.error Worker exiting", one.output.text, re.MULTILINE)


CONF = """
import logging

class NoHealth(logging.Filter):
    def filter(self, record):
        return "/health" not in record.getMessage()

logging.getLogger("gunicorn.access").addFilter(NoHealth())
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_filter_of_the_configuration_file(server, tmp_path, preload):
    conf = tmp_path / "conf.py"
    conf.write_text(CONF)
    one = server("hello", "--access-logfile", "-", "--threads", "2", "-c", str(conf), *preload)
    asked(one)
    one.output.wait(r"GET /page")
    assert one.stop() == 0
    assert not any("/health" in line for line in access_lines(one))
