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
    tally, count, _ = events.run(event, COMMAND, 600, gates.env)
    assert tally.answered >= 600
    if event.is_crash:
        # What the dead worker held: each client has one request under way.
        assert tally.failed == tally.refused == tally.wrong == 0, tally
        assert tally.reset <= 16 * count, tally
    else:
        assert tally.lost == 0, tally
