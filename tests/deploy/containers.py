"""Containers without a registry: podman, and images that stand for those which the Compose file pulls.

The images have Debian's nginx and Prometheus, and the interpreter of the tests with a wheel of this package, which pip
finds without an index. Grafana is in no registry of packages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import program

from harness import REPOSITORY

ENGINE = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
STORAGE = """[storage]
driver = "overlay"
graphroot = "{home}/store"
runroot = "{home}/run"
"""
LIBRARIES = "libssl3t64,libffi8,zlib1g,libbz2-1.0,liblzma5,libsqlite3-0,libreadline8t64"
IMAGES = {
    "docker.io/library/python:3.13-slim": """FROM localhost/debian
ADD python.tar /usr/local
COPY wheels /wheels
RUN ldconfig && printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' >/etc/pip.conf
""",
    "docker.io/library/nginx:1.29": """FROM localhost/debian
CMD ["nginx", "-g", "daemon off;"]
""",
    "docker.io/prom/prometheus:v3.5.0": """FROM localhost/debian
ENTRYPOINT ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/data"]
""",
}


class Engine:
    """podman with a storage of its own."""

    def __init__(self, home: Path) -> None:
        (home / "containers.conf").write_text(ENGINE)
        (home / "storage.conf").write_text(STORAGE.format(home=home))
        # Without systemd nothing runs health checks: the tests do.
        own = {"CONTAINERS_CONF": f"{home}/containers.conf", "CONTAINERS_STORAGE_CONF": f"{home}/storage.conf"}
        self.environment = {**os.environ, **own, "DISABLE_HC_SYSTEMD": "true"}

    def run(self, *line: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess:
        env = self.environment
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, env=env, cwd=cwd)
        assert not check or done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-3000:])
        return done

    def podman(self, *line: str, check: bool = True) -> subprocess.CompletedProcess:
        return self.run("podman", *line, check=check)


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """With the images of the Compose file."""
    if os.geteuid() != 0:
        pytest.skip("a container with a network of its own needs root")
    for name in ("podman", "runc", "iptables", "mmdebstrap"):
        program(name)
    with tempfile.TemporaryDirectory(prefix="containers-") as folder:
        home = Path(folder)
        own = Engine(home)
        try:
            starts = own.podman("info", check=False)
            if starts.returncode != 0:
                pytest.skip(f"podman does not run here: {starts.stderr[-300:]}")
            own.podman("import", "-q", str(debian()), "localhost/debian")
            context = home / "context"
            (context / "wheels").mkdir(parents=True)
            wheels(context / "wheels")
            interpreter(context / "python.tar")
            for name, text in IMAGES.items():
                (context / "Containerfile").write_text(text)
                own.podman("build", "-q", "--isolation", "chroot", "-t", name, str(context))
            yield own
        finally:
            own.podman("rm", "--all", "--force", "--time", "0", check=False)
            own.podman("network", "prune", "--force", check=False)
            own.podman("system", "reset", "--force", check=False)


def debian() -> Path:
    """A root of Debian with the programs, made once."""
    made = REPOSITORY / "target/roots/containers-trixie.tar"
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    line = ["mmdebstrap", "--quiet", "--variant=essential", f"--keyring={keys}"]
    line += [f"--include=nginx-light,prometheus,passwd,{LIBRARIES}", '--aptopt=Acquire::Check-Valid-Until "false"']
    with tempfile.TemporaryDirectory(prefix="containers-", dir=made.parent) as folder:
        fresh = f"{folder}/root.tar"
        done = subprocess.run([*line, "trixie", fresh], capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            pytest.skip(f"no root of trixie: {done.stderr[-300:]}")
        Path(fresh).rename(made)
    return made


def wheels(folder: Path) -> None:
    """Of this package as it is installed here, and of what the Flask example wants."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    needed = REPOSITORY / "examples/flask_app/requirements.txt"
    subprocess.run([*pip, "download", "-q", "-d", str(folder), "-r", str(needed)], check=True, timeout=300)
    extension = next((REPOSITORY / "src/ferricorn").glob("_core*.so"))
    with tempfile.TemporaryDirectory() as unpacked:
        package = Path(unpacked) / "ferricorn"
        shutil.copytree(REPOSITORY / "src/ferricorn", package, ignore=shutil.ignore_patterns("__pycache__"))
        assert (package / extension.name).exists()
        information = Path(unpacked) / "ferricorn-0.1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ferricorn\nVersion: 0.1.0\n")
        (information / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: tests\nTag: py3-none-any\n")
        commands = "ferricorn = ferricorn.__main__:main\nferricornc = ferricorn.ctl:main\n"
        (information / "entry_points.txt").write_text(f"[console_scripts]\n{commands}")
        (information / "RECORD").write_text("")
        shutil.make_archive(str(folder / "ferricorn-0.1.0-py3-none-any"), "zip", unpacked)
    (folder / "ferricorn-0.1.0-py3-none-any.zip").rename(folder / "ferricorn-0.1.0-py3-none-any.whl")


def interpreter(archive: Path) -> None:
    """The interpreter of the tests, without what others have installed into it."""
    left_out = [f"--exclude={name}" for name in ("*/site-packages/*", "*/test", "*.a", "__pycache__")]
    line = ["tar", "-cf", str(archive), *left_out, "-C", sys.base_prefix, "bin", "lib"]
    subprocess.run(line, check=True, timeout=300)
