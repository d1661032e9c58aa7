"""A free-threaded CPython for `make test-free-threaded`: prints the path of one.

    python release/free_threaded.py FOLDER

python3.14t (or a newer one) on PATH, else 3.13t, built into FOLDER from Debian's source package in SUITE.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import debian_source

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
    top = debian_source.unpack(PACKAGE, SUITE, source)
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


def say(what: str) -> None:
    print(what, file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
