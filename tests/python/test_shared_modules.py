"""Modules that the arbiter imports before it forks, so that its workers share their memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import HAS_GIL

pytestmark = pytest.mark.ours

APP = Path(__file__).parent / "apps" / "loaded_modules.py"


def frozen_by_python() -> int:
    """CPython 3.12 passes over some objects from its start."""
    command = [sys.executable, "-c", "import gc; print(gc.get_freeze_count())"]
    return int(subprocess.check_output(command, timeout=20))


def loaded(one) -> dict:
    return json.loads(one.get("/").body)


def test_workers_find_what_frameworks_import_in_memory_that_they_share(server):
    said = loaded(server("loaded_modules:app", workers=2))
    assert {"email.message", "importlib.metadata", "ssl", "tempfile"} <= set(said["modules"])
    assert said["frozen"] > 1000


GREEN = pytest.mark.skipif(not HAS_GIL, reason="greenlets are not safe without a GIL")


@pytest.mark.parametrize(
    ("arguments", "workers"), [((), 1), (("--preload",), 2), pytest.param(("-k", "gevent"), 2, marks=GREEN)]
)
def test_where_it_would_not_be_shared_or_is_to_be_patched_nothing_is_imported(server, arguments, workers):
    said = loaded(server("loaded_modules:app", *arguments, workers=workers))
    assert said["frozen"] == frozen_by_python()


def test_a_file_of_the_application_is_no_module_of_the_arbiter(server, tmp_path):
    shutil.copy(APP, tmp_path)
    tmp_path.joinpath("csv.py").write_text("raise SystemExit('imported')")
    said = loaded(server("loaded_modules:app", cwd=tmp_path, workers=2))
    assert "csv" in said["modules"] and str(tmp_path) in said["path"]


def test_a_thread_of_the_configuration_may_be_importing(server, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n")
    said = loaded(server("loaded_modules:app", "-c", str(conf), workers=2))
    assert "csv" not in said["modules"]
