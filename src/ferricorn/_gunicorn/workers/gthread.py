"""`gunicorn.workers.gthread`."""

from ferricorn._gunicorn.workers.base import Worker


class ThreadWorker(Worker):
    """The worker with a pool of threads."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.worker_connections = self.cfg.worker_connections
        self.max_keepalived = self.cfg.worker_connections - self.cfg.threads
        self.nr_conns = 0
        self.tpool = None

    def handle_request(self, req, conn):
        raise NotImplementedError("requests are handled by the server itself")
