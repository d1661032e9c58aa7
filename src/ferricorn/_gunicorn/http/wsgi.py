"""`gunicorn.http.wsgi`: the `resp` that `post_request` and loggers are given."""

from __future__ import annotations

from ferricorn._gunicorn import SERVER, SERVER_SOFTWARE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ferricorn._gunicorn.config import Config
    from ferricorn._gunicorn.http.message import Request


__all__ = ["SERVER", "SERVER_SOFTWARE", "Response"]


class Response:
    """What was answered. `headers` are the application's; what the server adds is not among them."""

    def __init__(self, req: Request, sock: Any, cfg: Config) -> None:
        self.req = req
        self.sock = sock
        self.cfg = cfg
        self.version = SERVER
        self.status: str | None = None
        self.status_code: int | None = None
        self.chunked = False
        self.must_close = False
        self.upgrade = False
        self.headers: list[tuple[str, str]] = []
        self.headers_sent = False
        # The Content-Length, if the application set one, and the bytes of the body that were sent.
        self.response_length: int | None = None
        self.sent = 0

    def force_close(self) -> None:
        self.must_close = True

    def should_close(self) -> bool:
        return self.must_close or self.req.should_close()
