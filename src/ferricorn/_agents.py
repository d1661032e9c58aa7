"""Loads the application where monitoring agents wrap gunicorn.

An agent asks to be called when `gunicorn.app.base` is imported, and then wraps `Application.wsgi` there. The server has
classes of its own under that name, so for such an agent the module is imported, and what it made of the method is used.
"""

from __future__ import annotations

import importlib
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# New Relic's `newrelic.hooks.adapter_gunicorn`. Elastic, OpenTelemetry, Scout, AppSignal, Instana and Sentry wrap the
# frameworks, or the application that they are given, and nothing of gunicorn's.
AGENTS = ("newrelic",)


def wsgi(app: Any) -> Any:
    """What `app.wsgi()` returns, wrapped by agents."""
    if any(agent in sys.modules for agent in AGENTS):
        from ferricorn._gunicorn.app import base

        try:
            named = importlib.import_module("gunicorn.app.base")
        except ImportError:
            return app.wsgi()
        method = named.Application.wsgi
        if named is not base and type(method) is not types.FunctionType:
            # gunicorn is installed too, and the agent has wrapped its class. (A wrapper claims to be a function.)
            return method(app)
    return app.wsgi()
