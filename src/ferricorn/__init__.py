"""ferricorn: a WSGI HTTP server for UNIX."""

from ferricorn._core import RequestTimeout, __version__, run

__all__ = ["RequestTimeout", "__version__", "run"]
