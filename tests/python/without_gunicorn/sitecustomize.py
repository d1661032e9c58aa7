"""On PYTHONPATH it makes this interpreter one where gunicorn is not installed."""

import importlib.machinery
import importlib.metadata

find_spec = importlib.machinery.PathFinder.find_spec
entry_points = importlib.metadata.distribution


def without(name, path=None, target=None):
    return None if name == "gunicorn" else find_spec(name, path, target)


def distribution(name):
    if name == "gunicorn":
        raise importlib.metadata.PackageNotFoundError(name)
    return entry_points(name)


importlib.machinery.PathFinder.find_spec = without
importlib.metadata.distribution = distribution
