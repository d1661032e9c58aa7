"""Logs as JSON for a log collector, by a subclass of gunicorn's logger; the Server header is hidden the old way."""

import json
import logging

import gunicorn
from gunicorn.glogging import Logger

gunicorn.SERVER = "shop"


class JsonFormatter(logging.Formatter):
    def format(self, record):
        entry = {"time": self.formatTime(record), "level": record.levelname, "message": record.getMessage()}
        if isinstance(record.args, dict):
            entry.update(record.args["fields"])
        if record.exc_info:
            entry["stack"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class JsonLogger(Logger):
    def setup(self, cfg):
        super().setup(cfg)
        for log, stream in ((self.error_log, "stderr"), (self.access_log, "stdout")):
            self._set_handler(log, "-", JsonFormatter(), getattr(__import__("sys"), stream))

    def access(self, resp, req, environ, request_time):
        atoms = self.atoms(resp, req, environ, request_time)
        fields = {"method": req.method, "path": req.path, "status": resp.status_code, "agent": atoms["a"]}
        self.access_log.info("access", {"fields": fields})


logger_class = JsonLogger
accesslog = "-"
