"""prometheus_client in multiprocess mode, as its documentation shows for gunicorn."""

import multiprocessing

from prometheus_client import multiprocess

workers = max(2, min(3, multiprocessing.cpu_count()))
threads = 2


def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
    server.log.info("marked %s dead", worker.pid)
