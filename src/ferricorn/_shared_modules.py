"""What the arbiter imports for its workers: they share pages from before the fork until one writes to them.

These are modules of the standard library that the frameworks import at once, and all are among those that gunicorn's
arbiter has imported when it forks. So an application's file of the same name is found, or not, as under gunicorn.
"""

from __future__ import annotations

import contextlib
import os
import sys

# Each brings others along. With Flask they are 2.8 MB for each worker.
MODULES = (
    "ast base64 calendar copy csv datetime email.encoders email.message email.utils gettext html importlib.metadata"
    " importlib.resources inspect ipaddress json logging pickle platform quopri random shutil socketserver ssl"
    " tempfile threading typing urllib.parse zipfile"
).split()


def load() -> None:
    """Before the first fork. A thread that the configuration has started may be importing: then nothing is done."""
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        return
    import gc

    path = sys.path
    # The application's directory is on the path by now, and what is in it is for the workers.
    sys.path = _standard(path)
    try:
        for name in MODULES:
            # A Python that was built without ssl, say.
            with contextlib.suppress(ImportError):
                __import__(name)
    finally:
        sys.path = path
    gc.collect()
    # The collector writes to what it looks at.
    gc.freeze()


def _standard(path: list[str]) -> list[str]:
    library = os.path.dirname(os.__file__)
    return [
        entry for entry in path if entry == library or os.path.dirname(entry) == library and "-packages" not in entry
    ]
