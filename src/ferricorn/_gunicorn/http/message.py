"""`gunicorn.http.message`: the `req` that request hooks and loggers are given."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ferricorn._gunicorn.config import Config


class Request:
    """A request's head, and its body as the application will read it.

    Header names are upper-case. What `pre_request` changes here, the environ shows: headers (the list may be changed or
    replaced), `method`, `uri`, `path`, `query` and `scheme`.
    """

    def __init__(
        self,
        cfg: Config,
        peer_addr: tuple[str, int | None] | str,
        head: tuple[str, str, str, str, tuple[int, int]],
        headers: list[tuple[str, str]],
        scheme: str,
        body: Any,
        proxy_protocol_info: dict[str, Any] | None = None,
    ) -> None:
        self.cfg = cfg
        self.peer_addr = peer_addr
        self.remote_addr = peer_addr
        self.method, self.uri, self.path, self.query, self.version = head
        self.fragment = ""
        self.headers = headers
        self.trailers: list[tuple[str, str]] = []
        self.scheme = scheme
        self.body = body
        self.proxy_protocol_info = proxy_protocol_info
        self.must_close = False
        self.req_number = 1

    def force_close(self) -> None:
        self.must_close = True

    def should_close(self) -> bool:
        if self.must_close:
            return True
        for name, value in self.headers:
            if name == "CONNECTION" and value.lower().strip() in ("close", "keep-alive"):
                return value.lower().strip() == "close"
        return self.version <= (1, 0)
