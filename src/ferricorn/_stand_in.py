"""`import gunicorn` where gunicorn is not installed: the stand-in modules of `ferricorn._gunicorn`.

Configuration files and applications name gunicorn's modules. Our finder is the last one asked, so an installed gunicorn
always wins, and code that tests for it (`find_spec`) sees one answer throughout.
"""

import importlib
import importlib.machinery
import importlib.util
import sys

_NAME = "gunicorn"
_OURS = "ferricorn._gunicorn"


class _Finder:
    """Finds `gunicorn` and its submodules among ours. The same module object serves under both names."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != _NAME and not name.startswith(_NAME + "."):
            return None
        if name != _NAME and getattr(sys.modules.get(_NAME), "__file__", None) != _file():
            # A submodule that the installed gunicorn does not have.
            return None
        ours = _OURS + name[len(_NAME) :]
        try:
            found = importlib.util.find_spec(ours)
        except ImportError:
            return None
        if found is None:
            return None
        spec = importlib.machinery.ModuleSpec(
            name, _Loader(ours), origin=found.origin, is_package=found.submodule_search_locations is not None
        )
        spec.has_location = True
        return spec


class _Loader:
    def __init__(self, ours):
        self.ours = ours

    def create_module(self, spec):
        module = importlib.import_module(self.ours)
        self.spec = module.__spec__
        return module

    def exec_module(self, module):
        # The import system has just written the other name's spec over it.
        module.__spec__ = self.spec

    def get_code(self, name):
        """For `python -m`."""
        return importlib.util.find_spec(self.ours).loader.get_code(self.ours)


def _file():
    return importlib.util.find_spec(_OURS).origin


def install():
    """Once per process; later calls change nothing."""
    if not any(finder is _Finder for finder in sys.meta_path):
        sys.meta_path.append(_Finder)
