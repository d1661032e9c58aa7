"""A real systemd starts, watches, reloads, upgrades and stops the unit files, while clients send requests.

Twice: this machine's systemd with the units of examples/deploy, and a newer one (`Type=notify-reload`) with those of
the documentation's page.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from fronts import example, is_open
from machine import Machine, kill, machine, other_release

from harness import PATIENCE_S, REPOSITORY, wait_until
from load import Load
from pages import blocks, free_port
from wire import Client

APP = """import os

def app(environ, start_response):
    body = f"{environ['QUERY_STRING']} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
SETTINGS = "workers = 2\nthreads = 4\n"


def of_the_page(name: str) -> str:
    return next(block.text for block in blocks(REPOSITORY / "docs/systemd.md") if block.title == name)


@pytest.fixture(scope="module", params=["of the examples", "of the page"])
def booted(request):
    newer = request.param == "of the page"
    with machine(other_release("trixie") if newer else Path("/")) as own:
        own.newer = newer
        yield own


@pytest.fixture
def site(booted):
    """The machine with the application's files, and the address that its socket unit and its settings have."""
    own: Machine = booted
    own.address = ("127.0.0.1", free_port())
    host, port = own.address
    own.write("/srv/app/app.py", APP)
    own.write("/srv/app/gunicorn.conf.py", f"{SETTINGS}bind = '{host}:{port}'\n")
    text = of_the_page if own.newer else lambda name: example(f"systemd/{name}")
    assert ("\nType=notify-reload\n" in text("app.service")) == own.newer
    own.write("/etc/systemd/system/app.service", text("app.service"))
    socket = text("app.socket")
    assert "127.0.0.1:8000" in socket
    own.write("/etc/systemd/system/app.socket", socket.replace("127.0.0.1:8000", f"{host}:{port}"))
    own.systemctl("daemon-reload")
    own.mark_journal()
    yield own
    own.systemctl("stop", "app.socket", "app.service")
    own.run("systemctl", "reset-failed", "app.service", check=False)
    own.run("rm", "-rf", "/etc/systemd/system/app.service.d")


def note(record_property, counters) -> None:
    assert counters.lost == 0, counters.details
    record_property("requests", f"{counters.sent} sent, {counters.lost} lost")


def echo(own: Machine) -> str:
    with Client(own.address, PATIENCE_S) as client:
        return client.request("GET", "/?word", [("Host", "x")]).text


def reload(own: Machine, load: Load) -> None:
    before = own.pids("app.service")
    own.systemctl("reload", "app")
    master = int(own.show("app", "MainPID"))
    if own.newer:
        # systemd has waited for the outcome.
        assert own.show("app", "SubState") == "running"
        assert own.pids("app.service") - before, "new workers are there when systemctl returns"
    wait_until(lambda: own.pids("app.service") & before == {master}, "the workers of before are gone")
    workers = own.pids("app.service") - {master}
    wait_until(lambda: any(load.counters.workers[str(pid)] for pid in workers), "the new workers answer")


def test_a_service_is_started_reloaded_upgraded_and_stopped(site, record_property):
    site.systemctl("start", "app")
    # It is ready when systemctl returns: no second try.
    assert echo(site).startswith("word ")
    wait_until(lambda: site.show("app", "StatusText") == "2 workers serving", "systemctl status names the workers")
    table = site.run("env", "XDG_RUNTIME_DIR=/run/app", "/srv/app/venv/bin/ferricornc", "-c", "show workers")
    assert table.count("serving") == 2, table
    master = site.show("app", "MainPID")
    with Load(site.address) as load:
        for number in range(1, 4):
            reload(site, load)
            load.wait_answered(number * 1000)
        assert site.show("app", "MainPID") == master
        upgrade(site, master)
        load.wait_answered(load.counters.answered + 1000)
    note(record_property, load.counters)
    with Load(site.address, until_refused=True) as leaving:
        site.systemctl("stop", "app")
        counters = leaving.join()
    note(record_property, counters)
    assert site.show("app", "Result") == "success"
    assert site.show("app", "NRestarts") == "0"
    assert site.pids("app.service") == set()
    lines = site.journal("app")
    for text in (
        "Listening at: http://127.0.0.1:",
        "Handling signal: hup",
        "Booting worker with pid: ",
        "Shutting down: M",
    ):
        assert any(text in line for line in lines), (text, lines)
    assert not [line for line in lines if re.search(r"\[(WARNING|ERROR|CRITICAL)\]", line)]


def upgrade(site: Machine, master: str) -> None:
    kill(site, master, signal.SIGUSR2)
    workers = site.pids("app.service")
    wait_until(lambda: len(site.pids("app.service")) == 6, "two masters, two workers each")
    kill(site, master, signal.SIGTERM)
    wait_until(lambda: len(site.pids("app.service")) == 3, "the old ones are gone")
    assert not site.pids("app.service") & workers & {int(master)}
    wait_until(lambda: int(site.show("app", "MainPID")) in site.pids("app.service"), "the new one is the main process")
    assert site.show("app", "MainPID") != master
    assert site.show("app", "ActiveState") == "active"


def test_a_socket_unit_starts_the_service_and_keeps_clients_over_restarts(site, record_property):
    site.systemctl("start", "app.socket")
    assert site.show("app", "ActiveState") == "inactive"
    assert echo(site).startswith("word "), "the first connection has started it"
    assert any(re.search(r"Listening at: http://127\.0\.0\.1:\d+", line) for line in site.journal("app"))
    with Load(site.address) as load:
        reload(site, load)
        for _ in range(3):
            site.systemctl("restart", "app.service")
            load.wait_answered(load.counters.answered + 1000)
        # Its clients start it again.
        site.run("systemctl", "stop", "app.service")
        load.wait_answered(load.counters.answered + 1000)
        assert site.show("app", "ActiveState") == "active"
    note(record_property, load.counters)
    site.systemctl("stop", "app.socket", "app.service")
    assert not is_open(site.address[1])
    assert site.pids("app.service") == set()


def wait_restarted(site: Machine) -> None:
    wait_until(lambda: site.show("app", "NRestarts") == "1", "systemd has restarted it")
    wait_until(lambda: site.show("app", "ActiveState") == "active", "it serves again")
    assert echo(site).startswith("word ")


def test_a_silent_master_is_restarted(site):
    site.write("/etc/systemd/system/app.service.d/soon.conf", "[Service]\nWatchdogSec=2\n")
    site.systemctl("daemon-reload")
    site.systemctl("start", "app")
    master = site.show("app", "MainPID")
    kill(site, master, signal.SIGSTOP)
    wait_restarted(site)
    assert site.show("app", "MainPID") != master
    assert any("Watchdog timeout" in line for line in site.journal("app"))


def test_a_master_that_is_killed_is_restarted(site):
    site.systemctl("start", "app")
    master = site.show("app", "MainPID")
    kill(site, master, signal.SIGKILL)
    wait_restarted(site)
    assert len(site.pids("app.service")) == 3, "no worker of the old master is left"


def test_an_application_that_does_not_load_is_a_failed_start(site):
    site.write("/srv/app/app.py", "import nowhere\n")
    told = site.run("systemctl", "start", "app", check=False)
    assert told.startswith("1 "), told
    wait_until(lambda: site.show("app", "ActiveState") == "failed", "systemd gives up")
    assert site.show("app", "ExecMainStatus") in ("3", "4")
    assert any("No module named 'nowhere'" in line for line in site.journal("app"))


def test_a_reload_that_fails_keeps_the_service(site):
    site.systemctl("start", "app")
    before = site.pids("app.service")
    with Load(site.address) as load:
        site.write("/srv/app/app.py", "import nowhere\n")
        # systemd has no answer for a reload that was refused: the journal has it.
        site.systemctl("reload", "app")
        wait_until(
            lambda: any("No module named 'nowhere'" in line for line in site.journal("app")), "the journal says why"
        )
        load.wait_answered(load.counters.answered + 1000)
        assert site.show("app", "ActiveState") == "active"
        assert site.pids("app.service") >= before
    assert load.counters.lost == 0, load.counters.details
