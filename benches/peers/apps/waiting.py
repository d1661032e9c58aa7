"""Applications that wait: `io` always 10 ms; `mixed` works 1 ms, and sleeps 200 ms at /slow."""

import time

from hello import app as hello


def io(environ, start_response):
    time.sleep(0.01)
    return hello(environ, start_response)


def mixed(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.2)
    else:
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass
    return hello(environ, start_response)
