"""ferricorn: a WSGI HTTP server for UNIX."""

__all__ = ["RequestTimeout", "__version__", "run"]

# Not from `typing`: what a look-up of a stand-in module does not need is not imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ferricorn._core import RequestTimeout, __version__, run


def __getattr__(name: str) -> object:
    # Late, so that looking for a stand-in module does not load the whole server.
    if name in __all__:
        from ferricorn import _core

        return getattr(_core, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
