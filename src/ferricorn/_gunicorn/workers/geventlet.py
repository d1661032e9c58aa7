"""`gunicorn.workers.geventlet`, which gunicorn had until its version 26."""

from __future__ import annotations

from ferricorn._gunicorn.workers.base import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class EventletWorker(Worker):
    """The worker whose requests are greenlets of eventlet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections = self.cfg.worker_connections

    def patch(self) -> None:
        """Called in the worker before the `post_fork` hook."""
        import eventlet

        eventlet.monkey_patch()

    def load_wsgi(self) -> None:
        from ferricorn._eventlet import handled

        super().load_wsgi()
        self.wsgi = handled(self.wsgi)
