"""`gunicorn.workers.gthread`."""

from __future__ import annotations

from ferricorn._gunicorn.workers.base import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class ThreadWorker(Worker):
    """The worker with a pool of threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections = self.cfg.worker_connections
        self.max_keepalived = self.cfg.worker_connections - self.cfg.threads
        self.nr_conns = 0
        self.tpool: Any = None

    def handle_request(self, req: Any, conn: Any) -> NoReturn:
        raise NotImplementedError("requests are handled by the server itself")
