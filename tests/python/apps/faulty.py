"""Applications that break the rules of PEP 3333 or just break, one per path."""

import sys
from urllib.parse import parse_qs

import gate
from hello import app as well_behaved

TEXT = [("Content-Type", "text/plain")]


def raises(environ, start_response):
    raise ValueError("application is broken")


def raises_after_start(environ, start_response):
    start_response("200 OK", list(TEXT))
    raise ValueError("application is broken")


def generator_raises_first(environ, start_response):
    start_response("200 OK", list(TEXT))
    raise ValueError("application is broken")
    yield b"never"


def never_starts(environ, start_response):
    return [b"body without head"]


def returns_none(environ, start_response):
    start_response("200 OK", list(TEXT))


def text_items(environ, start_response):
    start_response("200 OK", list(TEXT))
    return ["text, not bytes"]


def starts_twice(environ, start_response):
    start_response("200 OK", list(TEXT))
    start_response("201 Created", list(TEXT))
    return [b"twice"]


def status_is_a_number(environ, start_response):
    start_response(200, list(TEXT))
    return [b"x"]


def status_without_code(environ, start_response):
    start_response("OK", list(TEXT))
    return [b"x"]


def status_splits(environ, start_response):
    start_response("200 OK\r\nX-Injected: 1", list(TEXT))
    return [b"x"]


def header_value_splits(environ, start_response):
    start_response("200 OK", [*TEXT, ("X-Bad", "a\r\nX-Injected: 1")])
    return [b"x"]


def header_name_splits(environ, start_response):
    start_response("200 OK", [*TEXT, ("X-Bad\r\nX-Injected", "1")])
    return [b"x"]


def header_name_with_space(environ, start_response):
    start_response("200 OK", [*TEXT, ("X Bad", "1")])
    return [b"x"]


def header_value_is_a_number(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", 1)])
    return [b"x"]


def header_value_is_beyond_latin1(environ, start_response):
    start_response("200 OK", [*TEXT, ("X-Bad", "\u20ac")])
    return [b"x"]


def header_is_hop_by_hop(environ, start_response):
    start_response("200 OK", [*TEXT, ("Transfer-Encoding", "chunked")])
    return [b"x"]


def recursion(environ, start_response):
    def deeper():
        return deeper()

    return deeper()


def recursion_through_c(environ, start_response):
    def deeper(_):
        return sorted([1, 2], key=deeper)

    return deeper(None)


def recursion_through_slots(environ, start_response):
    class Deep:
        def __getattr__(self, name):
            return getattr(self, name + "x")

        def __repr__(self):
            return repr([self])

    try:
        Deep().x  # noqa: B018
    except RecursionError:
        repr(Deep())


def deep_garbage(environ, start_response):
    """Freeing a long chain of objects recurses in C."""
    chain = None
    for _ in range(200_000):
        chain = (chain,)
    del chain
    raise ValueError("application is broken")


def fails_later(environ, start_response):
    start_response("200 OK", list(TEXT))
    yield b"first"
    raise ValueError("application is broken")


def leaves(environ, start_response):
    sys.exit("an application must not leave")


def exc_info(environ, start_response):
    """The error handler pattern of PEP 3333, before and after the head has gone out."""
    when = parse_qs(environ["QUERY_STRING"])["when"][0]
    write = start_response("200 OK", [*TEXT, ("X-From", "first")])
    try:
        if when == "after":
            write(b"head is out")
        raise ValueError("handled by the application")
    except ValueError:
        try:
            start_response("503 Sorry", [*TEXT, ("X-From", "handler")], sys.exc_info())
        except ValueError as error:
            gate.note("reraised", error)
            raise
    return [b"sorry"]


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    chosen = globals().get(name) if name else None
    return (chosen or well_behaved)(environ, start_response)
