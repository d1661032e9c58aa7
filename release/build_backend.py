"""The build backend: maturin's, after a look at what it needs. What is missing ends in one message, not in a traceback.

maturin would fetch a Rust toolchain by itself where it finds none. That fails late and long without a network, and is
nothing that an install should do unasked.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import maturin

_WHEELS = "Wheels, which need neither, exist for CPython 3.10 to 3.14 on Linux (glibc 2.17, musl 1.2; x86_64, aarch64)."
_PIP = "pip finds them from version 20.3 on: python -m pip install --upgrade pip"

build_sdist = maturin.build_sdist
get_requires_for_build_sdist = maturin.get_requires_for_build_sdist


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    _check()
    return []


get_requires_for_build_editable = get_requires_for_build_wheel


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    _check()
    prepared: str = maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)
    return prepared


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    _check()
    built: str = maturin.build_wheel(wheel_directory, config_settings, metadata_directory)
    return built


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    _check()
    built: str = maturin.build_editable(wheel_directory, config_settings, metadata_directory)
    return built


def _check() -> None:
    missing = _missing()
    if missing:
        sys.exit(f"\nferricorn cannot be built here: {missing}\n{_WHEELS}\n{_PIP}\n")


def _missing() -> str | None:
    if not sys.platform.startswith("linux"):
        return f"it runs on Linux only, and this is {sys.platform}."
    if sys.implementation.name != "cpython":
        return f"it needs CPython, and this is {sys.implementation.name}."
    if _is_free_threaded() and sys.version_info < (3, 14) and not os.environ.get("UNSAFE_PYO3_SKIP_VERSION_CHECK"):
        return "free-threaded CPython is supported from 3.14 on, and this is {}.{}.".format(*sys.version_info)
    wanted = _rust_version()
    version = _cargo_version()
    if version is None:
        return f"there is no cargo on PATH. Building needs Rust {wanted} or newer (rustup, or the system's packages)."
    if version < tuple(map(int, wanted.split("."))):
        return f"cargo is {version[0]}.{version[1]}, and building needs Rust {wanted} or newer (rustup update)."
    compiler = shlex.split(os.environ.get("CC", "cc"))[:1]
    if not compiler or shutil.which(compiler[0]) is None:
        return "there is no C compiler (cc). Building needs one beside Rust (Debian: build-essential)."
    return None


def _is_free_threaded() -> bool:
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def _rust_version() -> str:
    manifest = Path(__file__).resolve().parent.parent / "Cargo.toml"
    found = re.search(r'^rust-version = "([0-9.]+)"', manifest.read_text(), re.MULTILINE)
    assert found, "Cargo.toml names the oldest Rust"
    return found[1]


def _cargo_version() -> tuple[int, int] | None:
    """None where it is missing, or is a stub without a toolchain behind it."""
    try:
        said = subprocess.run(["cargo", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.match(r"cargo (\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None
