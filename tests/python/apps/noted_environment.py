"""Answers with the variable that a hook has set, as it was at import."""

import os

VALUE = os.environ.get("SET_BY_HOOK", "not set").encode()


def application(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(VALUE)))])
    return [VALUE]
