"""Monitoring agents as they are installed: what they have seen of the last requests arrives, however a worker leaves.

They need an environment of their own, which `make test-agents` makes; elsewhere these tests are skipped.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import signal
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness import COMMAND, wait_until

BIN = Path(sys.executable).parent
REQUESTS = 5
APPLICATION = """
import os
import flask
{before}
app = flask.Flask(__name__)
{after}
@app.get("/")
def hello():
    return str(os.getpid())
"""


class Collector:
    """Stands in for an agent's backend."""

    def __init__(self, audit_log: Path) -> None:
        # New Relic's agent speaks TLS only. In its developer mode it sends to itself, and logs what.
        self.audit_log = audit_log
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while length := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(length)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def answer(self) -> None:
                unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress}
                encoding = self.headers.get("Content-Encoding", "")
                body = unpack.get(encoding, bytes)(self.body())
                fields = {name.lower(): value for name, value in self.headers.items()}
                collector.received.append((self.path, fields, body))
                told = json.dumps({"endpoints": ["/v0.4/traces"], "version": "7.50"} if self.path == "/info" else {})
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told.encode())

            do_GET = do_POST = do_PUT = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def requests_seen(self) -> int:
        """By the agents: traces, server spans, transactions."""
        seen = 0
        for path, fields, body in list(self.received):
            if "x-datadog-trace-count" in fields:
                seen += int(fields["x-datadog-trace-count"])
            elif path == "/v1/traces":
                seen += server_spans(body)
            elif path.endswith("/envelope/"):
                # A line each for the envelope, then for an item's head and its payload.
                heads = [json.loads(line) for line in body.splitlines()[1::2]]
                seen += sum(head.get("type") == "transaction" for head in heads)
            elif path.startswith("/intake/v2/events"):
                seen += sum(line.startswith(b'{"transaction"') for line in body.splitlines())
        if self.audit_log.exists():
            sent = re.findall(
                r"'method': 'analytic_event_data'.*?'events_seen': (\d+)", self.audit_log.read_text(), re.DOTALL
            )
            seen += sum(map(int, sent))
        return seen

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def server_spans(body: bytes) -> int:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    message = ExportTraceServiceRequest()
    message.ParseFromString(body)
    spans = [span for of in message.resource_spans for scope in of.scope_spans for span in scope.spans]
    return sum(span.kind == Span.SPAN_KIND_SERVER for span in spans)


class Agent:
    def __init__(self, module, wrapper=None, before="", after="", environment=None):
        self.module, self.wrapper, self.before, self.after = module, wrapper, before, after
        self.environment = environment or {}

    def command(self) -> list[str]:
        wrapper = self.wrapper.split() if self.wrapper else []
        return [*(str(BIN / word) for word in wrapper[:1]), *wrapper[1:], *COMMAND]


NEWRELIC = """\
[newrelic]
license_key = 0123456789abcdef0123456789abcdef01234567
app_name = site
developer_mode = true
audit_log_file = {audit_log}
"""

# Each keeps what it has for longer than a test lasts, so that only an orderly end delivers it.
AGENTS = {
    "ddtrace": Agent(
        "ddtrace",
        "ddtrace-run",
        environment={
            "DD_TRACE_AGENT_URL": "http://{address}",
            "DD_TRACE_WRITER_INTERVAL_SECONDS": "60",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        },
    ),
    "opentelemetry": Agent(
        "opentelemetry.distro",
        "opentelemetry-instrument",
        environment={
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://{address}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "60000",
        },
    ),
    "sentry": Agent(
        "sentry_sdk",
        before="import sentry_sdk\nsentry_sdk.init(os.environ['DSN'], traces_sample_rate=1.0)",
        environment={"DSN": "http://key@{address}/1"},
    ),
    "newrelic": Agent(
        "newrelic",
        "newrelic-admin run-program",
        environment={"NEW_RELIC_CONFIG_FILE": "newrelic.ini", "NEW_RELIC_STARTUP_TIMEOUT": "10"},
    ),
    "elastic": Agent(
        "elasticapm",
        before="from elasticapm.contrib.flask import ElasticAPM",
        after="ElasticAPM(app)",
        environment={
            "ELASTIC_APM_SERVER_URL": "http://{address}",
            "ELASTIC_APM_API_REQUEST_TIME": "60s",
            "ELASTIC_APM_METRICS_INTERVAL": "0ms",
            "ELASTIC_APM_CENTRAL_CONFIG": "false",
            "ELASTIC_APM_CLOUD_PROVIDER": "none",
        },
    ),
}


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(params=sorted(AGENTS))
def agent(request):
    agent = AGENTS[request.param]
    if not is_installed(agent.module):
        pytest.skip("`make test-agents` installs it")
    return agent


@pytest.fixture
def watched(server, tmp_path, agent):
    collector = Collector(tmp_path / "audit.log")
    (tmp_path / "newrelic.ini").write_text(NEWRELIC.format(audit_log=collector.audit_log))

    def start(*arguments):
        (tmp_path / "site_app.py").write_text(APPLICATION.format(before=agent.before, after=agent.after))
        environment = {name: value.format(address=collector.address) for name, value in agent.environment.items()}
        line = ("site_app:app", "--threads", "2", "--graceful-timeout", "20", *arguments)
        one = server(*line, command=agent.command(), cwd=tmp_path, env=environment)
        for _ in range(REQUESTS):
            assert one.get("/").status == 200
        return one

    yield start, collector
    collector.stop()


PRELOAD = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])


@PRELOAD
@pytest.mark.parametrize("way", ["TERM", "INT", "HUP", "max_requests"])
def test_the_last_traces_arrive(watched, way, preload):
    start, collector = watched
    one = start(*preload, *(("--max-requests", str(REQUESTS)) if way == "max_requests" else ()))
    if way == "HUP":
        one.send_signal(signal.SIGHUP)
    elif way != "max_requests":
        one.send_signal(signal.Signals[f"SIG{way}"])
        assert one.wait_exit(30) == 0
    wait_until(lambda: collector.requests_seen() >= REQUESTS, "all requests have been seen", 30)
    assert collector.requests_seen() == REQUESTS
    assert "SIGKILL" not in one.log.text and "Traceback" not in one.log.text
