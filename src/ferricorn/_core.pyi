"""What the server's Rust offers to the Python side of the package (`src/launcher/api.rs`)."""

from collections.abc import Callable
from typing import Any, TypedDict

__all__ = [
    "RequestTimeout",
    "__version__",
    "advice",
    "check_setting",
    "deliver_signal",
    "is_forked_child",
    "load_app",
    "loggers_changed",
    "memory_left",
    "reopen_logs",
    "reset_signal_handlers",
    "run",
    "serve",
    "settings",
    "write_access_log",
    "write_error_log",
    "write_metric",
    "write_record",
]

class _Row(TypedDict):
    """A row of the table of settings."""

    name: str
    section: str
    flags: list[str]
    kind: str
    const: str | None
    doc: str
    default: Any

__version__: str

class RequestTimeout(BaseException):
    """Raised in the thread of a request that runs longer than `request_timeout`."""

def run(argv: list[str]) -> int: ...
def serve(application: Any) -> int: ...
def settings() -> list[_Row]: ...
def advice(load: Any) -> str: ...
def memory_left(pid: int) -> int | None: ...
def check_setting(name: str, value: Any) -> Any: ...
def deliver_signal(number: int) -> bool: ...
def load_app(uri: str) -> Callable[..., Any]: ...
def loggers_changed(access: bool, error: bool, patched: bool, level: int) -> None: ...
def write_record(level: int, text: str) -> None: ...
def write_metric(mtype: str, metric: str, value: str) -> None: ...
def write_error_log(text: str) -> int: ...
def write_access_log(text: str) -> int: ...
def reopen_logs() -> None: ...
def is_forked_child() -> bool: ...
def reset_signal_handlers() -> None: ...
