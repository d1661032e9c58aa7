"""What a release rests on: the build backend's messages, the checks of versions and changelogs, the machines' files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import REPOSITORY

pytestmark = pytest.mark.ours
FILES = ("Cargo.toml", "Cargo.lock", "CHANGELOG.md", "pyproject.toml", "release/check.py")


# As on an interpreter that ferricorn is built for, whichever runs the tests.
WITH_GIL = 'import sysconfig; sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 0'


def backend(tmp_path, path, before=WITH_GIL, **variables):
    """What pip runs before it builds, with only `path` to find programs in."""
    (tmp_path / "maturin.py").write_text("build_sdist = get_requires_for_build_sdist = None\n")
    program = f"{before}\nimport build_backend; print(build_backend.get_requires_for_build_wheel())"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": str(path), "PYTHONPATH": f"{tmp_path}:{REPOSITORY / 'release'}", **variables},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def program(folder, name, *said):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in said))
    (folder / name).chmod(0o755)


def test_without_rust_one_message_says_what_is_missing(tmp_path):
    path = tmp_path / "bin"
    path.mkdir()
    refused = backend(tmp_path, path)
    assert refused.returncode == 1
    assert "there is no cargo on PATH. Building needs Rust 1." in refused.stderr
    assert "Wheels, which need neither, exist for CPython 3.10 to 3.14 on Linux" in refused.stderr
    assert "Traceback" not in refused.stderr
    program(path, "cargo", "cargo 1.70.0 (0123abc 2023-05-05)")
    assert "cargo is 1.70, and building needs Rust 1." in backend(tmp_path, path).stderr
    program(path, "cargo", "cargo 1.99.0 (0123abc 2027-05-05)")
    assert "there is no C compiler (cc)" in backend(tmp_path, path).stderr
    program(path, "cc")
    built = backend(tmp_path, path)
    assert (built.returncode, built.stdout.strip()) == (0, "[]")
    assert "no C compiler" in backend(tmp_path, path, CC="no-such-compiler").stderr


def test_free_threaded_cpython_is_refused_before_3_14(tmp_path):
    path = tmp_path / "bin"
    program(path, "cargo", "cargo 1.99.0 (0123abc 2027-05-05)")
    program(path, "cc")
    free_threaded = """
import sys, sysconfig
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 1
sys.version_info = (3, {}, 0, "final", 0)"""
    refused = backend(tmp_path, path, free_threaded.format(13))
    assert refused.returncode == 1
    assert "free-threaded CPython is supported from 3.14 on, and this is 3.13." in refused.stderr
    tried = backend(tmp_path, path, free_threaded.format(13), UNSAFE_PYO3_SKIP_VERSION_CHECK="1")
    assert tried.returncode == backend(tmp_path, path, free_threaded.format(14)).returncode == 0


@pytest.fixture
def repository(tmp_path):
    """A repository at version 9.8.7, ready to be released."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    change(tmp_path, "Cargo.toml", r'(?m)^version = "[^"]+"', 'version = "9.8.7"')
    change(tmp_path, "Cargo.lock", r'(name = "ferricorn"\nversion = )"[^"]+"', r'\1"9.8.7"')
    change(tmp_path, "pyproject.toml", r"example\.org", "ferricorn.net")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 9.8.7 (2030-01-01)\n\n- One.\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path, "Begin")
    return tmp_path


def change(root, name, pattern, replacement):
    text = (root / name).read_text()
    changed, count = re.subn(pattern, replacement, text)
    assert count, f"{name} has no {pattern}"
    (root / name).write_text(changed)


def git(root, *arguments):
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, timeout=20, stdout=subprocess.DEVNULL)


def commit(root, message):
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)


def check(root, *arguments):
    done = subprocess.run(
        [sys.executable, str(root / "release/check.py"), *arguments],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == (1 if done.stderr else 0)
    return done.stderr.splitlines()


def test_a_version_that_is_ready_is_released(repository):
    assert check(repository, "version", "9.8.7") == []


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "finding"),
    [
        ("Cargo.toml", "9.8.7", "9.8.6", "Cargo.toml has version 9.8.6, not 9.8.7"),
        ("Cargo.lock", '"9.8.7"', '"9.8.6"', "Cargo.lock has not version 9.8.7: cargo check"),
        ("CHANGELOG.md", "9.8.7", "9.8.6", "CHANGELOG.md has no section 9.8.7, or an empty one"),
        ("CHANGELOG.md", "Unreleased\n", "Unreleased\n\n- Two.\n", "CHANGELOG.md has entries under Unreleased"),
        (
            "pyproject.toml",
            '(ferricorn@)[^"]+',
            r"\1example.org",
            "pyproject.toml has reserved addresses: ferricorn@example.org",
        ),
    ],
)
def test_what_keeps_a_version_from_being_released(repository, name, pattern, replacement, finding):
    change(repository, name, pattern, replacement)
    commit(repository, "Break it")
    assert check(repository, "version", "9.8.7") == [finding]


def test_neither_twice_nor_with_open_changes(repository):
    git(repository, "tag", "v9.8.7")
    (repository / "more").write_text("")
    assert check(repository, "version", "9.8.7") == [
        "the work tree has changes that are not committed",
        "the tag v9.8.7 exists",
    ]
    assert "VERSION=9.8 is not a version: 1.2.3 or 1.2.3rc1" in check(repository, "version", "9.8")


def test_a_visible_change_needs_a_line_in_the_changelog(repository):
    git(repository, "checkout", "--quiet", "-b", "work")
    (repository / "src").mkdir()
    (repository / "src/one.rs").write_text("")
    commit(repository, "Change what users run")
    (finding,) = check(repository, "changelog", "main")
    assert "CHANGELOG.md has not" in finding
    git(repository, "commit", "--quiet", "--amend", "--message", "Move it\n\nChangelog: none")
    assert check(repository, "changelog", "main") == []
    git(repository, "commit", "--quiet", "--amend", "--message", "Change it")
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- Two.\n")
    commit(repository, "Say it")
    assert check(repository, "changelog", "main") == []


# What the programs say where they reach no database: an index without PyPI's JSON interface, and none at all.
NO_CRATES = "[ERROR] failed to fetch advisory database https://github.com/RustSec/advisory-db with cli"
NO_PACKAGE = "ERROR:pip_audit._cli:Flask: Dependency not found on PyPI and could not be audited: flask (3.1.3)"
NO_NETWORK = "requests.exceptions.ConnectionError: api.osv.dev: Max retries exceeded"
NO_OSV = f'case "$*" in *osv*) echo "{NO_NETWORK}" >&2;; *) echo "{NO_PACKAGE}" >&2;; esac; exit 1'


@pytest.mark.parametrize(
    ("cargo_deny", "pip_audit", "code", "said"),
    [
        ("exit 0", "exit 0", 0, []),
        (
            'case "$*" in *advisories) echo "unmaintained"; exit 1;; esac',
            "exit 0",
            1,
            ["vulnerabilities of crates: found", "unmaintained"],
        ),
        ("exit 0", 'echo "PYSEC-2030-1"; exit 1', 1, ["vulnerabilities of Python packages: found", "PYSEC-2030-1"]),
        (
            f'case "$*" in *advisories) echo "{NO_CRATES}" >&2; exit 1;; esac',
            NO_OSV,
            2,
            [
                f"vulnerabilities of crates: NOT CHECKED, cargo-deny reached no database: {NO_CRATES}",
                f"vulnerabilities of Python packages: NOT CHECKED, pip-audit reached no database: {NO_NETWORK}",
            ],
        ),
        # The second database is enough; what was found goes before what was not asked.
        ("exit 0", 'case "$*" in *osv*);; *) echo "ConnectionError" >&2; exit 1;; esac', 0, []),
        (
            "exit 1",
            NO_OSV,
            1,
            [
                "licences and sources of crates: found",
                "vulnerabilities of crates: found",
                f"vulnerabilities of Python packages: NOT CHECKED, pip-audit reached no database: {NO_NETWORK}",
            ],
        ),
    ],
)
def test_an_audit_that_reaches_no_database_does_not_pass(tmp_path, cargo_deny, pip_audit, code, said):
    for name, does in (("cargo-deny", cargo_deny), ("pip-audit", pip_audit)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    audit = [sys.executable, REPOSITORY / "release/audit.py", tmp_path / "cargo-deny", tmp_path / "pip-audit", "a.txt"]
    done = subprocess.run(audit, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if line]) == (code, said)


def test_machines_run_targets_of_the_makefile():
    if not (REPOSITORY / ".github").exists():
        pytest.skip("a source archive has none")
    makefile = (REPOSITORY / "Makefile").read_text()
    workflows = list((REPOSITORY / ".github/workflows").glob("*.yml"))
    assert workflows
    for workflow in workflows:
        commands = re.findall(r"^\s+- run: (.*)$", workflow.read_text(), re.MULTILINE)
        assert commands
        for command in commands:
            if not command.startswith("sudo apt-get "):
                target = re.fullmatch(r"make ([a-z-]+)( [A-Z_]+=\S+( \S+ \S+)?)?", command)
                assert target, f"{workflow.name}: {command}"
                assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE), f"{workflow.name}: {command}"


def test_the_page_for_indexes_has_no_relative_link():
    page = (REPOSITORY / "release/index_page.md").read_text()
    assert re.findall(r"\]\((?!https?://|#)[^)]*\)", page) == []


def test_a_wheel_is_run_by_the_interpreter_that_it_is_for(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "release"))
    import run_wheels

    def read(name):
        wheel = run_wheels.read(Path(name))
        return wheel.python, wheel.machine, wheel.is_musl

    glibc = "ferricorn-0.1.0-cp314-cp314-manylinux2014_aarch64.manylinux_2_17_aarch64.whl"
    assert read(glibc) == ("3.14", "aarch64", False)
    assert read("ferricorn-0.1.0-cp314-cp314t-musllinux_1_2_x86_64.whl") == ("3.14t", "x86_64", True)
