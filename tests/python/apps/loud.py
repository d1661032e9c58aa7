"""Says much, in the way that the path names."""

import logging
import os
import sys

LINE = "said by the application " + "x" * 200


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/errors":
        environ["wsgi.errors"].write(LINE + "\n")
    elif path == "/logger":
        logging.getLogger("gunicorn.error").error(LINE)
    elif path == "/raise":
        raise ValueError(LINE)
    elif path == "/stderr":
        print(LINE, file=sys.stderr, flush=True)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
