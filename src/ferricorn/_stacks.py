"""What threads and greenlets of this process are doing, as JSON: a worker's answer to `ferricornc -c "stack PID"`."""

from __future__ import annotations

import gc
import json
import linecache
import os
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    Call = tuple[str, int, str]

# The innermost calls are enough to recognise a deep recursion.
FRAMES_MAX = 200
# Thousands of greenlets wait in few places. The oldest requests come first.
GREENLETS_MAX = 100
# A greenlet is looked at again so often when it has begun or ceased to run meanwhile.
SWITCHES_MAX = 10


def as_json() -> str:
    """Threads that run Python code, but for the calling one, then greenlets. Outermost calls come first."""
    # As it is: `enumerate` waits for a lock, which is the hub's where greenlets are patched in.
    known = dict(threading._active)  # type: ignore[attr-defined]
    library = _library()
    main = getattr(library, "main_thread_number", None) or threading.main_thread().ident
    threads: list[dict[str, Any]] = []
    for ident, frame in sys._current_frames().items():
        if ident == _own_number(library):
            continue
        # In a forked process Python remembers the native id that the main thread had in the parent.
        is_main = ident == main
        thread = threading.main_thread() if is_main else known.get(ident)
        threads.append(
            {
                "name": thread.name if thread else "unknown",
                "ident": ident,
                "native_id": os.getpid() if is_main else thread.native_id if thread else None,
                "daemon": thread.daemon if thread else None,
                "frames": _calls(frame),
            }
        )
    threads.sort(key=lambda one: (one["name"] != "MainThread", one["name"]))
    threads += _greenlets(library, main) if library else []
    for one in threads:
        one["frames"] = [
            {"file": file, "line": line, "function": function, "code": linecache.getline(file, line).strip() or None}
            for file, line, function in one["frames"]
        ]
    return json.dumps(threads)


def _library() -> Any:
    """The module of the library whose greenlets the requests are, if they are greenlets."""
    return sys.modules.get("ferricorn._gevent") or sys.modules.get("ferricorn._eventlet")


def _own_number(library: Any) -> int:
    return int(library.thread_number()) if library else threading.get_ident()


def _calls(frame: FrameType | None) -> list[Call]:
    """Without a look into the files, which would let others run: a greenlet's calls are read while it waits."""
    calls: list[Call] = []
    while frame is not None and len(calls) < FRAMES_MAX:
        calls.append((frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name))
        frame = frame.f_back
    return calls[::-1]


def _greenlet_calls(one: Any, main: int | None) -> list[Call]:
    """The calls of one that runs at this moment are the main thread's. It may begin to wait, or go on, in between."""
    from greenlet import greenlet

    for _ in range(SWITCHES_MAX):
        if calls := _calls(one.gr_frame):
            return calls
        if not greenlet.__bool__(one):
            return []
        calls = _calls(sys._current_frames().get(main or 0))
        if one.gr_frame is None:
            return calls
    return []


def _greenlets(library: Any, main: int | None) -> list[dict[str, Any]]:
    """Those that have begun: of requests, by the number of their place, then those of the application."""
    from greenlet import greenlet

    requests = list(library.running.items())
    named = [(f"greenlet {index}", one) for index, one in requests]
    of_requests = {id(one) for _, one in requests}
    for one in gc.get_objects():
        if isinstance(one, greenlet) and id(one) not in of_requests and one.parent is not None:
            named.append((f"greenlet of the application ({getattr(one, 'name', None) or type(one).__name__})", one))
    begun = [(name, calls) for name, one in named if (calls := _greenlet_calls(one, main))]
    made = [
        {"name": name, "ident": None, "native_id": None, "daemon": None, "frames": calls}
        for name, calls in begun[:GREENLETS_MAX]
    ]
    if len(begun) > GREENLETS_MAX:
        further = f"{len(begun) - GREENLETS_MAX} further greenlets"
        made.append({"name": further, "ident": None, "native_id": None, "daemon": None, "frames": []})
    return made
