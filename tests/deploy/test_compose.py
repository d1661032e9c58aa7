"""The Compose file is started: images built, names looked up, Prometheus scraping, and a deploy under load."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from containers import Engine, engine

from harness import REPOSITORY, wait_until
from load import Load
from pages import free_port
from wire import Client

pytest.importorskip("podman_compose")

ECHO = """

@app.get("/echo")
def echo() -> str:
    return f"{request.query_string.decode()} VERSION-{os.uname().nodename}-{os.getpid()}"
"""
SERVERS = ("app-a", "app-b")


class Stack:
    """The folder examples/, with another port and an echo, and the containers that Compose makes of it."""

    def __init__(self, own: Engine) -> None:
        self.engine = own
        home = Path(own.environment["CONTAINERS_CONF"]).parent / "examples"
        shutil.copytree(REPOSITORY / "examples", home)
        self.folder = home / "deploy/compose"
        self.application = home / "flask_app/app.py"
        self.source = self.application.read_text() + ECHO
        self.front = ("127.0.0.1", free_port())
        file = self.folder / "compose.yaml"
        text = file.read_text()
        assert '"80:8080"' in text
        text = text.replace('"80:8080"', f'"127.0.0.1:{self.front[1]}:8080"')
        # Docker makes the hardware address from this one. podman draws it, and neighbours know the old one a while.
        address = r"(ipv4_address: 172\.30\.53\.(\d+))"
        text, changed = re.subn(address, r"\1, mac_address: '02:42:ac:1e:35:\2'", text)
        assert changed == len(SERVERS)
        file.write_text(text)

    def compose(self, *line: str) -> None:
        self.engine.run(sys.executable, "-m", "podman_compose", "-p", "stack", *line, cwd=self.folder)

    def build(self, version: str) -> None:
        self.application.write_text(self.source.replace("VERSION", version))
        self.compose("build", *SERVERS)

    def start(self, *services: str) -> None:
        self.compose("up", "-d", "--no-deps", *services)

    def wait_healthy(self, service: str) -> None:
        line = ("healthcheck", "run", f"stack_{service}_1")
        wait_until(lambda: self.engine.podman(*line, check=False).returncode == 0, f"{service} is healthy", 60)

    def replace(self, service: str) -> None:
        """What `docker compose up --no-deps --wait` does with one service; podman-compose would renew nginx as well."""
        self.engine.podman("stop", "--time", "40", f"stack_{service}_1")
        self.engine.podman("rm", f"stack_{service}_1")
        self.start(service)
        self.wait_healthy(service)

    def log(self, service: str) -> str:
        done = self.engine.podman("logs", f"stack_{service}_1")
        return done.stdout + done.stderr


def scraped(stack: Stack) -> set[str]:
    """The servers that Prometheus finds up."""
    line = ("exec", "stack_prometheus_1", "promtool", "query", "instant", "http://127.0.0.1:9090", "up")
    told = stack.engine.podman(*line, check=False).stdout
    return set(re.findall(r'instance="(app-.):9000".* => 1 @', told))


def answered_by(load: Load, version: str) -> set[str]:
    found = (re.fullmatch(rf"{version}-(\w+)-\d+", worker) for worker in list(load.counters.workers))
    return {match.group(1) for match in found if match}


@pytest.mark.timeout(600)
def test_a_deploy_of_the_compose_file_loses_nothing(record_property):
    with engine() as own:
        stack = Stack(own)
        stack.build("v1")
        stack.start(*SERVERS)
        for service in SERVERS:
            stack.wait_healthy(service)
        stack.start("nginx", "prometheus")
        # nginx may need a moment, which is not the servers'.
        wait_until(lambda: is_served(stack), "nginx answers")
        with Load(stack.front) as load:
            wait_until(lambda: len(answered_by(load, "v1")) == 2, "both servers answer")
            stack.build("v2")
            for number, service in enumerate(SERVERS, 1):
                stack.replace(service)
                wait_until(lambda number=number: len(answered_by(load, "v2")) == number, f"the new {service} answers")
                load.wait_answered(load.counters.answered + 1000)
            own.podman("kill", "--signal", "HUP", "stack_app-a_1")
            wait_until(lambda: "Handling signal: hup" in stack.log("app-a"), "it reloads")
            load.wait_answered(load.counters.answered + 1000)
        assert load.counters.lost == 0, load.counters.details
        record_property("requests", f"{load.counters.sent} sent, {load.counters.lost} lost")
        wait_until(lambda: scraped(stack) == set(SERVERS), "Prometheus scrapes both", 30)
        for service in SERVERS:
            assert "Traceback" not in stack.log(service)


def is_served(stack: Stack) -> bool:
    try:
        with Client(stack.front, 5) as client:
            return client.request("GET", "/echo?x").status == 200
    except OSError:
        return False
