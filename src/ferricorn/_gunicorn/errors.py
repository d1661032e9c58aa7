"""`gunicorn.errors`."""

from __future__ import annotations


class HaltServer(BaseException):
    """Ends the server; not an `Exception`, so that applications do not catch it by accident."""

    def __init__(self, reason: str, exit_status: int = 1) -> None:
        super().__init__(reason, exit_status)
        self.reason = reason
        self.exit_status = exit_status

    def __str__(self) -> str:
        return f"<HaltServer {self.reason!r} {self.exit_status}>"


class ConfigError(Exception):
    """The configuration cannot be used."""


class AppImportError(Exception):
    """There is no such application."""


class NotWSGIError(AppImportError):
    """There is one, but it is of another kind than WSGI's."""
