"""Answers that the access log has something to tell of."""


def application(environ, start_response):
    """Names a user in the environ, as authentication middleware does; echoes the request's name."""
    environ["REMOTE_USER"] = "grace"
    environ["app.number"] = 7
    name = environ.get("ferricorn.request_id", "").encode()
    kind = environ["PATH_INFO"].strip("/")
    fields = [("X-Out", "one"), ("Content-Type", "text/plain")]
    if kind == "fails":
        raise RuntimeError("no answer")
    if kind == "missing":
        start_response("404 Not Found", fields)
        return [b"missing"]
    start_response("200 OK", fields)
    if kind == "streams":
        return iter([b"first ", b"second"])
    if kind == "reads":
        return [environ["wsgi.input"].read()]
    return [name or b"unnamed"]
