"""What the server (`src/python/hooks/objects.rs`) makes its Python objects with."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping

from ferricorn._gunicorn.app.base import BaseApplication
from ferricorn._gunicorn.app.wsgiapp import WSGIApplication
from ferricorn._gunicorn.arbiter import Arbiter
from ferricorn._gunicorn.config import Config
from ferricorn._gunicorn.http.message import Request
from ferricorn._gunicorn.http.wsgi import Response
from ferricorn._gunicorn.sock import Listener
from ferricorn._gunicorn.util import unquote_to_wsgi_str
from ferricorn._gunicorn.workers.base import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# Method, URI, path, query, scheme and headers.
Seen = tuple[str, str, str, str, str, list[tuple[str, str]]]


def config(values: Mapping[str, Any]) -> Config:
    return Config.resolved(values)


def logger(cfg: Config, is_built_in: bool) -> Any:
    if is_built_in:
        from ferricorn._logger import BuiltIn

        return BuiltIn(cfg)
    made = cfg.logger_class(cfg)
    made.close_on_exec()
    return made


def write_errors(log: Any, text: str) -> None:
    """`wsgi.errors` goes where the error log goes."""
    handlers = getattr(log, "error_log", logging.getLogger("gunicorn.error")).handlers
    streams = [stream for one in handlers if (stream := getattr(one, "stream", None))]
    for stream in streams or [sys.stderr]:
        stream.write(text)
        stream.flush()


def access(
    log: Any,
    cfg: Config,
    line: tuple[str, str, str, str, tuple[int, int]],
    peer: str,
    headers: list[tuple[str, str]],
    status: int,
    sent: int,
    micros: int,
) -> None:
    """A line for a request that was answered without the application."""
    import datetime
    import http

    method, uri, path, query, version = line
    request = Request(cfg, (peer, 0) if peer else "", line, headers, "http", None)
    response = Response(request, None, cfg)
    response.status_code, response.sent = status, sent
    phrases = {one.value: one.phrase for one in http.HTTPStatus}
    response.status = f"{status} {phrases.get(status, 'Unknown')}"
    environ = {
        "REQUEST_METHOD": method,
        "RAW_URI": uri,
        "PATH_INFO": unquote_to_wsgi_str(path),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": f"HTTP/{version[0]}.{version[1]}",
        "REMOTE_ADDR": peer,
    }
    for name, value in headers:
        environ.setdefault(_variable(name), value)
    log.access(response, request, environ, datetime.timedelta(microseconds=micros))


def application(cfg: Config, uri: str | None) -> WSGIApplication:
    """The `app` of arbiter and worker, when the command line named it."""
    app = WSGIApplication.__new__(WSGIApplication)
    app.usage = app.prog = app.logger = app.callable = None
    app.cfg, app.app_uri = cfg, uri
    return app


def arbiter(app: BaseApplication, cfg: Config, log: Any) -> Arbiter:
    made = Arbiter(app)
    made.cfg, made.log = cfg, log
    made.__dict__["_is_made"] = True
    return made


def listeners(pairs: Iterable[tuple[int, str]]) -> list[Listener]:
    """`(descriptor, name)` of each."""
    return [Listener(descriptor, name) for descriptor, name in pairs]


def worker(arbiter: Arbiter, age: int) -> Worker:
    """The worker numbered `age`, not forked yet."""
    kind = arbiter.cfg.worker_class
    timeout = arbiter.timeout / 2
    made = kind(age, arbiter.pid, arbiter.LISTENERS, arbiter.app, timeout, arbiter.cfg, arbiter.log)
    made.__dict__["_is_made"] = True
    return made


def seen(request: Request) -> Seen:
    """What `pre_request` may change, before it does."""
    return (request.method, request.uri, request.path, request.query, request.scheme, list(request.headers))


def rewrite(environ: dict[str, Any], request: Request, before: Seen) -> None:
    """Brings the environ in line with what `pre_request` has changed."""
    method, uri, path, query, scheme, headers = before
    for key, now, then in (
        ("REQUEST_METHOD", request.method, method),
        ("RAW_URI", request.uri, uri),
        ("QUERY_STRING", request.query, query),
        ("wsgi.url_scheme", request.scheme, scheme),
    ):
        if now != then:
            environ[key] = now
    if request.path != path:
        environ["PATH_INFO"] = unquote_to_wsgi_str(request.path.removeprefix(environ["SCRIPT_NAME"]))
    if request.headers != headers:
        for name, _ in headers:
            environ.pop(_variable(name), None)
        for name, value in request.headers:
            key = _variable(name)
            environ[key] = f"{environ[key]},{value}" if key in environ else value


def _variable(name: str) -> str:
    name = name.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
