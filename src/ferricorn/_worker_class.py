"""A `worker_class` of the operator's own: what it may override, and the base that the server has in gunicorn's place.

Called in the arbiter, while the settings are read.
"""

from __future__ import annotations

import importlib
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# The classes that may be derived from, and the module that has each here.
BASES = {
    "SyncWorker": "sync",
    "ThreadWorker": "gthread",
    "GeventWorker": "ggevent",
    "GeventPyWSGIWorker": "ggevent",
    "EventletWorker": "geventlet",
}
PACKAGES = ("gunicorn.workers.", "ferricorn._gunicorn.workers.")

REQUESTS = "request_timeout, or the pre_request and post_request hooks"
# Methods that gunicorn calls and this server does not, and what is called instead.
INSTEAD = {
    "handle": REQUESTS,
    "handle_request": REQUESTS,
    "run": "the post_worker_init and worker_exit hooks",
    "notify": "a thread that the post_worker_init hook starts",
    "handle_quit": "the worker_int hook",
    "handle_exit": "the worker_exit hook",
    "handle_abort": "the worker_abort hook",
    "handle_usr1": "signal.signal in the post_worker_init hook",
    "handle_winch": "signal.signal in the post_worker_init hook",
    "init_signals": "signal.signal in the post_worker_init hook",
    "get_thread_pool": "the threads setting",
    "murder_keepalived": "the keepalive setting",
    "timeout_ctx": "the keepalive setting",
    **dict.fromkeys(
        "accept changed check_config enqueue_req finish_request handle_error handle_http1 handle_http2 "
        "is_already_handled is_parent_alive murder_pending on_client_socket_readable on_pending_socket_readable "
        "run_for_multiple run_for_one server_class set_accept_enabled spawn wait wait_for_and_dispatch_events "
        "wsgi_handler".split(),
        "the settings of docs/settings.md",
    ),
}


def resolve(name: str, kept: object, path: Iterable[str]) -> tuple[str, type] | None:
    """The class and the name of what it is derived from; `None` if it is derived from none of the `BASES`.

    `kept` is the object in the configuration file, `path` where the application is imported from.
    """
    kind = kept if isinstance(kept, type) and str(kept) == name else _loaded(name, path)
    if not isinstance(kind, type):
        return None
    base = next((one for one in kind.__mro__ if _known(one)), None)
    if base is None or base is kind:
        return None
    for one in kind.__mro__[: kind.__mro__.index(base)]:
        for method in vars(one):
            if method in INSTEAD:
                raise RuntimeError(
                    f"worker_class = {kind.__module__}.{kind.__qualname__}: ferricorn does not call {method}, "
                    f"which {one.__name__} overrides: use {INSTEAD[method]}"
                )
        _derive_anew(one)
    module = BASES[base.__name__]
    return f"gunicorn.workers.{module}.{base.__name__}", kind


def _known(kind: type) -> bool:
    module = BASES.get(kind.__name__)
    return module is not None and kind.__module__ in [package + module for package in PACKAGES]


def _derive_anew(kind: type) -> None:
    """gunicorn's own class serves by itself: `super().init_process()` would not return."""
    kind.__bases__ = tuple(_ours(base) if _known(base) else base for base in kind.__bases__)


def _ours(kind: type) -> type:
    module = importlib.import_module(PACKAGES[1] + BASES[kind.__name__])
    ours: type = getattr(module, kind.__name__)
    return ours


def _loaded(name: str, path: Iterable[str]) -> object:
    module, _, attribute = name.rpartition(".")
    if not module or not name.replace(".", "").isidentifier():
        return None
    before = list(sys.path)
    sys.path[:0] = path
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        # A module that its own module lacks is the operator's to know.
        if error.name is not None and (module + ".").startswith(error.name + "."):
            return None
        raise RuntimeError(f"worker_class = {name}: {error}") from None
    finally:
        sys.path[:] = before
