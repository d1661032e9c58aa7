"""What the product and its tests depend on: licences, sources, known vulnerabilities. `make audit` runs it.

    python release/audit.py CARGO_DENY PIP_AUDIT REQUIREMENTS...

Exits with 0 where all was checked and nothing found, with 1 where something was found, and with 2 where a database of
vulnerabilities could not be asked: what is not checked does not pass.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from enum import Enum

DENY = ("--all-features", "--config", "release/deny.toml", "check")
# What the programs say where they have not asked. An index without the JSON interface of PyPI, a mirror for instance,
# answers as if it had no such package, although pip has just resolved it there.
UNREACHED = {
    "cargo-deny": ("failed to fetch advisory database",),
    "pip-audit": ("Dependency not found on PyPI", "ConnectionError", "Failed to establish a new connection"),
}


class Outcome(Enum):
    """How a check has ended; the value is the exit code of all where it is the worst."""

    PASSED = 0
    FOUND = 1
    UNREACHED = 2


def main(arguments: list[str]) -> int:
    """Run the checks, and return the exit code."""
    cargo_deny, pip_audit, *requirements = arguments
    of_python = [pip_audit, "--strict", "--progress-spinner", "off"]
    for path in requirements:
        of_python += ["-r", path]
    outcomes = [
        _check("licences and sources of crates", [[cargo_deny, *DENY, "bans", "licenses", "sources"]], "cargo-deny"),
        _check("vulnerabilities of crates", [[cargo_deny, *DENY, "advisories"]], "cargo-deny"),
        # Two databases: the second is asked where the first is not reached.
        _check(
            "vulnerabilities of Python packages",
            [[*of_python, "--vulnerability-service", service] for service in ("pypi", "osv")],
            "pip-audit",
        ),
    ]
    # What was found goes before what was not asked.
    worst = Outcome.FOUND if Outcome.FOUND in outcomes else max(outcomes, key=lambda outcome: outcome.value)
    return int(worst.value)


def _check(what: str, commands: list[list[str]], program: str) -> Outcome:
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode == 0:
            print(f"{what}: passed")
            return Outcome.PASSED
        if not any(mark in said for mark in UNREACHED[program]):
            print(f"{what}: found\n{said}", file=sys.stderr)
            return Outcome.FOUND
    # The last line is the plainest: of a traceback it is the exception.
    *_, reason = _reasons(said, program)
    print(f"{what}: NOT CHECKED, {program} reached no database: {reason}", file=sys.stderr)
    return Outcome.UNREACHED


def _reasons(said: str, program: str) -> Iterator[str]:
    for line in said.splitlines():
        if any(mark in line for mark in UNREACHED[program]):
            yield line.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
