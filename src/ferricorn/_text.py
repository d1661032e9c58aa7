"""Values as a terminal shows them."""

from __future__ import annotations


def printable(value: object) -> str:
    """Text that cannot move the cursor: paths and names are other people's."""
    text = "-" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
    return f"{seconds // 86400}d{seconds % 86400 // 3600:02}h"


def size(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, bytes_of_unit in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if count >= bytes_of_unit:
            return f"{count / bytes_of_unit:.1f}{unit}"
    return str(count)
