"""Says which worker answers. But for the first few, workers stop in their import until the test lets them on."""

import contextlib
import os
import threading
import time

import gate

for number in range(int(os.environ.get("FIRST", "1000"))):
    try:
        gate._path(f"first-{number}").touch(exist_ok=False)
        break
    except FileExistsError:
        continue
else:
    gate.wait("import")


def hold(seconds):
    """Has every descriptor there is for so long."""
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.dup(0))
    os.close(held.pop())
    gate.reach("exhausted")
    held.append(os.dup(0))
    time.sleep(seconds)
    for number in held:
        os.close(number)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        threading.Thread(target=hold, args=(float(environ["QUERY_STRING"]),), daemon=True).start()
        environ["QUERY_STRING"] = ""
    if environ["QUERY_STRING"]:
        time.sleep(float(environ["QUERY_STRING"]))
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
