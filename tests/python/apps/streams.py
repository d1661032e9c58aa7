"""An application for connections with several requests at a time."""

import gate


def application(environ, start_response):
    path = environ["PATH_INFO"]
    name = path.strip("/").split("/")[0]
    return globals()[f"answer_{name or 'hello'}"](environ, start_response, path)


def _whole(start_response, body, *fields):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *fields])
    return [body]


def answer_hello(environ, start_response, path):
    return _whole(start_response, b"hello")


def answer_environ(environ, start_response, path):
    kept = {key: value for key, value in environ.items() if isinstance(value, str)}
    lines = "\n".join(f"{key}={value!r}" for key, value in sorted(kept.items()))
    return _whole(start_response, lines.encode("latin-1"), ("X-Name", "caf\xe9"))


def answer_keys(environ, start_response, path):
    """What HTTP/2 alone has."""
    kept = {key.removeprefix("gunicorn.http2."): value for key, value in environ.items()}
    kept = {key: kept.get(key) for key in ("HTTP_VERSION", "priority_depends_on", "priority_weight")}
    return _whole(start_response, "\n".join(f"{key}={value!r}" for key, value in kept.items()).encode())


def answer_echo(environ, start_response, path):
    return _whole(start_response, environ["wsgi.input"].read())


def answer_gate(environ, start_response, path):
    """Waits; `/gate/NAME`."""
    name = path.split("/")[2]
    gate.wait(name)
    is_gone = environ["ferricorn.client_disconnected"]() if "ferricorn.client_disconnected" in environ else None
    gate.note("gone", f"{name} {is_gone}")
    return _whole(start_response, b"gated")


def answer_begun(environ, start_response, path):
    """A part of the body, then a wait, then more; `/begun/NAME`."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"x" * 1000
    gate.wait(path.split("/")[2])
    for _ in range(100):
        yield b"x" * 1000


def answer_endless(environ, start_response, path):
    start_response("200 OK", [("Content-Type", "text/plain")])
    while True:
        yield b"x" * 10_000


def answer_reads(environ, start_response, path):
    """The body as it arrives; an answer whatever comes of it."""
    gate.reach("reads")
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        gate.note("read", error)
    return _whole(start_response, b"read")


def answer_note(environ, start_response, path):
    gate.note("ran", path)
    return _whole(start_response, b"noted")


def answer_large(environ, start_response, path):
    return _whole(start_response, b"x" * (1 << 20))


def answer_items(environ, start_response, path):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([b"y" * 1000] * 1000)


def answer_hints(environ, start_response, path):
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    return _whole(start_response, b"hinted")


def answer_trailers(environ, start_response, path):
    """`/trailers/HOW`: whole, streamed, late (when the body is on its way), empty, twice, pseudo."""
    send, how = environ["gunicorn.http2.send_trailers"], path.split("/")[2]
    fields = [("X-Sum", "caf\xe9"), ("X-Sum", "2")]
    if how == "twice":
        send([("X-First", "1")])
    if how == "pseudo":
        try:
            send([(":status", "200")])
        except ValueError as error:
            return _whole(start_response, str(error).encode())
    if how != "late":
        send(fields)
    if how == "empty":
        return _whole(start_response, b"")
    if how in ("streamed", "late"):
        return _streamed(start_response, send, how == "late", fields)
    return _whole(start_response, b"summed")


def _streamed(start_response, send, is_late, fields):
    start_response("200 OK", [])
    yield b"sum"
    if is_late:
        send(fields)
    yield b"med"


def answer_fail(environ, start_response, path):
    raise RuntimeError("secret")


def answer_late(environ, start_response, path):
    start_response("200 OK", [])
    yield b"part"
    raise RuntimeError("late")


def answer_short(environ, start_response, path):
    start_response("200 OK", [("Content-Length", "100")])
    return [b"short"]


def answer_nothing(environ, start_response, path):
    start_response("204 No Content", [("Content-Length", "3")])
    return []
