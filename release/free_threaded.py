"""A free-threaded CPython for `make test-free-threaded`: prints the path of one.

    python release/free_threaded.py FOLDER

python3.14t (or a newer one) on PATH, else 3.13t, built into FOLDER from Debian's source package in SUITE. Sources come
from the mirror that apt uses, and their checksum from its index.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

SUITE = "trixie"
PACKAGE = "python3.13"
ON_PATH = ("python3.15t", "python3.14t")


def main(folder: Path) -> int:
    for name in ON_PATH:
        if found := shutil.which(name):
            print(found)
            return 0
    python = folder / "bin" / "python3.13t"
    if not python.exists():
        build(folder)
    print(python)
    return 0


def build(folder: Path) -> None:
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    with tarfile.open(archive(folder)) as packed:
        packed.extractall(source, filter="tar")
    (top,) = source.iterdir()
    prefix = f"--prefix={folder.resolve()}"
    for command in (
        ["./configure", "-q", "--disable-gil", prefix],
        ["make", "-s", f"-j{os.cpu_count()}"],
        ["make", "-s", "install"],
    ):
        say(" ".join(command))
        with (folder / "build.log").open("a") as log:
            done = subprocess.run(command, cwd=top, stdout=log, stderr=log, check=False)
        if done.returncode:
            sys.exit(f"CPython could not be built; see {folder / 'build.log'}")
    shutil.rmtree(source)


def archive(folder: Path) -> Path:
    """The package's original source, downloaded and checked."""
    mirror = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=True
    )
    site = mirror.stdout.split()[0]
    index = lzma.decompress(fetch(f"{site}/dists/{SUITE}/main/source/Sources.xz")).decode()
    entry = next(part for part in index.split("\n\n") if part.startswith(f"Package: {PACKAGE}\n"))
    place = re.search(r"^Directory: (.+)$", entry, re.MULTILINE)
    named = re.search(r"^ ([0-9a-f]{64}) \d+ (\S+\.orig\.tar\.xz)$", entry, re.MULTILINE)
    if place is None or named is None:
        sys.exit(f"the index of {SUITE} does not say where the source of {PACKAGE} is")
    say(f"fetching {named[2]}")
    content = fetch(f"{site}/{place[1]}/{named[2]}")
    if hashlib.sha256(content).hexdigest() != named[1]:
        sys.exit(f"{named[2]} is not what the index of {SUITE} says")
    path = folder / named[2]
    path.write_bytes(content)
    return path


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        content: bytes = answer.read()
    return content


def say(what: str) -> None:
    print(what, file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
