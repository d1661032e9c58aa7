"""Health checks and metrics, answered by the server itself while every thread is busy."""

from __future__ import annotations

import re
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness import wait_until
from wire import Client

pytestmark = pytest.mark.ours


def test_health_is_told_while_all_threads_are_busy(server, gates):
    one = server("lifecycle", "--threads", "1", "--health-path", "/-/health", "--access-logfile", "-")
    with one.connect() as busy, one.connect() as probe:
        busy.send_request("GET", "/block?busy")
        gates.wait_reached("busy")
        for path, text in (("/-/health", "ready"), ("/-/health/ready", "ready"), ("/-/health/live", "alive")):
            told = probe.request("GET", path)
            assert (told.status, told.text.strip()) == (200, text)
            assert told.header("Connection") == "keep-alive"
        assert probe.request("HEAD", "/-/health").status == 200
        gates.open("busy")
        assert busy.read_response().text == "unblocked busy"
        # The paths beside it, and other methods, are the application's.
        assert probe.request("GET", "/-/healthy").status == 500
    assert one.get("/pid?/-/health").status == 200
    one.output.wait(r"GET /pid")
    assert len(one.output.text.splitlines()) == 3, "probes leave no line"


def test_a_server_with_full_queues_is_not_ready_but_alive(server, gates):
    one = server("lifecycle", "--threads", "1", "--health-path", "/-/health", "--max-queue", "1")
    with one.connect() as busy, one.connect() as waiting, one.connect() as probe:
        busy.send_request("GET", "/block?busy")
        gates.wait_reached("busy")
        assert probe.request("GET", "/-/health").status == 200
        waiting.send_request("GET", "/pid")
        told = probe.request("GET", "/-/health")
        assert (told.status, told.text.strip()) == (503, "not ready: all queues are full")
        assert probe.request("GET", "/-/health/live").status == 200
        gates.open("busy")
        assert busy.read_response().status == 200
        assert waiting.read_response().status == 200
        assert probe.request("GET", "/-/health").status == 200


def test_health_is_off_by_default(server):
    one = server("lifecycle")
    assert one.get("/-/health").status == 500, "the application's business"


def test_a_health_path_that_is_none_is_refused(server):
    one = server("lifecycle", "--health-path", "health", ready=False)
    assert one.wait_exit() == 1
    assert "must be a path that begins with a slash" in one.log.join()


def visit(one):
    """A connection to the second address, which the log tells."""
    told = one.log.wait(r"Health and figures at: http://127\.0\.0\.1:(\d+)$")
    return Client(("127.0.0.1", int(told[0].group(1))), 20)


def ask(one, path, method="GET"):
    with visit(one) as client:
        return client.request(method, path)


def figure(one, name):
    text = ask(one, "/metrics").text
    found = re.search(rf"^ferricorn_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} in:\n{text}"
    return float(found.group(1))


def test_the_second_address_tells_health_and_figures(server, gates):
    one = server("lifecycle", "--threads", "1", "--admin-bind", "127.0.0.1:0", "--access-logfile", "-", workers=2)
    wait_until(lambda: figure(one, 'workers{state="serving"}') == 2, "both serve")
    assert ask(one, "/ready").status == 200
    for _ in range(5):
        one.get("/pid")
    one.get("/missing")
    with one.connect() as busy:
        busy.send_request("GET", "/block?busy")
        gates.wait_reached("busy")
        assert ask(one, "/live").text == "alive\n"
        assert figure(one, "threads_busy") == 1
        assert figure(one, "requests_total") == 6
        assert figure(one, "errors_total") == 1
        assert figure(one, "threads") == 2
        assert figure(one, 'workers{state="serving"}') == 2
        assert figure(one, 'queue_time_seconds_bucket{le="+Inf"}') == 7
        each = [figure(one, f'worker_requests_total{{worker="{number}"}}') for number in (0, 1)]
        assert sum(each) == 6
        head = ask(one, "/metrics", "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.header("Content-Type").startswith("text/plain; version=0.0.4")
        gates.open("busy")
        assert busy.read_response().status == 200
    assert ask(one, "/other").status == 404
    assert ask(one, "/live", "POST").status == 405
    assert "/metrics" not in one.output.text


def test_the_figures_are_what_prometheus_reads(server):
    """Its own client's parser, which is strict about types, names and escapes, and the rules that it does not check."""
    one = server("lifecycle", "--admin-bind", "127.0.0.1:0", workers=2)
    for _ in range(3):
        one.get("/pid")
    wait_until(lambda: figure(one, "requests_total") == 3, "all counted")
    text = ask(one, "/metrics").text
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)) > 10
    told = [line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(told) == len(names), "a sample without a type is a family of its own"
    for family in families:
        assert family.name.startswith("ferricorn_"), family.name
        assert family.documentation and family.samples, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        keys = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        assert len(keys) == len(set(keys)), family.name
        if family.type == "counter":
            assert all(sample.name == f"{family.name}_total" for sample in family.samples), keys
        if family.type == "histogram":
            is_histogram(family)


def is_histogram(family):
    for worker in {sample.labels.get("worker") for sample in family.samples}:
        samples = [sample for sample in family.samples if sample.labels.get("worker") == worker]
        buckets = [sample for sample in samples if sample.name.endswith("_bucket")]
        bounds = [float(sample.labels["le"]) for sample in buckets]
        counts = [sample.value for sample in buckets]
        assert bounds == sorted(bounds) and bounds[-1] == float("inf"), family.name
        assert counts == sorted(counts), family.name
        (count,) = (sample.value for sample in samples if sample.name.endswith("_count"))
        (total,) = (sample.value for sample in samples if sample.name.endswith("_sum"))
        assert counts[-1] == count and total >= 0, family.name


def test_counters_survive_their_worker(server):
    one = server("lifecycle", "--admin-bind", "127.0.0.1:0")
    for _ in range(3):
        one.get("/pid")
    [old] = one.workers()
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: one.workers() and old not in one.workers(), "another worker")
    wait_until(lambda: figure(one, "requests_total") == 3, "the old worker's requests")


def test_a_stopping_server_is_alive_but_not_ready(server, gates):
    one = server("lifecycle", "--admin-bind", "127.0.0.1:0")
    with one.connect() as busy:
        busy.send_request("GET", "/block?busy")
        gates.wait_reached("busy")
        assert ask(one, "/ready").status == 200
        one.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(one, "/ready").status == 503, "not ready")
        assert ask(one, "/ready").text == "not ready: the server stops\n"
        assert ask(one, "/live").status == 200
        gates.open("busy")
        assert busy.read_response().status == 200
    assert one.wait_exit() == 0


def test_a_visitor_who_says_nothing_keeps_nobody_waiting(server):
    one = server("lifecycle", "--admin-bind", "127.0.0.1:0")
    silent = [visit(one) for _ in range(20)]
    with visit(one) as slow:
        slow.send(b"GET /li")
        assert ask(one, "/live").status == 200
        slow.send(b"ve HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.read_response().status == 200
        assert slow.is_closed()
    for client in silent:
        client.close()
    assert ask(one, "/live").status == 200


def test_a_second_address_in_use_does_not_keep_the_server_from_serving(server):
    first = server("lifecycle", "--admin-bind", "127.0.0.1:0")
    taken = first.log.wait(r"Health and figures at: http://(\S+)$")[0].group(1)
    one = server("lifecycle", "--admin-bind", taken)
    one.log.wait(r"admin_bind: .*trying again while serving")
    assert one.get("/pid").status == 200
    first.stop()
    one.log.wait(r"Health and figures at: http://")
    assert ask(one, "/live").status == 200
