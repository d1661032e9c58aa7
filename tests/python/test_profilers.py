"""Profilers and debuggers of the field on a worker that runs: each sees the threads and what they execute.

They look at the extension as it is shipped, stripped: its unwind tables are all they have.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ferricorn._core as core
from harness import HAS_GIL

PY_SPY = Path(sys.executable).with_name("py-spy")
BY_PY_SPY = pytest.mark.skipif(not HAS_GIL, reason="py-spy reads the threads of builds with a GIL only")
GDB = shutil.which("gdb")
APPLICATION = """
import gate, time
def a_view_that_waits():
    gate.wait("view")
def a_view_that_computes():
    end = time.monotonic() + 20
    while time.monotonic() < end and not gate._path("enough").exists():
        pass
def application(environ, start_response):
    {"/wait": a_view_that_waits, "/compute": a_view_that_computes}[environ["PATH_INFO"]]()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    text = done.stdout + done.stderr
    if re.search("Permission Denied|Operation not permitted|ptrace: ", text):
        pytest.skip("this machine does not let one process trace another")
    assert done.returncode == 0, text
    return text


@pytest.fixture
def busy(server, gates, tmp_path):
    """A server of which one thread is in a view; its worker's pid."""
    (tmp_path / "watched.py").write_text(APPLICATION)
    sockets = []

    def start(path: str) -> int:
        apps = str(Path(__file__).parent / "apps")
        one = server("watched", "--threads", "2", "--timeout", "0", "--pythonpath", apps, cwd=tmp_path)
        client = one.connect()
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sockets.append(client)
        if path == "/wait":
            gates.wait_reached("view")
        return one.booted()[0]

    yield start
    gates.open("view")
    gates.directory.joinpath("enough").touch()
    for client in sockets:
        assert client.read_response().status == 200
        client.close()


@BY_PY_SPY
def test_py_spy_shows_every_thread(busy):
    text = run(str(PY_SPY), "dump", "--pid", str(busy("/wait")))
    assert '"MainThread"' in text and "a_view_that_waits (watched.py" in text


@BY_PY_SPY
def test_py_spy_unwinds_native_frames_of_every_thread(busy):
    text = run(str(PY_SPY), "dump", "--native", "--pid", str(busy("/wait")))
    assert "a_view_that_waits (watched.py" in text
    threads = re.split(r"^Thread ", text, flags=re.MULTILINE)[1:]
    assert len(threads) >= 2
    assert all("libc.so" in thread for thread in threads), text


@BY_PY_SPY
def test_py_spy_records_where_the_time_goes(busy, tmp_path):
    pid, report = busy("/compute"), tmp_path / "report.txt"
    run(str(PY_SPY), "record", "--native", "-d", "1", "-r", "50", "-f", "raw", "-o", str(report), "--pid", str(pid))
    assert "a_view_that_computes (watched.py" in report.read_text()


@pytest.mark.skipif(GDB is None, reason="gdb is not installed")
def test_gdb_unwinds_every_thread_to_its_start(busy):
    text = run(GDB, "-p", str(busy("/wait")), "-batch", "-ex", "thread apply all bt")
    threads = re.split(r"^Thread \d+ ", text, flags=re.MULTILINE)[1:]
    assert len(threads) >= 2
    for thread in threads:
        assert "corrupt stack" not in thread
        assert re.search(r"clone|start_thread|libc_start|_start", thread), thread


@pytest.mark.ours
def test_segments_lie_on_pages_of_their_own_in_the_file():
    """Unwinders that go by /proc/PID/maps compare a mapping's offset with the segment's."""
    data = Path(core.__file__).read_bytes()
    assert data[:5] == b"\x7fELF\x02", "a 64-bit ELF file"
    table, size, count = (int.from_bytes(data[at : at + n], "little") for at, n in ((32, 8), (54, 2), (56, 2)))
    headers = [data[table + n * size :][:size] for n in range(count)]
    offsets = [int.from_bytes(one[8:16], "little") for one in headers if one[:4] == b"\x01\0\0\0"]
    assert offsets and all(offset % 4096 == 0 for offset in offsets), offsets
