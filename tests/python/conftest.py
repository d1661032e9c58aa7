"""Fixtures: `server(...)` starts one, `gates` synchronises a test with its application."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import COMMAND, IS_OURS, Gates, Server


def pytest_configure() -> None:
    """A shell has its background jobs ignore INT and QUIT, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_report_header() -> str:
    return f"server under test: {' '.join(COMMAND)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IS_OURS:
        return
    foreign = pytest.mark.skip(reason="a behaviour of ferricorn only; another server is under test")
    for item in items:
        if "ours" in item.keywords:
            item.add_marker(foreign)


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    directory = tmp_path / "gates"
    directory.mkdir()
    return Gates(directory)


@pytest.fixture
def server(gates: Gates) -> Iterator[Callable[..., Server]]:
    """`server("app:app", "--threads", "2", workers=2)`: a ready server; every process is gone afterwards.

    `server.started` are all that were started, for tests that end them by force.
    """
    started: list[Server] = []

    def start(
        *arguments: str, workers: int = 1, ready: bool = True, env: dict[str, str] | None = None, **options
    ) -> Server:
        if workers > 1:
            arguments = (*arguments, "-w", str(workers))
        one = Server(arguments, env={**gates.env, **(env or {})}, **options)
        started.append(one)
        return one.wait_ready(workers) if ready else one

    start.started = started
    yield start
    leftovers = {one.pid: left for one in started if (left := one.reap())}
    assert not leftovers, f"processes left behind: {leftovers}\n" + "\n".join(one.log.text for one in started)


@pytest.fixture(params=["gevent", pytest.param("eventlet", marks=[pytest.mark.ours, pytest.mark.slow])])
def library(request: pytest.FixtureRequest) -> str:
    """Whose greenlets the requests are."""
    return request.param


@pytest.fixture
def green(request: pytest.FixtureRequest, library: str, server: Callable[..., Server]) -> Callable[..., Server]:
    """`green("--preload")`: requests are greenlets of `library`, with the `APP` of its file."""

    def start(*arguments, kind=library, app=request.module.APP, env=None, **options) -> Server:
        return server("-k", kind, *arguments, app, env={"GREEN": library, **(env or {})}, **options)

    return start
