"""`import gunicorn` where only ferricorn is installed, and `python -m ferricorn.alias`."""

import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest

from harness import APPS, HERE, Server, clean_environment

pytestmark = pytest.mark.ours
ALONE = {"PYTHONPATH": str(HERE / "without_gunicorn")}
ALIAS = {**ALONE, "ALIAS": "1"}


def python(program, env, interpreter=sys.executable):
    done = subprocess.run(
        [interpreter, "-W", "error", "-c", textwrap.dedent(program)],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_names_that_configurations_use_are_there():
    assert python(
        """
            import gunicorn
            from gunicorn import SERVER, SERVER_SOFTWARE, __version__, util, version_info
            from gunicorn.app.base import Application, BaseApplication
            from gunicorn.app.wsgiapp import WSGIApplication, run
            from gunicorn.arbiter import Arbiter
            from gunicorn.config import Config
            from gunicorn.errors import AppImportError, ConfigError, HaltServer
            from gunicorn.glogging import CONFIG_DEFAULTS, Logger, SafeAtoms
            from gunicorn.http.wsgi import Response
            from gunicorn.instrument.statsd import Statsd
            from gunicorn.workers.base import Worker
            from gunicorn.workers.gthread import ThreadWorker
            from gunicorn.workers.sync import SyncWorker
            assert version_info >= (20, 0) and __version__.count(".") == 2, version_info
            assert issubclass(Statsd, Logger) and issubclass(ThreadWorker, Worker)
            assert util.parse_address("unix:/a") == "/a" and util.parse_address("[::1]:80") == ("::1", 80)
            # One module under two names, not two copies.
            import ferricorn.glogging, gunicorn.glogging
            assert ferricorn.glogging.Logger is gunicorn.glogging.Logger
            assert gunicorn.util is util
            cfg = Config()
            cfg.set("bind", "0.0.0.0:80")
            cfg.set("workers", "3")
            print(cfg.workers, cfg.bind, cfg.address, cfg.timeout, cfg.worker_class_str, cfg.uid == cfg.user)
            for name, value in (("workers", -1), ("pre_fork", lambda: None), ("preload_app", "perhaps")):
                try:
                    cfg.set(name, value)
                except ValueError as error:
                    print(error)
            try:
                cfg.bind = "x"
            except AttributeError as error:
                print(error)
            """,
        ALIAS,
    ) == [
        "3 ['0.0.0.0:80'] [('0.0.0.0', 80)] 30 sync True",
        "Value must be positive: -1",
        "Value must have an arity of: 2",
        "Invalid boolean: perhaps",
        "Invalid access!",
    ]


def test_an_installed_gunicorn_is_left_alone():
    assert python(
        """
        import ferricorn._stand_in
        ferricorn._stand_in.install()
        import gunicorn.glogging
        print("site-packages/gunicorn" in gunicorn.__file__, gunicorn.glogging.Logger.__module__)
        """,
        {},
    ) == ["True gunicorn.glogging"]


def test_without_server_or_alias_nothing_is_pretended():
    program = "import importlib.util, ferricorn; print(importlib.util.find_spec('gunicorn'))"
    assert python(program, ALONE) == ["None"]


def test_a_configuration_may_import_gunicorn(server, tmp_path, gates):
    conf = tmp_path / "conf.py"
    conf.write_text(
        textwrap.dedent(
            """
            import gate
            import gunicorn.arbiter, gunicorn.workers.base, gunicorn.glogging
            gunicorn.SERVER_SOFTWARE = "own/1"
            gunicorn.SERVER = "own"

            def post_worker_init(worker):
                gate.note("kinds", [
                    isinstance(worker, gunicorn.workers.base.Worker),
                    isinstance(worker.log, gunicorn.glogging.Logger),
                    type(worker.cfg).__name__,
                    worker.app.wsgi() is worker.wsgi,
                ])
            """
        )
    )
    one = server("probe", "-c", str(conf), "--pythonpath", str(APPS), env=ALONE)
    assert gates.wait_notes("kinds") == ["[True, True, 'Config', True]"]
    assert one.get().header("server") == "own"


@pytest.fixture
def environment(tmp_path):
    """A virtual environment that sees our packages and has no gunicorn."""
    root = tmp_path / "venv"
    venv.create(root, with_pip=False, symlinks=True)
    (site,) = root.glob("lib/python*/site-packages")
    packages = Path(pytest.__file__).resolve().parent.parent
    source = Path(__import__("ferricorn").__file__).resolve().parent.parent
    (site / "ours.pth").write_text(f"{packages}\n{source}\n")
    return root


def alias(environment, *arguments, env):
    return subprocess.run(
        [str(environment / "bin/python"), "-m", "ferricorn.alias", *arguments],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_alias_starts_ferricorn_as_gunicorn(environment, server):
    made = alias(environment, env=ALONE)
    assert (made.returncode, made.stderr) == (0, "")
    command = environment / "bin/gunicorn"
    assert str(command) in made.stdout
    one = server("hello:app", "--threads", "2", command=[str(command)], env=ALONE)
    assert one.get().status == 200
    one.log.wait(r"Starting ferricorn")
    assert one.stop() == 0
    # Messages use the name they were called by.
    for arguments, code, expected in (
        (["--no-such"], 2, "gunicorn: error: unrecognized arguments: --no-such"),
        (["--help"], 0, "usage: gunicorn [OPTIONS] [APP_MODULE]"),
        (["--version"], 0, "gunicorn (version "),
    ):
        done = Server(arguments, command=[str(command)], bind=(), env=ALONE)
        assert done.wait_exit() == code
        assert expected in done.log.join() + done.output.join()
        assert done.reap() == []
    # Programs of the interpreter find the modules, and `python -m gunicorn` works.
    interpreter = str(environment / "bin/python")
    assert python("import gunicorn.app.base as m; print(m.__spec__.name)", ALONE, interpreter) == [
        "ferricorn._gunicorn.app.base"
    ]
    module = server("hello:app", command=[interpreter, "-m", "gunicorn"], env=ALONE)
    assert module.get().status == 200
    # Once more changes nothing; and away with it.
    assert alias(environment, env=ALONE).returncode == 0
    removed = alias(environment, "--remove", env=ALONE)
    assert (removed.returncode, removed.stderr) == (0, "")
    assert not command.exists()
    assert python("import importlib.util as u; print(u.find_spec('gunicorn'))", ALONE, interpreter) == ["None"]
    again = alias(environment, "--remove", env=ALONE)
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 1


def test_the_alias_is_refused_beside_gunicorn(environment):
    refused = alias(environment, env={})
    assert refused.returncode == 1
    assert refused.stderr == (
        "gunicorn itself is installed here (pip uninstall gunicorn, or --over-gunicorn): nothing was changed.\n"
    )
    assert not (environment / "bin/gunicorn").exists()


# What pip writes for gunicorn's entry point.
GUNICORNS_COMMAND = """#!{interpreter}
import re
import sys
from gunicorn.app.wsgiapp import run
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(run())
"""


def install_gunicorns_command(environment):
    command = environment / "bin/gunicorn"
    command.write_text(GUNICORNS_COMMAND.format(interpreter=environment / "bin/python"))
    command.chmod(0o755)
    return command


def whose(environment, env):
    """Which package `import gunicorn` leads to."""
    program = """
        import gunicorn.app.wsgiapp
        print(gunicorn.app.wsgiapp.run.__module__.partition(".")[0])
        """
    return "".join(python(program, env, str(environment / "bin/python")))


def test_over_gunicorn_survives_its_upgrade_and_leaves_nothing(environment, server):
    before = sorted(environment.rglob("*"))
    made = alias(environment, "--over-gunicorn", env={})
    assert (made.returncode, made.stderr) == (0, "")
    # pip replaces the command and the modules of gunicorn, and knows nothing of the alias.
    command = install_gunicorns_command(environment)
    assert whose(environment, {}) == "ferricorn"
    for start in ([str(command)], [str(environment / "bin/python"), "-m", "gunicorn"]):
        one = server("hello:app", command=start)
        assert one.get().status == 200
        first = one.log.wait(r"^.*\[(WARNING|INFO|ERROR)\].*$")[0][0]
        assert "[WARNING] This is ferricorn, in place of the installed gunicorn 27." in first
        one.log.wait(r"Starting ferricorn")
        assert one.stop() == 0
    assert whose(environment, {"FERRICORN_AS_GUNICORN": "0"}) == "gunicorn"
    removed = alias(environment, "--remove", env={})
    assert (removed.returncode, removed.stderr) == (0, "")
    assert whose(environment, {}) == "gunicorn"
    command.unlink()
    left = [path for path in sorted(environment.rglob("*")) if path not in before and "__pycache__" not in path.parts]
    assert left == []


def test_functions_framework_starts_ferricorn(environment, server, tmp_path):
    """It requires gunicorn and extends its `BaseApplication`."""
    (tmp_path / "main.py").write_text("def hello(request):\n    return 'from a function'\n")
    assert alias(environment, "--over-gunicorn", env={}).returncode == 0
    interpreter = str(environment / "bin/python")
    command = [interpreter, "-m", "functions_framework", "--target", "hello", "--host", "127.0.0.1", "--port", "0"]
    one = server(command=command, bind=(), cwd=tmp_path, env={"GUNICORN_LOG_LEVEL": "info"})
    answer = one.get("/")
    assert (answer.text, answer.header("Server")) == ("from a function", "ferricorn")
    one.log.wait(r"\[WARNING\] This is ferricorn, in place of the installed gunicorn")
    assert one.stop() == 0


def test_an_alias_from_before_gunicorn_survives_its_installation(environment, server):
    assert alias(environment, env=ALONE).returncode == 0
    command = install_gunicorns_command(environment)
    one = server("hello:app", command=[str(command)])
    assert one.get().status == 200
    one.log.wait(r"in place of the installed gunicorn")
    assert alias(environment, "--remove", env={}).returncode == 0
    assert whose(environment, {}) == "gunicorn"


def test_the_alias_overwrites_no_strangers(environment):
    command = environment / "bin/gunicorn"
    command.write_text("#!/bin/sh\n")
    refused = alias(environment, env=ALONE)
    assert refused.returncode == 1
    assert refused.stderr == f"{command} exists already: nothing was changed.\n"
    assert alias(environment, "--remove", env=ALONE).returncode == 1
    assert command.read_text() == "#!/bin/sh\n"
