"""Installs built wheels where there is no Rust, and serves the Flask example with each: `make run-wheels`.

An interpreter per wheel: `python3.N` of this machine, or one in a root that `make roots` has unpacked, through its
loader or qemu-user. A wheel without an interpreter here is named as not run; with `--all` that is a failure.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/flask_app"
# Emulated, on a machine that builds besides.
PATIENCE_S = 300
REQUESTS = (
    ("GET", "/", 200, b"flask"),
    ("GET", "/no-such-page", 404, b""),
)


@dataclass
class Interpreter:
    """How to start a Python that a wheel is for."""

    command: list[str]
    where: str
    # A foreign one cannot run pip here: pip of this interpreter installs for it.
    is_foreign: bool


@dataclass
class Wheel:
    path: Path
    python: str
    platforms: list[str]

    @property
    def machine(self) -> str:
        return "aarch64" if "aarch64" in self.platforms[0] else "x86_64"

    @property
    def is_musl(self) -> bool:
        return "musllinux" in self.platforms[0]


def read(path: Path) -> Wheel:
    found = re.fullmatch(r"ferricorn-[^-]+-cp3\d+-cp3(\d+t?)-(.+)\.whl", path.name)
    if found is None:
        sys.exit(f"{path.name} is no wheel of ferricorn")
    return Wheel(path.resolve(), f"3.{found[1]}", found[2].split("."))


def interpreters(wheel: Wheel, roots: Path) -> Iterator[Interpreter]:
    """All that this machine has for a wheel, the most direct first."""
    name = f"python{wheel.python}"
    if wheel.machine == platform.machine() and not wheel.is_musl:
        candidates = [shutil.which(name), *Path.home().glob(f".pyenv/versions/{wheel.python}.*/bin/{name}")]
        for candidate in filter(None, candidates):
            if works([str(candidate)]):
                yield Interpreter([str(candidate)], "this machine", is_foreign=False)
    for root in sorted(roots.glob(f"{wheel.machine}-{'musl' if wheel.is_musl else 'glibc'}-*")):
        for folder in ("usr/bin", "usr/local/bin"):
            if (root / folder / name).exists():
                command = within(root, wheel) + [str(root / folder / name)]
                # The musl Python of the roots brings no OpenSSL along, and serving needs none.
                if works(command, "socket" if wheel.is_musl else "ctypes, ssl"):
                    yield Interpreter(command, f"{root.name} through {Path(command[0]).name}", is_foreign=True)


def within(root: Path, wheel: Wheel) -> list[str]:
    """What starts a program of another system: its loader, or the emulator that finds it."""
    if wheel.machine != platform.machine():
        return [f"qemu-{wheel.machine}-static", "-L", str(root)]
    if wheel.is_musl:
        return [str(next(root.glob("lib/ld-musl-*.so.1")))]
    folders = ":".join(str(root / folder) for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
    return [str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", folders]


def works(command: list[str], modules: str = "ctypes, ssl") -> bool:
    try:
        done = subprocess.run(
            [*command, "-c", f"import {modules}"], capture_output=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def clean_environment(**more: str) -> dict[str, str]:
    """Neither Rust nor this process's Python settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "CARGO", "RUST", "VIRTUAL_ENV"))
    }
    path = [folder for folder in kept.get("PATH", "").split(":") if not (Path(folder) / "cargo").exists()]
    return {**kept, "PATH": ":".join(path), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", **more}


def run(wheel: Wheel, interpreter: Interpreter) -> str:
    """Installs and serves; answers how long the installation took."""
    with tempfile.TemporaryDirectory() as folder:
        if interpreter.is_foreign:
            command, env, seconds = install_for_another(wheel, interpreter, Path(folder))
        else:
            command, env, seconds = install_here(wheel, interpreter, Path(folder))
        with served(command, env) as port:
            for method, path, status, part in REQUESTS:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
                connection.request(method, path)
                response = connection.getresponse()
                body = response.read()
                connection.close()
                assert response.status == status and part in body.lower(), (path, response.status, body[:200])
    return f"pip install in {seconds:.1f} s"


def install_here(wheel: Wheel, interpreter: Interpreter, folder: Path) -> tuple[list[str], dict[str, str], float]:
    env = clean_environment()
    subprocess.run([*interpreter.command, "-m", "venv", str(folder / "venv")], env=env, check=True)
    python = str(folder / "venv/bin/python")
    started = time.monotonic()
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel.path)], env=env, check=True)
    seconds = time.monotonic() - started
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(EXAMPLE / "requirements.txt")], env=env, check=True)
    return [str(folder / "venv/bin/ferricorn")], env, seconds


def install_for_another(
    wheel: Wheel, interpreter: Interpreter, folder: Path
) -> tuple[list[str], dict[str, str], float]:
    tags = [f"--platform={tag}" for tag in wheel.platforms]
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--target", str(folder), "--only-binary=:all:"]
    pip += ["--implementation=cp", f"--python-version={wheel.python.rstrip('t')}", *tags]
    pip += [f"--abi=cp{wheel.python.replace('.', '')}"]
    started = time.monotonic()
    subprocess.run([*pip, "--no-deps", str(wheel.path)], env=clean_environment(), check=True)
    seconds = time.monotonic() - started
    requirements = str(EXAMPLE / "requirements.txt")
    subprocess.run([*pip, "-r", requirements], env=clean_environment(), check=True)
    return [*interpreter.command, "-m", "ferricorn"], clean_environment(PYTHONPATH=str(folder)), seconds


@contextmanager
def served(command: list[str], env: dict[str, str]) -> Iterator[int]:
    """A server of the Flask example; its port, and at the end a clean stop."""
    with tempfile.TemporaryFile("w+") as log:
        arguments = ["app:app", "-b", "127.0.0.1:0", "-w", "2", "--threads", "2", "--no-control-socket"]
        # Under an emulator an import may take minutes.
        arguments += ["--boot-timeout", str(PATIENCE_S), "--timeout", str(PATIENCE_S)]
        server = subprocess.Popen([*command, *arguments], cwd=EXAMPLE, env=env, stdout=log, stderr=log)
        try:
            yield wait_for_port(server, log)
            server.terminate()
            code = server.wait(PATIENCE_S)
            assert code == 0, f"exit code {code}"
        except BaseException:
            log.seek(0)
            print(log.read(), file=sys.stderr)
            raise
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()


def wait_for_port(server: subprocess.Popen[bytes], log: IO[str]) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        text = os.pread(log.fileno(), 1 << 16, 0).decode()
        found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", text)
        if found and "Booting worker" in text:
            return int(found[1])
        time.sleep(0.1)
    raise AssertionError("the server did not start")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--roots", type=Path, default=ROOT / "target/roots")
    parser.add_argument("--all", action="store_true", help="a wheel that cannot be run here is a failure")
    chosen = parser.parse_args()
    failed = skipped = 0
    for wheel in map(read, sorted(chosen.folder.glob("ferricorn-*.whl"))):
        interpreter = next(interpreters(wheel, chosen.roots), None)
        if interpreter is None:
            skipped += 1
            print(f"NOT RUN  {wheel.path.name}: no CPython {wheel.python} for it here", flush=True)
            continue
        try:
            said = run(wheel, interpreter)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"FAILED   {wheel.path.name} on {interpreter.where}: {error}", flush=True)
        else:
            print(f"served   {wheel.path.name} on {interpreter.where}, {said}", flush=True)
    return 1 if failed or (chosen.all and skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
