"""`geventwebsocket.gunicorn.workers.GeventWebSocketWorker`: the application gets `environ["wsgi.websocket"]`.

The library's own handler does it, over the socket that a request for an upgrade may hijack. Any other request passes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def upgrading(application: Any) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """`application`, with requests for WebSockets upgraded."""
    from geventwebsocket.handler import WebSocketHandler

    class Server:
        """What the library's handlers share."""

        clients: dict[Any, Any] = {}

    server: Any = Server()
    server.application = application

    class Handler(WebSocketHandler):  # type: ignore[misc]
        """One request. It is not read from a socket, so the handler's construction is left out."""

        def __init__(self, environ: dict[str, Any], start_response: Any) -> None:
            self.environ = environ
            self.application = application
            self.server = server
            # Connections of a unix socket have no address.
            port = environ.get("REMOTE_PORT") or id(self)
            self.client_address = (environ.get("REMOTE_ADDR"), port)
            self.request_version = environ["SERVER_PROTOCOL"]
            self._start_response = start_response
            self._file: Any = None

        @property
        def socket(self) -> Any:
            """Asked for once the request is known to be good. It is hijacked by that."""
            return self.environ["gunicorn.socket"]

        @property
        def rfile(self) -> Any:
            if self._file is None:
                self._file = self.socket.makefile("rb")
            return self._file

        def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if not status.startswith("101"):
                return self._start_response(status, headers)
            lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "", ""]
            self.socket.sendall("\r\n".join(lines).encode("latin-1"))
            return None

        def close(self) -> None:
            if self._file is not None:
                self._file.close()
            self.socket.close()

    def websocket_application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # There is none when the request asks for no upgrade, or came by HTTP/2.
        if "gunicorn.socket" not in environ:
            return application(environ, start_response)
        handler = Handler(environ, start_response)
        refused = handler.upgrade_websocket()
        if refused is not None:
            return [line.encode() for line in refused]
        if not hasattr(handler, "websocket"):
            return application(environ, start_response)
        try:
            handler.run_websocket()
        finally:
            handler.close()
        # There is no response: the client was answered on its socket.
        raise StopIteration

    return websocket_application
