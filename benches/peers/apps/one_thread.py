"""Starts bjoern or fastwsgi, which have no command line: `one_thread.py SERVER PORT module:app`."""

import importlib
import sys

server, port, target = sys.argv[1:4]
module, _, name = target.partition(":")
application = getattr(importlib.import_module(module), name)
importlib.import_module(server).run(application, "127.0.0.1", int(port))
