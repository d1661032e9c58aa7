"""A configuration file to start from. ferricorn reads it as it is: same names, same meaning, same hooks.

Start with `ferricorn app:app`; a file of this name in the start directory is found by itself, any other with `-c`.
Settings that only ferricorn has belong in `ferricorn.conf.py` or behind the check at the end, so that the file
still works for both servers.
"""

import os

# Where to listen. Several addresses make a list: ["0.0.0.0:8000", "unix:/run/app.sock"].
bind = os.environ.get("BIND", "127.0.0.1:8000")

# Processes and threads. A worker process per core is plenty to begin with; threads cover waiting for databases.
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 4

# A worker whose heartbeat stops for so many seconds is replaced; no limit for a single request.
timeout = 30
# How long running requests may take to finish when the server stops.
graceful_timeout = 30

# Replace a worker after so many requests, spread out so that they do not all leave at once.
max_requests = 10_000
max_requests_jitter = 1_000

# "-" is standard output (access) and standard error (error).
accesslog = "-"
errorlog = "-"
loglevel = "info"

# Whose X-Forwarded-Proto to believe.
forwarded_allow_ips = "127.0.0.1,::1"


# Hooks have gunicorn's names and arguments.
def when_ready(server):
    server.log.info("ready with %s workers", server.num_workers)


def post_fork(server, worker):
    """In the new worker, before the application is imported: a place to seed, connect, instrument."""
    worker.log.debug("worker %s of age %s", worker.pid, worker.age)
