"""/large is 64 MiB from memory, everything else is the hello of hello.py."""

from hello import app as hello

LARGE = b"x" * (64 * 1024 * 1024)


def app(environ, start_response):
    if environ["PATH_INFO"] != "/large":
        return hello(environ, start_response)
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(LARGE)))])
    return [LARGE]
