"""gunicorn's own example of a custom application, started with `python embedding.py`."""

import multiprocessing
import os

if os.environ.get("ONE_WORD"):
    from ferricorn.app.base import BaseApplication
else:
    from gunicorn.app.base import BaseApplication


def number_of_workers():
    return (multiprocessing.cpu_count() * 2) + 1


def handler_app(environ, start_response):
    body = f"works in {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return iter([body])


class StandaloneApplication(BaseApplication):
    def __init__(self, app, options=None):
        self.options = options or {}
        self.application = app
        super().__init__()

    def load_config(self):
        config = {key: value for key, value in self.options.items() if key in self.cfg.settings and value is not None}
        for key, value in config.items():
            self.cfg.set(key.lower(), value)
        self.cfg.set("post_worker_init", announce)

    def load(self):
        return self.application


def announce(worker):
    worker.log.info("worker of %s with %s threads", type(worker.app).__name__, worker.cfg.threads)


if __name__ == "__main__":
    options = {"bind": "127.0.0.1:0", "workers": os.environ.get("WORKERS", number_of_workers()), "threads": "2"}
    StandaloneApplication(handler_app, {**options, "unknown": 1, "timeout": None}).run()
