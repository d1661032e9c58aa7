"""The fixtures of tests/python, and the table of what each deployment has sent and lost."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROCESS_TESTS = HERE.parent / "python"
sys.path.insert(0, str(PROCESS_TESTS))

spec = importlib.util.spec_from_file_location("process_fixtures", PROCESS_TESTS / "conftest.py")
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)
gates, server = fixtures.gates, fixtures.server


def pytest_terminal_summary(terminalreporter) -> None:
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {name}: {value}")
