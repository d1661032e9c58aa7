"""The dashboard of `admin_bind`: its numbers, its timeline, and that strangers can do nothing with it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import select
import signal
import threading

import pytest
from test_health import figure, visit

from harness import HAS_GIL, wait_until

pytestmark = pytest.mark.ours


@pytest.fixture
def watched(server):
    def start(*options):
        return server("lifecycle", "--admin-bind", "127.0.0.1:0", *options)

    return start


def ask(one, path, method="GET"):
    with visit(one) as client:
        return client.request(method, path, [("Host", "127.0.0.1")])


def data_of(one, path="/dashboard.json"):
    answer = ask(one, path)
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json")
    return json.loads(answer.text)


def events(one, kind):
    return [event["text"] for event in data_of(one)["events"] if event["kind"] == kind]


def test_the_page_is_one_document_whose_policy_allows_only_its_own_script(watched):
    page = ask(watched(), "/")
    assert (page.status, page.header("Content-Type")) == (200, "text/html; charset=utf-8")
    policy = dict(part.strip().split(" ", 1) for part in page.header("Content-Security-Policy").split(";"))
    assert (policy["default-src"], policy["frame-ancestors"], policy["connect-src"]) == ("'none'", "'none'", "'self'")
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'", "the hash in src/arbiter/dashboard.rs"
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.text), "nothing of others"
    assert not re.search(r"\son\w+=|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page.text)


@pytest.mark.parametrize("path", ["/", "/dashboard.json", "/dashboard/latest.json", "/metrics", "/nothing"])
def test_no_answer_is_kept_framed_or_taken_for_something_else(watched, path):
    answer = ask(watched(), path)
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("X-Frame-Options") == "DENY"
    assert "frame-ancestors 'none'" in answer.header("Content-Security-Policy")
    assert answer.header("Access-Control-Allow-Origin") is None


def test_numbers_equal_those_of_metrics(watched):
    one = watched("--workers", "2", "--threads", "3")
    for _ in range(7):
        assert one.get("/pid").status == 200
    assert one.get("/nothing-there").status == 500
    wait_until(lambda: figure(one, "requests_total") == 8, "all requests counted")
    data = data_of(one)
    for name, value in data["counters"].items():
        assert value == figure(one, name), name
    assert data["counters"]["errors_total"] == 1
    assert sum(row["requests"] for row in data["workers"]) == 8
    assert data["stats"]["workers_target"] == figure(one, "workers_wanted") == 2
    wait_until(lambda: sum(data_of(one)["samples"]["requests"]) == 8, "the second is over")
    samples = data_of(one)["samples"]
    assert (sum(samples["errors"]), samples["threads"][-1]) == (1, figure(one, "threads"))
    assert samples["workers"][-1] == 2
    assert samples["memory"][-1] >= samples["memory_max"][-1] > 1 << 20
    assert max(samples["p50"]) > 0
    # A thread that is woken for a request needs the GIL, and each of these found all threads asleep.
    assert 1 <= figure(one, "gil_wait_seconds_count") <= 8
    assert {len(column) for name, column in samples.items() if name != "first"} == {len(samples["at"])}


@pytest.mark.skipif(not HAS_GIL, reason="no request can hold the interpreter")
def test_a_wait_for_the_gil_shows(watched):
    one = watched("--threads", "2")

    def is_counted():
        """Requests come for as long as the GIL is held. One waits, unless this process slept then: once more."""
        with one.connect() as holding:
            holding.send_request("GET", "/hold_the_interpreter?1")
            while not select.select([holding.socket], [], [], 0)[0]:
                assert one.get("/pid").status == 200
            assert holding.read_response().status == 200
        return figure(one, "gil_wait_seconds_sum") > 0.3

    wait_until(is_counted, "the wait is counted")
    wait_until(lambda: max(data_of(one)["samples"]["gil_p99"]) > 300_000, "and in a sample")


@pytest.mark.slow
def test_advice_is_that_of_the_last_minute(watched):
    one = watched("--threads", "1")
    assert re.match(r"0 requests have finished in \d+ s, too few for advice\.", data_of(one)["advice"])

    def ask_at_once():
        with contextlib.suppress(ConnectionError), one.connect() as client:
            for _ in range(10):
                client.request("GET", "/sleep?0.05")

    clients = [threading.Thread(target=ask_at_once) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    said = r"^Requests wait \d+ ms for a thread while threads are busy .* threads instead of 1 would cut the wait"
    wait_until(lambda: re.search(said, data_of(one)["advice"]), "advice")


@pytest.mark.slow
def test_the_latest_samples_continue_those_of_before(watched):
    one = watched()
    wait_until(lambda: len(data_of(one)["samples"]["at"]) > 11, "more than the latest")
    before, after = data_of(one)["samples"], data_of(one, "/dashboard/latest.json")["samples"]
    assert len(after["at"]) == 10
    both = dict(enumerate(before["at"], before["first"]))
    common = {number: at for number, at in enumerate(after["at"], after["first"]) if number in both}
    assert len(common) >= 5
    assert all(both[number] == at for number, at in common.items())


def test_running_requests_are_shown_as_text_and_without_their_query(watched, gates):
    one = watched("--threads", "1")
    with one.connect() as busy:
        busy.send(b"GET /block?<script>alert(1) HTTP/1.1\r\nHost: a\r\n\r\n")
        rows = wait_until(lambda: data_of(one)["running"]["requests"], "it runs")
        assert (rows[0]["method"], rows[0]["path"], rows[0]["peer"]) == ("GET", "/block", "127.0.0.1")
        assert "script" not in ask(one, "/dashboard.json").text
        gates.open("<script>alert(1)")
        assert busy.read_response().status == 200


def test_a_strangers_path_is_never_markup(watched):
    one = watched()
    assert one.get("/<script>alert(1)</script>").status == 500
    assert "alert(1)" not in ask(one, "/").text, "the page itself is always the same"
    data = ask(one, "/dashboard.json")
    assert (data.header("Content-Type"), data.header("X-Content-Type-Options")) == ("application/json", "nosniff")
    assert "<script>" not in ask(one, "/<script>").text, "the answer names no path"


def test_a_reload_and_one_that_fails_are_on_the_timeline(server, tmp_path):
    config = tmp_path / "conf.py"
    config.write_text("workers = 1\nadmin_bind = '127.0.0.1:0'\n")
    one = server("lifecycle", "-c", str(config))
    wait_until(lambda: events(one, "boot"), "the first worker")
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: events(one, "reload") == ["A reload begins", "Reloaded"], "the reload and its end")
    wait_until(lambda: len(events(one, "boot")) == 2, "the new worker")
    config.write_text("workers = nonsense\n")
    one.send_signal(signal.SIGHUP)
    (why,) = wait_until(lambda: events(one, "reload failed"), "the reload that fails")
    assert "conf.py" in why
    assert "\n" not in why
    assert data_of(one)["stats"]["reloads"] == 2


def test_a_crashed_worker_shows(watched):
    one = watched()
    (pid,) = one.workers()
    wait_until(lambda: events(one, "boot"), "it serves")
    os.kill(pid, signal.SIGSEGV)
    (text,) = wait_until(lambda: events(one, "crash"), "the crash")
    assert text.startswith(f"Worker (pid:{pid}) ended: ")
    wait_until(lambda: len(events(one, "boot")) == 2, "its replacement")


@pytest.mark.parametrize("path", ["/", "/dashboard.json", "/dashboard/latest.json"])
def test_a_name_of_strangers_that_points_here_is_refused(watched, path):
    one = watched()
    for host, status in (
        ("evil.example", 421),
        ("127.0.0.1.evil.example:80", 421),
        ("localhost", 200),
        ("[::1]:9", 200),
    ):
        with visit(one) as client:
            client.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert client.read_response().status == status, host
    with visit(one) as client:
        client.send(b"GET /metrics HTTP/1.1\r\nHost: pod.monitoring.svc\r\n\r\n")
        assert client.read_response().status == 200, "Prometheus asks by any name"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_is_read_only(watched, method):
    assert ask(watched(), "/dashboard.json", method).status == 405
