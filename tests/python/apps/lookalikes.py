"""Objects that look like files to `wsgi.file_wrapper`, over the file that the query names."""

import io
import os
import tempfile
import threading
from urllib.parse import parse_qs

import gate


class Stored:
    """A file of the application's own class: it has the three methods, and is no `io.FileIO`."""

    def __init__(self, path):
        self.file = open(path, "r+b")  # noqa: SIM115

    def fileno(self):
        return self.file.fileno()

    def read(self, size=-1):
        return self.file.read(size)

    def tell(self):
        return self.file.tell()

    def close(self):
        gate.note("closed", threading.current_thread().name)
        self.file.close()


class Wiped(Stored):
    """Nothing of its content is left when it is closed, as of an upload that was decrypted to a file."""

    def close(self):
        size = os.fstat(self.file.fileno()).st_size
        self.file.truncate(0)
        self.file.truncate(size)
        super().close()


class Truncated(Stored):
    def close(self):
        self.file.truncate(0)
        super().close()


class Reused(Stored):
    """The bytes of another response are in the file once it is closed, as when a pool lends the next buffer."""

    def close(self):
        size = os.fstat(self.file.fileno()).st_size
        self.file.seek(0)
        self.file.write(b"?" * size)
        super().close()


class Delegating:
    """Hands on what it does not have itself; `read` is its own."""

    def __init__(self, path):
        self.file = open(path, "rb")  # noqa: SIM115

    def __getattr__(self, name):
        return getattr(self.file, name)

    def read(self, size=-1):
        return self.file.read(size).swapcase()

    def close(self):
        gate.note("closed", threading.current_thread().name)
        self.file.close()


class Derived(io.FileIO):
    def read(self, size=-1):
        return super().read(size).swapcase()


class DerivedBuffered(io.BufferedReader):
    def read(self, size=-1):
        return super().read(size).swapcase()


class BadClose(Stored):
    def close(self):
        super().close()
        raise RuntimeError("close broke")


class BadRead(Stored):
    def read(self, size=-1):
        if self.file.tell():
            raise RuntimeError("read broke")
        return self.file.read(size)


class NoFileno(Stored):
    def fileno(self):
        raise io.UnsupportedOperation("fileno")


class WrongFileno(Stored):
    """Says the number of a descriptor that is not its own: standard input."""

    def fileno(self):
        return 0


class OddFileno(Stored):
    def fileno(self):
        return "seven"


class WrongTell(Stored):
    def tell(self):
        return 1 << 62


class Sized(Stored):
    def read(self, size=-1):
        gate.note("sizes", size)
        return super().read(size)


class Text(Stored):
    def read(self, size=-1):
        return super().read(size).decode("latin-1")


class OnlyRead:
    def __init__(self, path):
        self.file = open(path, "rb")  # noqa: SIM115

    def read(self, size):
        return self.file.read(size)


def patched(path):
    """A real file whose instance has other methods than its class."""
    file = open(path, "rb")  # noqa: SIM115
    read, close = file.read, file.close

    def noted():
        gate.note("closed", threading.current_thread().name)
        close()

    file.read = lambda size=-1: read(size).swapcase()
    file.close = noted
    return file


def closing(path):
    """A real file of which only `close` is the instance's own."""
    file = open(path, "rb")  # noqa: SIM115
    close = file.close

    def noted():
        gate.note("closed", threading.current_thread().name)
        close()

    file.close = noted
    return file


def plain(path):
    return open(path, "rb")


def temporary(path):
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    with open(path, "rb") as source:
        file.write(source.read())
    file.seek(0)
    return file


def spooled(path):
    file = tempfile.SpooledTemporaryFile(max_size=1000)  # noqa: SIM115
    with open(path, "rb") as source:
        file.write(source.read())
    file.seek(0)
    return file


def closed(path):
    file = open(path, "rb")  # noqa: SIM115
    file.close()
    return file


KINDS = {
    "write_only": lambda path: io.FileIO(os.open(path, os.O_WRONLY), "w"),
    "write_only_buffered": lambda path: open(path, "ab"),  # noqa: SIM115
    "closed": closed,
    "Buffered": lambda path: DerivedBuffered(io.FileIO(path)),
    "patched": patched,
    "closing": closing,
    "plain": plain,
    "temporary": temporary,
    "spooled": spooled,
    **{
        one.__name__: one
        for one in (
            Stored, Wiped, Truncated, Reused, Delegating, Derived, BadClose, BadRead, NoFileno, WrongFileno,
            OddFileno, WrongTell, Sized, OnlyRead, Text,
        )
    },
}  # fmt: skip


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    if environ["PATH_INFO"] != "/file":
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    body = KINDS[query["kind"]](query["path"])
    headers = [("Content-Type", "application/octet-stream")]
    if "length" in query:
        headers.append(("Content-Length", query["length"]))
    start_response(query.get("status", "200 OK"), headers)
    gate.note("thread", threading.current_thread().name)
    wrapped = environ["wsgi.file_wrapper"](body, int(query.get("block", 8192)))
    if "middleware" in query:
        return middleware(wrapped)
    return wrapped


def middleware(wrapped):
    try:
        yield from wrapped
    finally:
        wrapped.close()
