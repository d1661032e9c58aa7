"""An application that takes as long to import as the test wants."""

import gate

gate.wait("import")


def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []
