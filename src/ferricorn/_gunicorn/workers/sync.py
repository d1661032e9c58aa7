"""`gunicorn.workers.sync`."""

from ferricorn._gunicorn.workers.base import Worker


class SyncWorker(Worker):
    """The worker with one thread."""
