"""A worker that was taken over: it writes what it likes into all memory that it shares with other processes."""

import contextlib
import ctypes
import os
import socket
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs

import gate


def shared_memory():
    """Start and size of every mapping that is shared, writable, and no file's."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            addresses, rights, _, _, _, *name = line.split()
            if rights.startswith("rw") and rights.endswith("s") and not "".join(name).startswith("/dev/shm"):
                start, end = (int(part, 16) for part in addresses.split("-"))
                yield start, end - start


def pattern(kind, size, victim):
    if kind == "victim":
        return int(victim).to_bytes(4, "little") * (size // 4)
    if kind == "zeros":
        return bytes(size)
    if kind == "ones":
        return b"\xff" * size
    if kind == "small":
        return (1).to_bytes(4, "little") * (size // 4)
    # No number in it is the pid of any process.
    return b"".join(os.urandom(3) + b"\x7f" for _ in range(size // 4))


def scribble(kind, victim, seconds):
    until = time.monotonic() + seconds
    places = [(start, size, pattern(kind, size, victim)) for start, size in shared_memory()]
    while time.monotonic() < until:
        for start, size, bytes_ in places:
            ctypes.CDLL(None).memcpy(ctypes.c_void_p(start), bytes_, ctypes.c_size_t(size))
        gate.reach("scribbled")
        time.sleep(0)


def is_channel(own):
    """Of the server's sockets, those that lead to other workers."""
    is_pair = own.family == socket.AF_UNIX and own.type == socket.SOCK_SEQPACKET
    return is_pair and not own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def break_channels(kind):
    """Into all channels between workers; returns how many there are."""
    count = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as own:
            if not is_channel(own):
                continue
            count += 1
            if kind == "shutdown":
                own.shutdown(socket.SHUT_RDWR)
                continue
            own.setblocking(False)
            # More than one holds.
            for _ in range(400):
                own.send(os.urandom(200))
    return count


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    if environ["PATH_INFO"] == "/scribble":
        arguments = (query["kind"], query.get("victim", 0), float(query["seconds"]))
        threading.Thread(target=scribble, args=arguments, daemon=True).start()
    body = str(os.getpid()).encode()
    if environ["PATH_INFO"] == "/break":
        body = str(break_channels(query["kind"])).encode()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.1)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
