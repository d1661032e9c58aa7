"""`gunicorn.instrument.statsd`: a logger that counts.

The server sends these metrics by itself when `statsd_host` is set; this class is for those who name or extend it."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Mapping

from ferricorn._gunicorn import util
from ferricorn._gunicorn.glogging import Logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any

    from ferricorn._gunicorn.config import Config


METRIC_VAR = "metric"
VALUE_VAR = "value"
MTYPE_VAR = "mtype"
GAUGE_TYPE = "gauge"
COUNTER_TYPE = "counter"
HISTOGRAM_TYPE = "histogram"
TIMER_TYPE = "timer"


class Statsd(Logger):
    """Sends a datagram per metric; a log record with `extra` of metric, value and mtype is one too."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.prefix = re.sub(r"^(.*[^.])\.*$", r"\1.", cfg.statsd_prefix)
        self.dogstatsd_tags = cfg.dogstatsd_tags
        self.sock = self._connect(cfg.statsd_host)

    @staticmethod
    def _connect(address: tuple[str, int] | str | None) -> socket.socket | None:
        if not address:
            return None
        if isinstance(address, str):
            family = socket.AF_UNIX
        else:
            family = socket.AF_INET6 if util.is_ipv6(address[0]) else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.connect(address)
        except OSError:
            return None
        return sock

    def critical(self, msg: str, *args: Any, **kwargs: Any) -> None:
        super().critical(msg, *args, **kwargs)
        self.increment("gunicorn.log.critical", 1)

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        super().error(msg, *args, **kwargs)
        self.increment("gunicorn.log.error", 1)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        super().warning(msg, *args, **kwargs)
        self.increment("gunicorn.log.warning", 1)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        super().exception(msg, *args, **kwargs)
        self.increment("gunicorn.log.exception", 1)

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.log(logging.INFO, msg, *args, **kwargs)

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.log(logging.DEBUG, msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: str, *args: Any, **kwargs: Any) -> None:
        extra = kwargs.get("extra") or {}
        metric, value = extra.get(METRIC_VAR), extra.get(VALUE_VAR)
        kinds: dict[Any, Any] = {
            GAUGE_TYPE: self.gauge,
            COUNTER_TYPE: self.increment,
            HISTOGRAM_TYPE: self.histogram,
            TIMER_TYPE: self.timer,
        }
        send = kinds.get(extra.get(MTYPE_VAR))
        if metric and value is not None and send:
            send(metric, value)
        # A record without text is only a metric.
        if msg:
            super().log(lvl, msg, *args, **kwargs)

    def access(self, resp: Any, req: Any, environ: Mapping[str, Any], request_time: timedelta) -> None:
        super().access(resp, req, environ, request_time)
        status = resp.status
        if isinstance(status, bytes):
            status = status.decode()
        if isinstance(status, str):
            status = int(status.split(None, 1)[0])
        self.timer("gunicorn.request.duration", request_time.seconds * 1000 + request_time.microseconds / 1000)
        self.increment("gunicorn.requests", 1)
        self.increment(f"gunicorn.request.status.{status}", 1)

    def gauge(self, name: str, value: float) -> None:
        self._send(f"{name}:{value}|g")

    def increment(self, name: str, value: float, sampling_rate: float = 1.0) -> None:
        self._send(f"{name}:{value}|c|@{sampling_rate}")

    def decrement(self, name: str, value: float, sampling_rate: float = 1.0) -> None:
        self._send(f"{name}:-{value}|c|@{sampling_rate}")

    def timer(self, name: str, value: float) -> None:
        self._send(f"{name}:{value}|ms")

    def histogram(self, name: str, value: float) -> None:
        self._send(f"{name}:{value}|h")

    def _send(self, metric: str) -> None:
        self._sock_send(f"{self.prefix}{metric}")

    def _sock_send(self, message: str | bytes) -> None:
        if self.sock is None:
            return
        datagram = message.encode("ascii", "replace") if isinstance(message, str) else message
        if self.dogstatsd_tags:
            datagram += b"|#" + self.dogstatsd_tags.encode("ascii", "replace")
        try:
            self.sock.send(datagram)
        except OSError:
            Logger.warning(self, "Error sending message to statsd", exc_info=True)
