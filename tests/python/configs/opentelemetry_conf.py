"""OpenTelemetry's own example for gunicorn: providers are made in each worker, because their threads do not survive a
fork."""

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

bind = "127.0.0.1:0"
accesslog = "-"


def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)
    resource = Resource.create(attributes={"service.name": "shop", "worker": worker.pid})
    trace.set_tracer_provider(TracerProvider(resource=resource))
    processor = BatchSpanProcessor(ConsoleSpanExporter(), schedule_delay_millis=50)
    trace.get_tracer_provider().add_span_processor(processor)


def worker_exit(server, worker):
    trace.get_tracer_provider().shutdown()
