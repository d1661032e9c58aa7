"""Writes to everything that text can be written to."""

import os
import subprocess
import sys


def application(environ, start_response):
    word = environ["PATH_INFO"].strip("/")
    print(f"printed {word}", flush=True)
    print(f"complained {word}", file=sys.stderr, flush=True)
    os.write(1, f"wrote {word}\n".encode())
    subprocess.run(["sh", "-c", f"echo from a child {word}"], check=True)
    if word == "fails":
        raise ValueError("no answer")
    start_response("200 OK", [("Content-Length", "0")])
    return []
