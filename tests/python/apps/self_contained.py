"""Has imported what a worker needs, for workers whose user may not read the interpreter's library."""

import ast
import faulthandler
import inspect
import signal
import threading
import traceback

from hello import app

__all__ = ["app", "ast", "faulthandler", "inspect", "signal", "threading", "traceback"]
