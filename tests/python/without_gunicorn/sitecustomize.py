"""On PYTHONPATH it makes this interpreter one where gunicorn is not installed; with ALIAS set, one with our alias."""

import importlib.machinery
import importlib.metadata
import os

find_spec = importlib.machinery.PathFinder.find_spec
find_distribution = importlib.metadata.distribution


def without(name, path=None, target=None):
    return None if name == "gunicorn" else find_spec(name, path, target)


def distribution(name):
    if name == "gunicorn":
        raise importlib.metadata.PackageNotFoundError(name)
    return find_distribution(name)


importlib.machinery.PathFinder.find_spec = without
importlib.metadata.distribution = distribution

if os.environ.get("ALIAS"):
    import ferricorn._stand_in

    ferricorn._stand_in.install()
