"""Says which worker answers. But for the first few, workers stop in their import until the test lets them on."""

import os
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


def application(environ, start_response):
    if environ["QUERY_STRING"]:
        time.sleep(float(environ["QUERY_STRING"]))
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
