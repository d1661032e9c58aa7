"""The short form of `benches/peers/events.py`: each event a time or two, with no request lost."""

from __future__ import annotations

import sys

import pytest

from harness import COMMAND, REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benches" / "peers"))

import events

pytestmark = pytest.mark.ours


@pytest.mark.parametrize("event", events.EVENTS, ids=lambda event: event.name)
def test_no_request_is_lost_by(event, gates):
    counters, count, _ = events.run(event, COMMAND, 600, gates.env)
    assert counters.answered >= 600
    if event.is_crash:
        # What the dead worker held: each client has one request under way.
        assert counters.failed == counters.refused == counters.wrong == 0, counters
        assert counters.reset <= 16 * count, counters
    else:
        assert counters.lost == 0, counters
