"""Children that an application under gevent forks: the hub goes on in them, and the server does not."""

from __future__ import annotations

import importlib.util

import pytest

from harness import wait_until

pytestmark = [
    pytest.mark.ours,
    pytest.mark.skipif(not importlib.util.find_spec("gevent"), reason="gevent is not installed"),
]

APP = "forking_greenlets:app"


@pytest.fixture(params=[(), ("--preload",)], ids=["plain", "preload"])
def one(server, request):
    one = server(APP, "-k", "gevent", *request.param)
    yield one
    assert one.get("/pid").text == str(one.booted()[0]), "its worker has served all of it"
    assert one.stop() == 0


@pytest.mark.parametrize(("view", "code"), [("sleeping", 7), ("process", 0), ("returning", 0), ("raising", 5)])
def test_a_child_that_sleeps_goes_on_to_its_end(one, gates, view, code):
    assert one.get(f"/{view}").text == str(code)
    if view in ("sleeping", "process"):
        assert gates.notes("child") == ["done"]


@pytest.mark.parametrize(("view", "code"), [("brief", 0), ("brief_fork", 7), ("brief_terminal", 7)])
def test_the_end_of_a_first_child_is_seen_although_it_comes_before_the_fork_is_back(one, view, code):
    assert one.get(f"/{view}").text == str(code)


def test_a_child_in_a_terminal_of_its_own_goes_on(one):
    assert one.get("/terminal").text == "from the child"


def test_a_daemon_lives_on(one, gates):
    assert one.get("/daemon").text == "started"
    assert gates.wait_notes("child") == ["done"]
    gates.wait_notes("parent")


def test_a_child_of_a_greenlet_that_the_application_has_started_ends_with_it(one):
    assert one.get("/spawned").text == "0"


def test_a_request_that_a_fork_has_copied_is_answered_once_and_does_not_end_the_child(one, gates):
    """The copy of a greenlet wakes up in the child as well, before the child is done."""
    with one.connect() as other:
        other.send_request("GET", "/beside?seconds=0.2")
        gates.wait_reached("beside")
        assert one.get("/sleeping").text == "7"
        assert gates.notes("child") == ["done"]
        assert other.read_response().text == str(one.booted()[0])
        assert other.has_nothing_to_read()
    wait_until(lambda: str(one.booted()[0]) in gates.notes("beside"), "the original has run")


def test_a_child_starts_no_request(one, gates):
    """Requests arrive while it lives."""
    with one.connect() as client:
        client.send_request("GET", "/sleeping")
        gates.wait_notes("pid")
        for _ in range(50):
            assert one.get("/pid").text == str(one.booted()[0])
        assert client.read_response().text == "7"
