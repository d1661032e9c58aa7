"""`gunicorn.workers.ggevent`."""

from __future__ import annotations

from ferricorn._gunicorn.workers.base import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class GeventWorker(Worker):
    """The worker whose requests are greenlets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections = self.cfg.worker_connections

    def patch(self) -> None:
        """Called in the worker before the `post_fork` hook."""
        from gevent import monkey

        monkey.patch_all()


class GeventPyWSGIWorker(GeventWorker):
    """The same; the server in front is ours in both."""


class GeventWebSocketWorker(GeventPyWSGIWorker):
    """The class of gevent-websocket's by this name."""

    def load_wsgi(self) -> None:
        from ferricorn._gevent_websocket import upgrading

        super().load_wsgi()
        self.wsgi = upgrading(self.wsgi)
