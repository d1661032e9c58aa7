"""Says which worker answers; sleeps as long as the query says."""

import os
import time


def application(environ, start_response):
    query = environ["QUERY_STRING"]
    if query:
        time.sleep(float(query))
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
