"""The types of the dashboard's script, which its comments declare, checked by TypeScript's compiler."""

from __future__ import annotations

import re
import subprocess

import pytest
from programs import program

from harness import REPOSITORY

PAGE = REPOSITORY / "src/arbiter/dashboard/page.html"
# npm keeps what it has fetched.
COMPILER = ("--yes", "--package", "typescript@5.9.3", "tsc")
OPTIONS = ("--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "es2022", "--lib", "es2022,dom,dom.iterable")


@pytest.fixture(scope="module")
def compile_script():
    npx = program("npx")
    version = subprocess.run([npx, *COMPILER, "--version"], capture_output=True, text=True, check=False)
    if version.returncode:
        pytest.skip("npm cannot fetch TypeScript")

    def run(path):
        return subprocess.run([npx, *COMPILER, *OPTIONS, str(path)], capture_output=True, text=True, check=False)

    return run


def script() -> str:
    (found,) = re.findall(r"<script>(.*?)</script>", PAGE.read_text(), re.DOTALL)
    return found


def test_the_script_of_the_dashboard_has_the_types_that_it_declares(compile_script, tmp_path):
    (tmp_path / "page.js").write_text(script())
    done = compile_script(tmp_path / "page.js")
    assert done.returncode == 0, done.stdout


def test_a_wrong_type_would_be_found(compile_script, tmp_path):
    wrong = script().replace("const get = ", "/** @type {number} */ const wrong = 'text';\nconst get = ", 1)
    (tmp_path / "page.js").write_text(wrong)
    done = compile_script(tmp_path / "page.js")
    assert "Type 'string' is not assignable to type 'number'" in done.stdout
