"""Writes a long line to `wsgi.errors` for every request."""


def app(environ, start_response):
    print(environ["PATH_INFO"], file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return []
