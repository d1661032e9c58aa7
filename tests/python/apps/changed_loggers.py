"""An application that changes the server's loggers in the way that CHANGE names, at import or in a view."""

import logging
import logging.config
import os
import time
from pathlib import Path

import gate

ACCESS = logging.getLogger("gunicorn.access")
ERROR = logging.getLogger("gunicorn.error")


class Note(logging.Handler):
    def emit(self, record):
        gate.note("handled", f"{record.name} {record.levelname} {record.getMessage()}")


class NoHealth(logging.Filter):
    """The usual way to silence health checks."""

    def filter(self, record):
        return "/health" not in record.getMessage()


class ByAtom(logging.Filter):
    def filter(self, record):
        return not (isinstance(record.args, dict) and record.args.get("U") == "/health")


def access_filter():
    ACCESS.addFilter(NoHealth())


def access_atom_filter():
    ACCESS.addFilter(ByAtom())


def access_function_filter():
    ACCESS.addFilter(lambda record: "/health" not in record.getMessage())


def access_handler():
    ACCESS.addHandler(Note())


def _see(record):
    if record.exc_info:
        _, error, trace = record.exc_info
        gate.note("handled", f"{record.name} {type(error).__name__} {trace is not None}")


def all_loggers():
    """As Sentry's agent does."""
    plain = logging.Logger.callHandlers

    def call_handlers(self, record):
        _see(record)
        plain(self, record)

    logging.Logger.callHandlers = call_handlers


def all_records():
    plain = logging.getLogRecordFactory()

    def make(*args, **kwargs):
        record = plain(*args, **kwargs)
        _see(record)
        return record

    logging.setLogRecordFactory(make)


def access_own_handler():
    ACCESS.handlers = [Note()]


def access_cleared():
    ACCESS.handlers.clear()


def access_handler_filter():
    ACCESS.handlers[0].addFilter(NoHealth())


def access_formatter():
    ACCESS.handlers[0].setFormatter(logging.Formatter("OWN %(message)s"))


def access_level():
    ACCESS.setLevel(logging.WARNING)


def access_disabled():
    ACCESS.disabled = True


def access_propagate():
    ACCESS.propagate = True
    logging.getLogger().addHandler(Note())


def access_dict_config():
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"no_health": {"()": NoHealth}},
            "handlers": {"note": {"class": f"{__name__}.Note", "filters": ["no_health"]}},
            "loggers": {"gunicorn.access": {"handlers": ["note"], "level": "INFO"}},
        }
    )


def existing_disabled():
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})


def all_disabled():
    logging.disable(logging.INFO)


class NoHealthLogger(logging.Logger):
    def handle(self, record):
        if "/health" not in record.getMessage():
            super().handle(record)


def access_class():
    ACCESS.__class__ = NoHealthLogger


def _patch(one, name):
    """Puts a function in front of a method, as agents do, that lets nothing through about /health."""
    plain = getattr(one, name)

    def patched(*args, **kwargs):
        text = " ".join(str(a.getMessage() if isinstance(a, logging.LogRecord) else a) for a in args)
        return None if "/health" in text else plain(*args, **kwargs)

    setattr(one, name, patched)


def access_info():
    _patch(ACCESS, "info")


def access__log():
    _patch(ACCESS, "_log")


def access_handle():
    _patch(ACCESS, "handle")


def access_call_handlers():
    _patch(ACCESS, "callHandlers")


def access_emit():
    _patch(ACCESS.handlers[0], "emit")


def access_handler_class():
    class Silent(type(ACCESS.handlers[0])):
        def emit(self, record):
            if "/health" not in record.getMessage():
                super().emit(record)

    ACCESS.handlers[0].__class__ = Silent


def patch_records(log):
    plain = log.makeRecord

    def make(*args, **kwargs):
        record = plain(*args, **kwargs)
        record.msg = f"OWN {record.msg}"
        return record

    log.makeRecord = make


def access_records():
    patch_records(ACCESS)


def access_factory():
    plain = logging.getLogRecordFactory()

    def make(*args, **kwargs):
        record = plain(*args, **kwargs)
        record.msg = f"OWN {record.msg}"
        return record

    logging.setLogRecordFactory(make)


def access_style():
    ACCESS.handlers[0].formatter._style = logging.PercentStyle("OWN %(message)s")


def access_everywhere():
    """In all loggers."""
    _patch(logging.Logger, "handle")


def error_class():
    class Own(logging.Logger):
        def handle(self, record):
            record.msg = f"OWN {record.msg}"
            super().handle(record)

    ERROR.__class__ = Own


def error_records():
    patch_records(ERROR)


def error_methods():
    def own(plain):
        return lambda message, *args, **kwargs: plain(f"OWN {message}", *args, **kwargs)

    ERROR.info, ERROR.error = own(ERROR.info), own(ERROR.error)


def error_level_names():
    logging.addLevelName(logging.ERROR, "ERROR] [OWN")


def error_times():
    logging.Formatter.converter = lambda *_: time.gmtime(0)


def error_format_time():
    logging.Formatter.formatTime = lambda *_: "[OWN TIME]"


def error_style():
    ERROR.handlers[0].formatter._style = logging.PercentStyle("[%(levelname)s] OWN %(message)s")


def error_filter():
    ERROR.addFilter(lambda record: "secret" not in record.getMessage())


def error_handler():
    ERROR.addHandler(Note())


def error_formatter():
    ERROR.handlers[0].setFormatter(logging.Formatter("OWN %(levelname)s %(message)s"))


def error_level():
    ERROR.setLevel(logging.CRITICAL)


def error_disabled():
    ERROR.disabled = True


def error_propagate():
    ERROR.propagate = True
    logging.getLogger().addHandler(Note())


change = globals()[os.environ["CHANGE"]]
if os.environ.get("WHEN", "import") == "import":
    change()


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/change":
        change()
    if path == "/fail":
        raise RuntimeError("secret")
    if path == "/path":
        path = str(Path(__file__))
    start_response("200 OK", [("Content-Length", str(len(path)))])
    return [path.encode()]
