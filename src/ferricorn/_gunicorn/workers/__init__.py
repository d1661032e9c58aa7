"""`gunicorn.workers`. The names are for references and type annotations: ferricorn has one worker, in Rust."""

SUPPORTED_WORKERS = {
    "sync": "gunicorn.workers.sync.SyncWorker",
    "gthread": "gunicorn.workers.gthread.ThreadWorker",
}
