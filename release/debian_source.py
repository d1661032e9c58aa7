"""The original source of one of Debian's packages, from the mirror that apt uses, checked against its index."""

from __future__ import annotations

import hashlib
import lzma
import re
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path


def unpack(package: str, suite: str, folder: Path) -> Path:
    """Unpacks into a new `folder`; returns the directory that the archive has at its top."""
    mirror = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=True
    )
    site = mirror.stdout.split()[0]
    index = lzma.decompress(_fetch(f"{site}/dists/{suite}/main/source/Sources.xz")).decode()
    entry = next(part for part in index.split("\n\n") if part.startswith(f"Package: {package}\n"))
    place = re.search(r"^Directory: (.+)$", entry, re.MULTILINE)
    named = re.search(r"^ ([0-9a-f]{64}) \d+ (\S+\.orig\.tar\.[gx]z)$", entry, re.MULTILINE)
    if place is None or named is None:
        sys.exit(f"the index of {suite} does not say where the source of {package} is")
    print(f"fetching {named[2]}", file=sys.stderr)
    content = _fetch(f"{site}/{place[1]}/{named[2]}")
    if hashlib.sha256(content).hexdigest() != named[1]:
        sys.exit(f"{named[2]} is not what the index of {suite} says")
    folder.mkdir(parents=True)
    archive = folder.with_name(named[2])
    archive.write_bytes(content)
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="tar")
    (top,) = folder.iterdir()
    return top


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        content: bytes = answer.read()
    return content
