"""What the server (`src/python/hooks/objects.rs`) makes its Python objects with."""

from ferricorn._gunicorn.app.wsgiapp import WSGIApplication
from ferricorn._gunicorn.arbiter import Arbiter
from ferricorn._gunicorn.config import Config
from ferricorn._gunicorn.sock import Listener


def config(values):
    return Config.resolved(values)


def logger(cfg, is_built_in):
    if is_built_in:
        from ferricorn._logger import BuiltIn

        return BuiltIn(cfg)
    return cfg.logger_class(cfg)


def application(cfg, uri):
    """The `app` of arbiter and worker, when the command line named it."""
    app = WSGIApplication.__new__(WSGIApplication)
    app.usage = app.prog = app.logger = app.callable = None
    app.cfg, app.app_uri = cfg, uri
    return app


def arbiter(app, cfg, log):
    made = Arbiter(app)
    made.cfg, made.log = cfg, log
    return made


def listeners(pairs):
    """`(descriptor, name)` of each."""
    return [Listener(descriptor, name) for descriptor, name in pairs]


def worker(arbiter, age):
    """The worker numbered `age`, not forked yet."""
    kind = arbiter.cfg.worker_class
    timeout = arbiter.timeout / 2
    return kind(age, arbiter.pid, arbiter.LISTENERS, arbiter.app, timeout, arbiter.cfg, arbiter.log)
