"""Bodies of every size and way: /10k, /1m, /stream; a POST is read and counted."""

SMALL, LARGE, PIECE = b"x" * 10_240, b"x" * (1024 * 1024), b"x" * 16_384
BINARY = ("Content-Type", "application/octet-stream")


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if environ["REQUEST_METHOD"] == "POST":
        body = b"%d" % len(environ["wsgi.input"].read())
    elif path == "/stream":
        start_response("200 OK", [BINARY])
        return (PIECE for _ in range(64))
    else:
        body = {"/10k": SMALL, "/1m": LARGE}.get(path, b"ok")
    start_response("200 OK", [BINARY, ("Content-Length", str(len(body)))])
    return [body]
