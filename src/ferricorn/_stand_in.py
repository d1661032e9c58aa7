"""`import gunicorn` where gunicorn is not installed: the stand-in modules of `ferricorn._gunicorn`.

Configuration files and applications name gunicorn's modules. Our finder is the last one asked for `gunicorn`, so an
installed gunicorn always wins, and code that tests for it (`find_spec`) sees one answer throughout. With the alias
(`alias.py`) it is the first one asked: programs that bring gunicorn along get ferricorn, whatever pip installs later.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

# With the alias, every start of the interpreter comes here: what a look-up needs is imported by it.

_NAME = "gunicorn"
_OURS = "ferricorn._gunicorn"


class _Top:
    """Finds `gunicorn` when no other finder has. The same module object serves under both names."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return _spec(name, _OURS) if name == _NAME else None


class _Inner:
    """Finds its submodules, before the import system looks into our folder and loads a second copy of each."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(_NAME + ".") or sys.modules.get(_NAME) is not sys.modules.get(_OURS):
            return None
        return _spec(name, _OURS + name[len(_NAME) :])


def _spec(name: str, ours: str) -> ModuleSpec | None:
    import importlib.machinery
    import importlib.util

    try:
        found = importlib.util.find_spec(ours)
    except ImportError:
        return None
    if found is None:
        return None
    is_package = found.submodule_search_locations is not None
    loader: Any = _Loader(ours)
    spec = importlib.machinery.ModuleSpec(name, loader, origin=found.origin, is_package=is_package)
    spec.has_location = True
    return spec


class _Loader:
    def __init__(self, ours: str) -> None:
        self.ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        import importlib

        module = importlib.import_module(self.ours)
        self.name, self.spec = spec.name, module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the other name's spec over it.
        module.__spec__ = self.spec
        # What waits for gunicorn's modules, as agents do, looks at their names.
        module.__name__ = self.name

    def get_code(self, name: str) -> CodeType | None:
        """For `python -m`."""
        import importlib.util

        found: Any = importlib.util.find_spec(self.ours)
        code: CodeType | None = found.loader.get_code(self.ours)
        return code


def install() -> None:
    """Once per process; later calls change nothing."""
    if _Top not in sys.meta_path:
        place = _before_folders()
        sys.meta_path.insert(place, _Inner)
        sys.meta_path.append(_Top)


def install_alias() -> None:
    """What the alias's file calls in each interpreter: ours is found before an installed gunicorn."""
    import os

    if os.environ.get("FERRICORN_AS_GUNICORN") != "0" and _Top not in sys.meta_path:
        place = _before_folders()
        sys.meta_path[place:place] = [_Inner, _Top]


def notice() -> str | None:
    """What the log says first when an installed gunicorn was asked for and this server runs."""
    ours = sys.modules.get(_OURS)
    if ours is None or sys.modules.get(_NAME) is not ours:
        return None
    import importlib.metadata

    try:
        version = importlib.metadata.version(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return None
    return (
        f"This is ferricorn, in place of the installed gunicorn {version} "
        "(undone by: python -m ferricorn.alias --remove; for one process: FERRICORN_AS_GUNICORN=0)"
    )


def _before_folders() -> int:
    """Before the finders that look into folders, and after those that watch imports."""
    from importlib.machinery import PathFinder

    return sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0
