"""Certificates for the scenarios with TLS, made by openssl when they are first needed."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

KEYS = {"ecdsa": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), "rsa": ("rsa:2048",)}


@functools.cache
def certificate(kind: str) -> tuple[str, str]:
    """The files of a self-signed certificate and of its key."""
    home = tempfile.mkdtemp(prefix="peers-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    files = str(Path(home, "certificate.pem")), str(Path(home, "key.pem"))
    line = ["openssl", "req", "-x509", "-newkey", *KEYS[kind], "-nodes", "-days", "30", "-subj", "/CN=localhost"]
    subprocess.run([*line, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files
