"""/sleep waits for a second, /burn computes for one, /keep has the GIL in C for 100 ms; anything else is a hello."""

import ctypes
import time

from hello import app as hello

# Unlike `CDLL`, it does not release the GIL around a call.
C = ctypes.PyDLL(None)


def app(environ, start_response):
    match environ["PATH_INFO"]:
        case "/sleep":
            time.sleep(1)
        case "/burn":
            end = time.thread_time() + 1
            while time.thread_time() < end:
                pass
        case "/keep":
            C.usleep(100_000)
    return hello(environ, start_response)
