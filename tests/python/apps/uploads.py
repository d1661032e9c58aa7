"""Reads bodies as they arrive."""

import gate

TEXT = [("Content-Type", "text/plain")]


def lines(environ, start_response):
    """Answers each line as it comes: the response is under way before the body is whole."""
    start_response("200 OK", list(TEXT))
    for line in environ["wsgi.input"]:
        gate.note("lines", line)
        yield line.upper()


def count(environ, start_response):
    gate.reach("began")
    body, total = environ["wsgi.input"], 0
    while block := body.read(65536):
        total += len(block)
    assert body.read() == body.readline() == b""
    start_response("200 OK", list(TEXT))
    return [str(total).encode()]


def held(environ, start_response):
    gate.wait("read")
    return count(environ, start_response)


def reports(environ, start_response):
    gate.reach("began")
    body = environ["wsgi.input"]
    try:
        while body.read(4):
            pass
    except OSError as error:
        gate.note("error", f"{type(error).__name__}: {error}")
        try:
            body.read()
        except OSError:
            gate.note("again", "yes")
    start_response("200 OK", list(TEXT))
    return [b"handled"]


def refuses(environ, start_response):
    start_response("403 Forbidden", list(TEXT))
    return [b"not read"]


def application(environ, start_response):
    routes = {"/lines": lines, "/count": count, "/held": held, "/reports": reports, "/refuses": refuses}
    return routes[environ["PATH_INFO"]](environ, start_response)
