"""Wrong input: one clear line, the right exit code, nothing left running."""

from __future__ import annotations

import re
import socket

import pytest

from harness import APPS, IS_OURS, Finished

BOOT_FAILED, LOAD_FAILED = 3, 4


def ends(*arguments, **options) -> Finished:
    finished = Finished(arguments, **options)
    assert not finished.left
    assert "panicked at" not in finished.error
    return finished


# -- applications that cannot be loaded ------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "said"),
    [
        ("no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("package.no_such:app", "ModuleNotFoundError: No module named 'package.no_such'"),
        ("import_fails:app", "RuntimeError: broken on purpose"),
        ("import_missing", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("hello:raises()", "RuntimeError: factory broke"),
    ],
)
def test_application_that_raises_while_it_is_loaded(application, said):
    finished = ends(application)
    assert finished.code == BOOT_FAILED
    assert said in finished.error
    # A misspelt module is no bug in anybody's code: the line says it all.
    is_misspelt = IS_OURS and application.split(":")[0] in said
    assert is_misspelt or "Traceback (most recent call last)" in finished.error
    assert "[ERROR] Shutting down: Master" in finished.error
    assert "[ERROR] Reason: Worker failed to boot." in finished.error


def test_traceback_of_a_failed_import_names_the_users_line():
    finished = ends("import_fails:app")
    assert re.search(r'File ".*import_fails\.py", line 3', finished.error)


def test_syntax_error_shows_the_line(tmp_path):
    (tmp_path / "unfinished.py").write_text("def application(:\n")
    finished = ends("unfinished", cwd=tmp_path)
    assert finished.code == BOOT_FAILED
    assert "SyntaxError" in finished.error
    assert "def application(:" in finished.error


@pytest.mark.parametrize(
    ("application", "said"),
    [
        ("hello:missing", "Failed to find attribute 'missing' in 'hello'."),
        ("hello:not_callable", "Application object must be callable."),
        ("hello:nothing", "Failed to find application object: 'nothing'"),
        ("hello:make_nothing()", "Failed to find application object: 'make_nothing()'"),
        ("hello:create_app(", "Failed to parse 'create_app(' as an attribute name or function call."),
        ("hello:create_app(1, 2, 3)", "create_app() takes from 0 to 1 positional arguments but 3 were given"),
        ("hello:create_app(colour='red')", "create_app() got an unexpected keyword argument 'colour'"),
        (
            "hello:create_app(open('x'))",
            "Failed to parse arguments as literal values: \"create_app(open('x'))\"",
        ),
        ("hello:1 + 1", "Failed to parse '1 + 1' as an attribute name or function call."),
    ],
)
def test_application_that_is_not_there_or_not_one(application, said):
    finished = ends(application)
    assert finished.code == LOAD_FAILED
    assert said in finished.error
    assert "Traceback" not in finished.error
    assert "[ERROR] Reason: App failed to load." in finished.error


def test_preloaded_application_that_fails():
    finished = ends("import_fails:app", "--preload")
    assert finished.code == 1
    assert "broken on purpose" in finished.error
    assert "Booting worker" not in finished.error


def test_no_application_at_all():
    finished = ends()
    assert finished.code == 1
    assert "Error: No application module specified." in finished.error


def test_check_config_reports_an_application_that_fails():
    finished = ends("--check-config", "import_fails:app")
    assert finished.code == 1
    assert "RuntimeError: broken on purpose" in finished.error


# -- command lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-w", "abc"], "argument -w/--workers: invalid int value: 'abc'"),
        (["--threads", "1.5"], "argument --threads: invalid int value: '1.5'"),
        (["--timeout", ""], "argument -t/--timeout: invalid int value: ''"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["-w"], "argument -w/--workers: expected one argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_lines_that_do_not_parse(arguments, said):
    finished = ends(*arguments, "hello:app") if arguments != ["-w"] else ends("hello:app", "-w")
    assert finished.code == 2
    assert said in finished.error.splitlines()[-1]
    assert not IS_OURS or len(finished.error.splitlines()) == 1


@pytest.mark.ours
@pytest.mark.parametrize(("typed", "meant"), [("--wrokers=2", "--workers"), ("--acess-logfile=-", "--access-logfile")])
def test_unknown_flag_comes_with_a_suggestion(typed, meant):
    finished = ends(typed, "hello:app")
    assert finished.code == 2
    assert meant in finished.error.splitlines()[-1]


def test_bad_command_line_in_a_variable():
    assert ends("hello:app", env={"GUNICORN_CMD_ARGS": "--no-such-flag"}).code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers=-1"], "Value must be positive: -1"),
        (["-b", "127.0.0.1:http"], "'http' is not a valid port number."),
        (["--chdir", "/no/such/directory"], "can't chdir to '/no/such/directory'"),
        (["-c", "no_such_config.py"], "'no_such_config.py' doesn't exist"),
        (["-u", "no-such-user"], "No such user: 'no-such-user'"),
        (["-g", "no-such-group"], "No such group: 'no-such-group'"),
        (["-e", "COLOUR"], "environment setting 'COLOUR' invalid"),
        (["--forwarded-allow-ips", "10.0.0.1/8"], "10.0.0.1/8 has host bits set"),
        (["--error-logfile", "/no/such/directory/log"], "'/no/such/directory/log' isn't writable"),
        (["--pid", "/no/such/directory/pid"], "/no/such/directory"),
        (["-k", "no_such_worker"], "no_such_worker"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_values_that_make_no_sense(arguments, said):
    finished = ends(*arguments, "hello:app", bind=() if "-b" in arguments else ("127.0.0.1:0",))
    assert finished.code == 1
    assert said in finished.error
    assert "Booting worker" not in finished.error


@pytest.mark.ours
@pytest.mark.parametrize("worker_class", ["uvicorn.workers.UvicornWorker", "tornado", "my.Worker"])
def test_other_worker_classes_are_refused_by_name(worker_class):
    finished = ends("-k", worker_class, "hello:app")
    assert finished.code == 1
    assert worker_class in finished.error
    assert "Traceback" not in finished.error


# -- config files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers = -1\n", "Value must be positive: -1"),
        ("workers = 'many'\n", "invalid literal for int() with base"),
        ("preload_app = 'perhaps'\n", "Invalid boolean: perhaps"),
        ("post_fork = 5\n", "Value is not callable: 5"),
        ("def post_fork(server): pass\n", "Value must have an arity of: 2"),
    ],
)
def test_config_values_that_make_no_sense(tmp_path, text, said):
    (tmp_path / "config.py").write_text(text)
    finished = ends("-c", str(tmp_path / "config.py"), "hello:app")
    assert finished.code == 1
    assert f"Invalid value for {text.removeprefix('def ').split()[0].split('(')[0]}" in finished.error
    assert said in finished.error


def test_config_file_that_raises(tmp_path):
    (tmp_path / "config.py").write_text("import os\nos.environ['NO_SUCH_VARIABLE_AT_ALL']\n")
    finished = ends("-c", str(tmp_path / "config.py"), "hello:app")
    assert finished.code == 1
    assert f"Failed to read config file: {tmp_path}/config.py" in finished.error
    assert re.search(r"Traceback[\s\S]*config\.py\", line 2[\s\S]*KeyError: 'NO_SUCH_VARIABLE_AT_ALL'", finished.error)


def test_unknown_extension_of_a_config_file_is_a_warning(server, tmp_path):
    (tmp_path / "config.txt").write_text("workers = 2\n")
    one = server("-c", str(tmp_path / "config.txt"), "hello:app").wait_ready(2)
    assert "!!! WARNING: configuration file should have a valid Python extension." in one.log.text


@pytest.mark.ours
def test_misspelt_setting_in_a_config_file_is_a_warning(server, tmp_path):
    (tmp_path / "config.py").write_text("worker = 4\n")
    one = server("-c", str(tmp_path / "config.py"), "hello:app")
    one.log.wait("'?worker'?.*workers")
    assert ends("--check-config", "-c", str(tmp_path / "config.py"), "hello:app").code == 1


# -- addresses that are taken ----------------------------------------------------------------------


@pytest.mark.slow
def test_port_in_use_is_tried_five_times():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = ends("hello:app", bind=(f"127.0.0.1:{port}",))
    assert finished.code == 1
    assert finished.error.count(f"[ERROR] Connection in use: ('127.0.0.1', {port})") == 5
    assert finished.error.count(f"[ERROR] Can't connect to ('127.0.0.1', {port})") == 1
    assert "Booting worker" not in finished.error


def test_port_that_becomes_free_is_taken(server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = server("hello:app", bind=(f"127.0.0.1:{port}",), ready=False)
        one.log.wait("Connection in use")
    assert one.wait_ready().get().status == 200


@pytest.mark.slow
@pytest.mark.ours
def test_unix_socket_of_a_living_server_is_not_stolen(server, tmp_path):
    first = server("hello:app", bind=(f"unix:{tmp_path}/app.sock",))
    assert ends("hello:app", bind=(f"unix:{tmp_path}/app.sock",)).code == 1
    assert first.get().status == 200


def test_pidfile_of_a_living_process_is_respected(server, tmp_path):
    first = server("hello:app", "--pid", f"{tmp_path}/pid")
    finished = ends("hello:app", "--pid", f"{tmp_path}/pid")
    assert finished.code == 1
    assert f"Already running on PID {first.pid}" in finished.error
    assert (tmp_path / "pid").read_text() == f"{first.pid}\n", "the pidfile of the first is untouched"


def test_stale_pidfile_is_replaced(server, tmp_path):
    (tmp_path / "pid").write_text("4194303\n")
    one = server("hello:app", "--pid", f"{tmp_path}/pid")
    assert (tmp_path / "pid").read_text() == f"{one.pid}\n"


def test_broken_application_leaves_no_socket_behind(tmp_path):
    assert ends("import_fails:app", bind=(f"unix:{tmp_path}/app.sock",), cwd=APPS).code == BOOT_FAILED
    assert not (tmp_path / "app.sock").exists()
