"""Monitoring agents as they are installed: what they have seen of the last requests arrives, however a worker leaves.

They need an environment of their own, which `make test-agents` makes; elsewhere these tests are skipped.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import signal
import socket
import sys
import threading
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness import COMMAND, GUNICORN, wait_until

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

@app.get("/fail")
def fail():
    raise RuntimeError("of the application")
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

    def names_seen(self) -> Counter:
        """What the agents call each request and its error, with its outcome."""
        seen: Counter = Counter()
        for path, fields, body in list(self.received):
            if "x-datadog-trace-count" in fields:
                seen.update(re.findall(rb"(?:GET|POST) /[a-z]*|flask\.[a-z_]+|wsgi\.[a-z_]+|[A-Z][a-z]+Error", body))
            elif path == "/v1/traces":
                seen.update((span.name, span.status.code, len(span.events)) for span in spans_of(body))
            elif path.endswith("/envelope/"):
                for item in map(json.loads, body.splitlines()[2::2]):
                    errors = item.get("exception", {}).get("values", [])
                    status = item.get("contexts", {}).get("trace", {}).get("status")
                    seen[item.get("transaction"), status, tuple(one["type"] for one in errors)] += 1
            elif path.startswith("/intake/v2/events"):
                for line in map(json.loads, body.splitlines()):
                    one, error = line.get("transaction", {}), line.get("error", {}).get("exception", {})
                    seen[one.get("name"), one.get("result"), error.get("type")] += not line.keys().isdisjoint(
                        ("transaction", "error")
                    )
        if self.audit_log.exists():
            text = self.audit_log.read_text()
            seen.update(dict.fromkeys(re.findall(r"'(WebTransaction/[^']*|Errors/[^']*)'", text), 1))
        return +seen

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def spans_of(body: bytes) -> list:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest()
    message.ParseFromString(body)
    return [span for of in message.resource_spans for scope in of.scope_spans for span in scope.spans]


def server_spans(body: bytes) -> int:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    return sum(span.kind == Span.SPAN_KIND_SERVER for span in spans_of(body))


class Agent:
    def __init__(self, module, wrapper=None, before="", after="", environment=None):
        self.module, self.wrapper, self.before, self.after = module, wrapper, before, after
        self.environment = environment or {}

    def command(self, server: list[str]) -> list[str]:
        wrapper = self.wrapper.split() if self.wrapper else []
        return [*(str(BIN / word) for word in wrapper[:1]), *wrapper[1:], *server]


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


def begin(server, agent, collector, folder, *arguments, command=COMMAND):
    (folder / "newrelic.ini").write_text(NEWRELIC.format(audit_log=collector.audit_log))
    (folder / "site_app.py").write_text(APPLICATION.format(before=agent.before, after=agent.after))
    environment = {name: value.format(address=collector.address) for name, value in agent.environment.items()}
    line = ("site_app:app", "--threads", "2", "--graceful-timeout", "20", *arguments)
    one = server(*line, command=agent.command(command), cwd=folder, env=environment)
    for _ in range(REQUESTS):
        assert one.get("/").status == 200
    return one


@pytest.fixture
def watched(server, tmp_path, agent):
    collector = Collector(tmp_path / "audit.log")
    yield lambda *arguments: begin(server, agent, collector, tmp_path, *arguments), collector
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


@PRELOAD
@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_agent_sees_what_it_sees_under_gunicorn(server, tmp_path, agent, preload, threads):
    seen = []
    for name, command in (("gunicorn", GUNICORN), ("ferricorn", COMMAND)):
        folder = tmp_path / name
        folder.mkdir()
        collector = Collector(folder / "audit.log")
        one = begin(server, agent, collector, folder, "--threads", threads, *preload, command=command)
        # Elastic's agent sends an error at once, and a stop may lose what comes meanwhile: under gunicorn too.
        failing = ("/missing", 404) if agent.module == "elasticapm" else ("/fail", 500)
        for path, status in (failing, ("/missing", 404), failing):
            assert one.get(path).status == status
        one.send_signal(signal.SIGTERM)
        assert one.wait_exit(30) == 0
        wait_until(lambda those=collector: those.requests_seen() >= REQUESTS + 3, f"all requests, {name}", 30)
        seen.append((collector.requests_seen(), collector.names_seen()))
        collector.stop()
    of_gunicorn, ours = seen
    assert len(of_gunicorn[1]) > 1, "names are found"
    assert ours == of_gunicorn


STARTED = """
import os
{start}
def app(environ, start_response):
    line = "marked"
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.parametrize("command", [GUNICORN, COMMAND], ids=["gunicorn", "ferricorn"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_memray_follows_a_worker_to_its_end(server, tmp_path, command, threads):
    """With `--follow-fork`, as its documentation has it for gunicorn: a file per process."""
    memray = pytest.importorskip("memray", reason="`make test-agents` installs it")
    (tmp_path / "hungry.py").write_text(
        "kept = []\n"
        "def app(environ, start_response):\n"
        "    kept.append(bytearray(8 << 20))\n"
        "    start_response('200 OK', [('Content-Length', '2')])\n"
        "    return [b'ok']\n"
    )
    wrapped = [str(BIN / "memray"), "run", "--follow-fork", "-q", "-o", str(tmp_path / "out.bin")]
    module = command[command.index("-m") :]
    one = server("hungry:app", "--threads", threads, command=[*wrapped, *module], cwd=tmp_path)
    for _ in range(3):
        assert one.get("/").status == 200
    worker = one.workers()[0]
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit(30) == 0
    (of_worker,) = tmp_path.glob(f"out.bin.{worker}")
    with memray.FileReader(of_worker) as reader:
        biggest = [
            one for one in reader.get_high_watermark_allocation_records(merge_threads=True) if one.size >= 8 << 20
        ]
        frames = [frame for one in biggest for frame in one.stack_trace()]
    assert sum(one.size for one in biggest) >= 3 * (8 << 20)
    assert any(name == "app" and file.endswith("hungry.py") for name, file, _ in frames), frames


class Debugger:
    """A client of the debug adapter protocol, for one breakpoint."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.stream = self.socket.makefile("rwb")
        self.number = 0

    def ask(self, command: str, **arguments: object) -> None:
        self.number += 1
        request = {"seq": self.number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(request).encode()
        self.stream.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.stream.flush()

    def wait(self, kind: str, name: str) -> dict:
        """The next event, or answer, of this name."""
        while True:
            length = 0
            while (line := self.stream.readline().strip()) or not length:
                if line.lower().startswith(b"content-length"):
                    length = int(line.split(b":")[1])
            message = json.loads(self.stream.read(length))
            if message["type"] == kind and message.get("event", message.get("command")) == name:
                return message

    def break_at(self, path: Path, line: int) -> None:
        self.ask("initialize", adapterID="test", pathFormat="path")
        self.wait("response", "initialize")
        self.ask("attach", justMyCode=False)
        self.wait("event", "initialized")
        self.ask("setBreakpoints", source={"path": str(path)}, breakpoints=[{"line": line}])
        assert self.wait("response", "setBreakpoints")["body"]["breakpoints"][0]["verified"]
        self.ask("configurationDone")
        self.wait("response", "configurationDone")


@pytest.mark.parametrize("command", [GUNICORN, COMMAND], ids=["gunicorn", "ferricorn"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_debugpy_stops_a_request_at_a_breakpoint(server, tmp_path, command, threads):
    pytest.importorskip("debugpy", reason="`make test-agents` installs it")
    source = tmp_path / "halted.py"
    start = "import debugpy\nport = debugpy.listen(('127.0.0.1', 0))[1]\nopen('port', 'w').write(str(port))"
    source.write_text(STARTED.format(start=start))
    one = server("halted:app", "--threads", threads, "--timeout", "60", command=command, cwd=tmp_path)
    assert one.get("/").status == 200
    debugger = Debugger(int((tmp_path / "port").read_text()))
    line = source.read_text().splitlines().index('    line = "marked"') + 1
    debugger.break_at(source, line)
    with one.connect() as client:
        client.send_request("GET", "/")
        thread = debugger.wait("event", "stopped")["body"]["threadId"]
        debugger.ask("stackTrace", threadId=thread)
        frame = debugger.wait("response", "stackTrace")["body"]["stackFrames"][0]
        assert (frame["name"], frame["line"]) == ("app", line)
        debugger.ask("continue", threadId=thread)
        assert client.read_response().status == 200
    debugger.socket.close()
    assert one.stop() == 0
