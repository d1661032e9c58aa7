"""`from ferricorn.glogging import Logger`: what a `logger_class` extends, whether gunicorn is installed or not."""

from ferricorn._gunicorn.glogging import CONFIG_DEFAULTS, Logger, SafeAtoms

__all__ = ["CONFIG_DEFAULTS", "Logger", "SafeAtoms"]
