"""`logconfig_dict` with handlers of the project's own, and the command line's switches beside it."""

import os

worker_class = "gthread"
threads = int(os.environ.get("THREADS", "4"))
timeout = 120
keepalive = 5
max_requests = 1000
max_requests_jitter = 50

logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)-7s %(name)s %(message)s", "datefmt": "%Y-%m-%dT%H:%M:%S%z"},
        "bare": {"format": "%(message)s"},
    },
    "handlers": {
        "out": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"},
        "access": {"class": "logging.FileHandler", "formatter": "bare", "filename": os.environ["ACCESS_LOG"]},
    },
    "root": {"level": "INFO", "handlers": ["out"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["out"], "propagate": False},
        "gunicorn.access": {"level": "INFO", "handlers": ["access"], "propagate": False},
        "shop": {"level": "DEBUG", "handlers": ["out"], "propagate": False},
    },
}
