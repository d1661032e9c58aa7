"""ferricorn: a WSGI HTTP server for UNIX."""

from ferricorn._core import __version__, run

__all__ = ["__version__", "run"]
