"""What the hubs of `_gevent.py` and `_eventlet.py` have in common."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A greenlet that is killed at the end of its worker, and goes on, is left behind after this many seconds.
KILL_S = 1.0
# What `take` of the pool answers when nothing will come any more.
CLOSED = -2


def obstacle(library: str, oldest: tuple[int, ...]) -> str | None:
    """Why this interpreter cannot run `library`, in a line."""
    from importlib.metadata import PackageNotFoundError, version

    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "greenlets are not safe on a free-threaded interpreter: use --threads N"
    needs = f"it needs {library} {'.'.join(map(str, oldest))} or newer"
    advice = f"pip install 'ferricorn[{library}]'"
    try:
        found = version(library)
    except PackageNotFoundError:
        return f"{needs}, which is not installed: {advice}"
    numbers = [int(part) if part.isdigit() else 0 for part in found.split(".")[: len(oldest)]]
    if tuple(numbers) < oldest:
        return f"{needs}, and {found} is installed: {advice}"
    return None


def stack_of(greenlet: Any) -> str:
    import traceback

    return "".join(traceback.format_stack(greenlet.gr_frame)) if greenlet.gr_frame else "  (not begun)"
