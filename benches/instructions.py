"""Instructions of the extension itself per request, counted by valgrind: a gauge that noise does not move.

    python benches/instructions.py            # compare with benches/instructions.json; off by more than 3 %: exit 1
    python benches/instructions.py --record   # write what was counted there

One worker and one thread serve one keep-alive connection. The same server is run twice, with few and with many
requests, and the difference divided by that of the requests is the cost of one, without that of starting. Only
instructions in the extension count: neither the interpreter's nor the C library's, which other versions do in other
numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))
from scenarios import BROWSER  # noqa: E402
from servers import free_port  # noqa: E402

RECORD = HERE / "instructions.json"
FEW, MANY = 1000, 6000
# Sent together: how often the loop turns for a request depends on time, what it does with one does not.
BURST = 50
TOLERANCE = 0.03
SHORT = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HEADS = {
    "hello": SHORT + b"\r\n",
    "20 fields": SHORT + "".join(f"{line}\r\n" for line in BROWSER).encode() + b"\r\n",
}


def serve(head: bytes, requests: int) -> int:
    """Instructions that the extension executed in the worker, from its fork to its end."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        # The server writes its name over the command line, from which valgrind would take the file's name at the end.
        options = f"--quiet --callgrind-out-file={folder}/out.%p"
        command = [
            "valgrind",
            "--tool=callgrind",
            sys.executable,
            "-m",
            "ferricorn",
            "hello:app",
            "-b",
            f"127.0.0.1:{port}",
            "--timeout",
            "0",
        ]
        server = subprocess.Popen(
            command, cwd=HERE / "peers" / "apps", stderr=subprocess.DEVNULL, env=os.environ | {"VALGRIND_OPTS": options}
        )
        try:
            with connect(port, server) as client:
                for _ in range(requests // BURST):
                    client.sendall(head * BURST)
                    answers = b""
                    while answers.count(b"Hello, World!\n") < BURST:
                        answers += client.recv(65536)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        counts = [extension_instructions(path) for path in Path(folder).glob("out.*")]
    # The arbiter runs hardly any of it.
    return max(counts)


def connect(port: int, server: subprocess.Popen) -> socket.socket:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except ConnectionRefusedError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def extension_instructions(path: Path) -> int:
    """Sum of what callgrind's file says of functions in the extension, calls into other objects left out."""
    names: dict[str, str] = {}
    inside, is_call, total = False, False, 0
    for line in path.open():
        if found := re.match(r"ob=\((\d+)\)(?: (.*))?", line):
            names.setdefault(found[1], found[2] or "")
            inside = "_core." in names[found[1]]
        elif found := re.match(r"cob=\((\d+)\) (.*)", line):
            names.setdefault(found[1], found[2])
        elif line.startswith("calls="):
            is_call = True
        elif line[:1].isdigit() or line[:1] in "+-*":
            if inside and not is_call:
                total += int(line.split()[1])
            is_call = False
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write what was counted to instructions.json")
    chosen = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("SKIPPED: valgrind is not on PATH")
        return 0
    os.environ.pop("PYTHONMALLOC", None)
    counted = {name: round((serve(head, MANY) - serve(head, FEW)) / (MANY - FEW)) for name, head in HEADS.items()}
    if chosen.record:
        RECORD.write_text(json.dumps(counted, indent=1) + "\n")
    recorded = json.loads(RECORD.read_text())
    is_off = False
    for name, count in counted.items():
        change = count / recorded[name] - 1
        is_off |= abs(change) > TOLERANCE
        print(f"{name}: {count} instructions per request, recorded {recorded[name]} ({change:+.1%})")
    if is_off:
        print(f"More than {TOLERANCE:.0%} off. If that is meant, record it: python benches/instructions.py --record")
    return int(is_off)


if __name__ == "__main__":
    sys.exit(main())
