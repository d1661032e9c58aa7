"""Loggers for `logger_class`, as people write them. Stands in the way of nothing when gunicorn is not installed."""

import json
import logging
import threading

from gunicorn import glogging

import gate


class JsonFormatter(logging.Formatter):
    def format(self, record):
        entry = {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            entry["exception"] = record.exc_info[0].__name__
        return json.dumps(entry)


class JsonLogger(glogging.Logger):
    """Another formatter for the error log, and an access log of its own making."""

    def setup(self, cfg):
        super().setup(cfg)
        gate.note("setup", cfg.loglevel)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonFormatter())

    def access(self, resp, req, environ, request_time):
        atoms = self.atoms(resp, req, environ, request_time)
        entry = {
            "access": atoms["r"],
            "status": int(atoms["s"]),
            "sent": atoms["B"],
            "agent": atoms["a"],
            "type": atoms.get("{content-type}o"),
            "host": dict(req.headers).get("HOST") is not None,
            "micros": atoms["D"],
            "thread": threading.current_thread() is threading.main_thread(),
        }
        self.access_log.info("%s", json.dumps(entry))

    def now(self):
        return "now"

    def reopen_files(self):
        gate.note("reopened", "yes")
        super().reopen_files()


class NoHealthChecks(glogging.Logger):
    def access(self, resp, req, environ, request_time):
        if req.path != "/health":
            super().access(resp, req, environ, request_time)

    def now(self):
        return "[now]"


class Broken(glogging.Logger):
    def access(self, resp, req, environ, request_time):
        raise ValueError("access is broken")


class AtomsLogger(glogging.Logger):
    def atoms(self, resp, req, environ, request_time):
        atoms = super().atoms(resp, req, environ, request_time)
        atoms["own"] = f"{resp.status} {type(resp.headers).__name__} {req.method}"
        return atoms


class Unsettable(glogging.Logger):
    def setup(self, cfg):
        raise RuntimeError("cannot be set up")
