"""A view that takes one lock again and again, as Django's views take asgiref's."""

import threading

lock = threading.RLock()


def application(environ, start_response):
    number = 0
    for _ in range(1500):
        with lock:
            for step in range(5):
                number += step
    body = b"%d" % number
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
