"""Server-sent events: the next one is sent when the test says so."""

import gate


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    for number in range(4):
        yield b"data: %d\n\n" % number
        gate.wait(f"event-{number}")
