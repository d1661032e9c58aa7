"""A Django project: its environment, its hooks, its process name."""

import os

import gunicorn.app.base  # noqa: F401  (seen in the wild, to patch it later)

wsgi_app = "django_site.wsgi:application"
proc_name = "shop"
raw_env = ["DJANGO_SETTINGS_MODULE=django_site.settings", "SHOP_NAME=corner shop"]
pythonpath = os.path.dirname(os.path.abspath(__file__))
preload_app = os.environ.get("PRELOAD") == "1"
capture = []


def on_starting(server):
    server.log.info("starting %s with %s workers", server.proc_name, server.num_workers)


def when_ready(server):
    server.log.info("Server is ready. Spawning workers")


def pre_fork(server, worker):
    pass


def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s) for %s", worker.pid, os.environ["SHOP_NAME"])


def post_worker_init(worker):
    from django.db import connection

    connection.close()
    worker.log.info("worker %s has %s", worker.pid, type(worker.wsgi).__name__)


def worker_int(worker):
    worker.log.info("worker received INT or QUIT signal")


def pre_exec(server):
    server.log.info("Forked child, re-executing.")
