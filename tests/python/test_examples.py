"""Every example starts as its README says and answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import APPS, REPOSITORY, wait_until

EXAMPLES = REPOSITORY / "examples"

# One line per example: directory, arguments of its README without the address, a path, what it answers.
STARTS = {
    "flask_app": (["app:app", "-w", "4", "--threads", "2"], 4, "/", "Hello from Flask"),
    "django_project": (
        ["project.wsgi:application", "-w", "2", "--threads", "4"],
        2,
        "/",
        "csrfmiddlewaretoken",
    ),
}


def test_every_directory_is_covered():
    directories = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    # `make test-deploy` runs what is in deploy, test_grafana.py reads what is in grafana.
    assert directories == {*STARTS, "docker", "deploy", "grafana"}


@pytest.mark.parametrize("name", STARTS)
def test_example_starts_and_answers(server, name):
    arguments, workers, target, expected = STARTS[name]
    one = server(*arguments, cwd=EXAMPLES / name).wait_ready(workers)
    answer = one.get(target)
    assert answer.status == 200
    assert expected in answer.text
    assert one.stop() == 0


@pytest.mark.parametrize("name", STARTS)
def test_readme_shows_the_command_that_is_tested(name):
    text = (EXAMPLES / name / "README.md").read_text()
    assert re.search(rf"^ +ferricorn {re.escape(' '.join(STARTS[name][0]))} -b ", text, re.MULTILINE)


def test_the_commands_of_the_image(server):
    """Where there is no container engine: what its process 1 and its health check do."""
    text = (EXAMPLES / "docker/Dockerfile").read_text()
    command = json.loads(re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)[1])
    check = json.loads(re.search(r"^  CMD (\[.*\])$", text, re.MULTILINE)[1])
    env = dict(re.findall(r"(FERRICORN_\w+)=(\S+)", text))
    assert command[0] == "ferricorn"
    arguments = [part for part in command[1:] if part not in ("--bind", "0.0.0.0:8000")]
    one = server(*arguments, cwd=EXAMPLES / "flask_app", env=env).wait_ready(2)
    assert one.get("/").status == 200
    program = check[2].replace(":8000/", f":{one.port}/")
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 0
    # Nothing listens: the check must be able to fail.
    nobody = check[2].replace(":8000/", ":1/")
    assert (
        subprocess.run([sys.executable, "-c", nobody], timeout=20, check=False, stderr=subprocess.DEVNULL).returncode
        != 0
    )
    assert re.search(r"^STOPSIGNAL SIGTERM$", text, re.MULTILINE)
    assert one.stop() == 0


def test_configuration_file(server, tmp_path):
    one = server("-c", str(EXAMPLES / "gunicorn.conf.py"), "hello:app", cwd=APPS).wait_ready(2)
    one.log.wait(r"\[INFO\] ready with 2 workers")
    one.get("/seen")
    one.output.wait("GET /seen")
    assert one.stop() == 0


def test_configuration_file_by_itself(server, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text((EXAMPLES / "gunicorn.conf.py").read_text())
    one = server("--chdir", str(APPS), "hello:app", cwd=tmp_path, env={"WEB_CONCURRENCY": "3"}).wait_ready(3)
    wait_until(lambda: len(one.workers()) == 3, "three workers")


def test_index_names_every_example():
    text = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.name not in ("README.md", "__pycache__"):
            assert f"]({path.name})" in text


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob("*.md")) + sorted(EXAMPLES.rglob("*.md")), ids=lambda path: path.name
)
def test_links_of_the_documents_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} points at {target}"
