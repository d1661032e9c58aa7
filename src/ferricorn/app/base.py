"""`from ferricorn.app.base import BaseApplication`: gunicorn's classes for programs that start the server."""

from ferricorn._gunicorn.app.base import Application, BaseApplication

__all__ = ["Application", "BaseApplication"]
