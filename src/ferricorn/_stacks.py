"""What every thread of this process is doing, as JSON: a worker's answer to `ferricornc -c "stack PID"`."""

import json
import os
import sys
import threading
import traceback

# The innermost calls are enough to recognise a deep recursion.
FRAMES_MAX = 200


def as_json() -> str:
    """The threads that run Python code, except the calling one. Calls are listed outermost first."""
    known = {thread.ident: thread for thread in threading.enumerate()}
    threads = []
    for ident, frame in sys._current_frames().items():
        if ident == threading.get_ident():
            continue
        thread = known.get(ident)
        # In a forked process Python remembers the native id that the main thread had in the parent.
        is_main = thread is threading.main_thread()
        summary = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=FRAMES_MAX)
        threads.append(
            {
                "name": thread.name if thread else "unknown",
                "ident": ident,
                "native_id": os.getpid() if is_main else thread.native_id if thread else None,
                "daemon": thread.daemon if thread else None,
                "frames": [
                    {"file": one.filename, "line": one.lineno, "function": one.name, "code": one.line}
                    for one in reversed(summary)
                ],
            }
        )
    threads.sort(key=lambda one: (one["name"] != "MainThread", one["name"]))
    return json.dumps(threads)
