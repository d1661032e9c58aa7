"""What `--reload` needs of the interpreter: which files there are, and an application that shows what is wrong."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# Where a mistake may be mended in a file that nothing has imported yet.
DIRECTORIES_MAX = 50

# What source files looked like when they were imported: a file that is saved a moment later has changed, whenever it
# is looked at first.
_imported: dict[str, tuple[int, int] | None] = {}


def start() -> None:
    """From now on imports are noted, in this process."""
    path_stats = SourceFileLoader.path_stats

    def noted(self: SourceFileLoader, path: str) -> Any:
        _note(path)
        return path_stats(self, path)

    SourceFileLoader.path_stats = noted  # type: ignore[method-assign]


def _note(path: str) -> None:
    path = os.path.abspath(path)
    try:
        stat = os.stat(path)
    except OSError:
        return
    # Only the first time: from then on the watcher knows it.
    _imported.setdefault(path, (stat.st_mtime_ns, stat.st_size))


def modules() -> list[tuple[str, tuple[int, int] | None]]:
    """The source files of what has been imported, or failed to be, with their time and size then, if known."""
    files = dict(_imported)
    for module in list(sys.modules.values()):
        # `sys.modules` may hold any object, and reading an attribute may run any code.
        try:
            name = module.__file__
        except Exception:
            continue
        if isinstance(name, str) and name:
            files.setdefault(os.path.abspath(name[:-1] if name.endswith((".pyc", ".pyo")) else name), None)
    return sorted(files.items())


def matched(entries: list[str]) -> list[str]:
    """Plain files that exist, and what patterns match now."""
    files = set()
    for entry in entries:
        if glob.has_magic(entry):
            files.update(glob.glob(entry, recursive=True))
        elif os.path.exists(entry):
            files.add(entry)
    return sorted(files)


def unmatched(entries: list[str]) -> list[str]:
    """Patterns that match nothing now."""
    return [entry for entry in entries if glob.has_magic(entry) and not glob.glob(entry, recursive=True)]


def beside(traceback: str) -> list[str]:
    """Directories where the mistake in this traceback may be mended. The state of their code is recorded."""
    files = [line.split('"')[1] for line in traceback.splitlines() if line.lstrip().startswith('File "')]
    directories = {os.getcwd(), *(os.path.dirname(os.path.abspath(file)) for file in files if os.path.exists(file))}
    library = os.path.dirname(os.__file__)
    chosen = sorted(one for one in directories if not one.startswith(library))[:DIRECTORIES_MAX]
    for directory in chosen:
        for path in glob.glob(os.path.join(glob.escape(directory), "*.py")):
            _note(path)
    return chosen


class Broken:
    """The application while it cannot be loaded: every answer is the traceback."""

    def __init__(self, traceback: str) -> None:
        self.page = (traceback.rstrip() + "\n").encode("utf-8", "backslashreplace")

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(self.page)))]
        start_response("500 Internal Server Error", headers)
        return [self.page]
