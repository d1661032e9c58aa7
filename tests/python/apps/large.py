"""Answers far larger than any socket buffer."""

BODY = b"x" * (16 * 1024 * 1024)


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/large":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
        return [BODY]
    if path == "/large_stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (BODY[:65536] for _ in range(256))
    if path == "/upload":
        body = str(len(environ["wsgi.input"].read())).encode()
    else:
        body = b"fast"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
