"""`/metrics` as the field reads it: a real Prometheus, prometheus_client's parsers, and a server with 64 workers."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
from fronts import SITE, directory, free_port, is_open
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from harness import PATIENCE_S, REPOSITORY, wait_until
from load import Load
from wire import Client

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
RULES = REPOSITORY / "examples" / "grafana" / "alerts.yml"


def watched(server, *options, **more):
    return server("watched:app", "--admin-bind", "127.0.0.1:0", *options, **{**SITE, **more})


def admin(one) -> tuple[str, int]:
    address = one.log.wait(r"Health and figures at: http://(\S+)")[0].group(1)
    return "127.0.0.1", int(address.rpartition(":")[2])


def scrape(one, accept="*/*"):
    with Client(admin(one), PATIENCE_S) as client:
        return client.request("GET", "/metrics", [("Accept", accept)])


def values(families) -> dict[tuple, float]:
    samples = (sample for family in families for sample in family.samples)
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}


def test_both_formats_say_the_same(server):
    one = watched(server, "-w", "2", workers=2)
    assert one.get("/fail").status == 500
    wait_until(lambda: "\nferricorn_requests_total 1\n" in scrape(one).text, "it is counted")
    plain, opened = scrape(one), scrape(one, OPEN_METRICS)
    assert plain.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert opened.header("Content-Type") == f"{OPEN_METRICS}; charset=utf-8"
    families = list(open_metrics(opened.text))
    kinds = {family.name: family.type for family in families}
    assert kinds["ferricorn_requests"] == "counter"
    assert kinds["ferricorn_request_duration_seconds"] == kinds["ferricorn_gil_wait_seconds"] == "histogram"
    assert all(family.documentation for family in families)
    # OpenMetrics: a counter ends in `_total`, and nothing else does; a unit stands last.
    assert all(not name.endswith(("_total", "_count", "_sum", "_bucket", "_info")) for name in kinds)
    known = values(text_string_to_metric_families(plain.text))
    assert len(known) > 100
    changing = ("ferricorn_worker_connections", "ferricorn_connections")
    differing = {key for key, value in values(families).items() if known.get(key) != value}
    assert {key for key in differing if not key[0].startswith(changing)} == set()


def test_64_workers_are_scraped_in_ten_milliseconds(server, record_property):
    one = watched(server, "-w", "64", "--threads", "4", workers=64)
    wait_until(lambda: '\nferricorn_workers{state="serving"} 64\n' in scrape(one).text, "all serve", 60)
    with Load(one.address, keep_alive=4, one_shot=0) as load:
        load.wait_answered(200)
    times = []
    for _ in range(31):
        began = time.perf_counter()
        text = scrape(one).text
        times.append(time.perf_counter() - began)
    median = statistics.median(times)
    record_property("scrape", f"{median * 1000:.1f} ms, {len(text) / 1024:.0f} KiB with 64 workers")
    assert median < 0.010, sorted(times)
    assert len(text) < 512 * 1024
    assert len(text) < 16 * 1024 + 64 * 8 * 1024, "so much for the server, so much for each worker"


@pytest.fixture
def prometheus():
    """Starts Debian's Prometheus, which scrapes an address twice a second; returns how to ask it."""
    path = shutil.which("prometheus")
    if path is None:
        pytest.skip("no Prometheus (apt-get install prometheus)")
    started = []
    with directory() as home:

        def start(target):
            port, target = free_port(), ":".join(map(str, target))
            (home / "prometheus.yml").write_text(
                "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
                f"rule_files: [{RULES}]\n"
                "scrape_configs:\n"
                f"  - {{job_name: app, scrape_timeout: 400ms, static_configs: [{{targets: ['{target}']}}]}}\n"
            )
            line = [path, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data"]
            process = subprocess.Popen(
                [*line, f"--web.listen-address=127.0.0.1:{port}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=(home / "log").open("w"),
            )
            started.append(process)
            wait_until(lambda: is_open(port) or process.poll() is not None, "Prometheus listens")
            assert process.poll() is None, (home / "log").read_text()

            def ask(what, **query):
                url = f"http://127.0.0.1:{port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
                with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                    return json.load(answer)["data"]

            return ask

        yield start
        for process in started:
            process.terminate()
            process.wait(PATIENCE_S)


def test_a_real_prometheus_scrapes_and_evaluates_the_rules(server, prometheus):
    one = watched(server, "-w", "2", "--threads", "2", workers=2)
    ask = prometheus(admin(one))

    def value(query):
        found = ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    with Load(one.address, keep_alive=3, one_shot=1, pause=0.01) as load:
        wait_until(lambda: value("rate(ferricorn_requests_total[5s])"), "a rate")
        p99 = "histogram_quantile(0.99, sum by (le) (rate(ferricorn_request_duration_seconds_bucket[5s])))"
        assert 0 < wait_until(lambda: value(p99), "a quantile") < 10
    sent = load.stop().sent
    wait_until(lambda: value("ferricorn_requests_total") == sent, "all requests")
    wait_until(lambda: value("sum(ferricorn_worker_requests_total)") == sent, "those of the workers")
    assert value('up{job="app"}') == 1
    (target,) = ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert value("scrape_samples_scraped") > 100
    metadata = ask("metadata", metric="ferricorn_requests_total") or ask("metadata", metric="ferricorn_requests")
    assert [entry["type"] for entries in metadata.values() for entry in entries] == ["counter"]

    def healths():
        rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        return {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in rules}

    wait_until(lambda: "unknown" not in {health for health, _ in healths().values()}, "the rules are evaluated")
    assert len(healths()) >= 4
    assert set(healths().values()) == {("ok", "")}
    assert one.stop() == 0
    wait_until(lambda: value('up{job="app"}') == 0, "it is down")
