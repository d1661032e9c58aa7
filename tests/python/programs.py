"""Programs that tests start: found where they are installed, skipped by name where they are not."""

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

from harness import PATIENCE_S, wait_until
from wire import Client

# Some programs come in wheels: their commands are beside this Python.
BESIDE = str(Path(sys.executable).parent)
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), BESIDE, "/usr/sbin", "/usr/local/sbin"])


def program(name: str) -> str:
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


NGINX = """
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log {home}/error.log info;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    client_max_body_size 64m;
    upstream app {{
        server {upstream};
        keepalive 2;
    }}
    server {{
        listen unix:{home}/front.sock;
        {locations}
    }}
}}
"""


def accepts(path: str) -> bool:
    """Whether somebody listens: a socket's file is there before that."""
    try:
        Client(path, PATIENCE_S).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def nginx(upstream: str, locations: str) -> Iterator[str]:
    """nginx in front of `upstream`, which the locations call `app`; gives the path of the socket that it listens on."""
    path = program("nginx")
    # Not pytest's directory: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="nginx-") as home:
        user = "user root;" if os.geteuid() == 0 else ""
        Path(home, "nginx.conf").write_text(NGINX.format(home=home, upstream=upstream, user=user, locations=locations))
        line = [path, "-p", home, "-e", f"{home}/error.log", "-c", f"{home}/nginx.conf"]
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        front = f"{home}/front.sock"
        try:
            wait_until(lambda: accepts(front) or process.poll() is not None, "nginx listens")
            assert process.poll() is None, process.stderr.read()
            yield front
            errors = [line for line in Path(home, "error.log").read_text().splitlines() if "[error]" in line]
            assert not errors, errors
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
            process.stderr.close()
