import os

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

REQUESTS = Counter("requests", "Requests so far", ["path"])
LIVE = Gauge("live", "Alive workers", multiprocess_mode="livesum")
LIVE.set(1)


def application(environ, start_response):
    REQUESTS.labels(environ["PATH_INFO"]).inc()
    body = str(os.getpid()).encode()
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
