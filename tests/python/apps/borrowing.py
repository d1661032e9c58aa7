"""An application that borrows the server's logger while it is imported, as Flask's documentation tells to."""

import logging
import os

import gate

SERVER = logging.getLogger("gunicorn.error")
BORROWED = logging.getLogger("borrowed")
BORROWED.handlers = SERVER.handlers
BORROWED.setLevel(SERVER.level)

gate.note("handlers", [isinstance(one, logging.StreamHandler) for one in SERVER.handlers])
gate.note("level", logging.getLevelName(SERVER.level))
gate.note("access", len(logging.getLogger("gunicorn.access").handlers))
BORROWED.info("imported: %s", "info")
BORROWED.debug("imported: debug")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/exception":
        try:
            raise ValueError("of the application")
        except ValueError:
            SERVER.exception("caught %s", path)
    elif path == "/own-level":
        SERVER.setLevel(logging.DEBUG)
        SERVER.debug("now with debug")
    elif path == "/own-format":
        SERVER.handlers[0].setFormatter(logging.Formatter("OWN %(levelname)s %(message)s"))
        SERVER.error("formatted")
    elif path == "/access":
        logging.getLogger("gunicorn.access").info("a line of the application's own")
    elif path == "/file":
        logging.getLogger("files").warning("to the file")
    else:
        BORROWED.warning("request %s", path)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"logged"]


if path := os.environ.get("OWN_FILE"):
    logging.getLogger("files").addHandler(logging.FileHandler(path))
