"""Says which modules its process had when it was imported, and how many objects the collector passes over."""

import gc
import json
import os
import sys

BEFORE = sorted(sys.modules)
FROZEN = gc.get_freeze_count()
PATH = list(sys.path)


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "modules": BEFORE, "frozen": FROZEN, "path": PATH}).encode()]
