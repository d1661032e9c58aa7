"""Notes which process imports it."""

import os

import gate
from hello import app as application  # noqa: F401

gate.note("imported", os.getpid())
