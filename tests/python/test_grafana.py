"""The dashboard for Grafana and the alert rules name only what `/metrics` has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_health import ask

pytestmark = pytest.mark.ours

GRAFANA = Path(__file__).parents[2] / "examples" / "grafana"


def expressions():
    panels = json.loads((GRAFANA / "dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 10
    return [*queries, (GRAFANA / "alerts.yml").read_text()]


def test_every_metric_that_is_asked_for_exists(server):
    one = server("lifecycle", "--admin-bind", "127.0.0.1:0")
    families = text_string_to_metric_families(ask(one, "/metrics").text)
    known = {sample.name for family in families for sample in family.samples}
    asked = {name for text in expressions() for name in re.findall(r"ferricorn_\w+", text)}
    assert len(asked) > 8
    assert asked <= known, asked - known


@pytest.mark.skipif(not shutil.which("promtool"), reason="Debian's prometheus package has promtool")
def test_promtool_accepts_the_rules():
    checked = subprocess.run(["promtool", "check", "rules", GRAFANA / "alerts.yml"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
