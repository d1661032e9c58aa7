"""The application's side of harness.Gates."""

import os
import time
from pathlib import Path


def _path(name: str) -> Path:
    return Path(os.environ["GATES"]) / name


def reach(name: str) -> None:
    _path(f"{name}.reached").touch()


def is_open(name: str) -> bool:
    return _path(f"{name}.open").exists()


def wait(name: str) -> None:
    """Say that `name` was reached, then wait until the test opens it."""
    reach(name)
    deadline = time.monotonic() + 30
    while not is_open(name):
        if time.monotonic() > deadline:
            raise TimeoutError(f"gate {name!r} was never opened")
        time.sleep(0.005)


def note(name: str, line: object) -> None:
    with _path(f"{name}.notes").open("a") as notes:
        notes.write(f"{line}\n")
