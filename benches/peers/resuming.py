"""A client that resumes: `resuming.py PORT AUTHORITY SECONDS`. Prints requests, how many were resumed, and errors.

A process of its own, so that it has a core of its own.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time


def main() -> None:
    port, authority, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    session, requests, resumed, errors = None, 0, 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            plain = socket.create_connection(("127.0.0.1", port), 10)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                while client.recv(65536):
                    pass
                resumed += client.session_reused or session is None
                # A ticket of TLS 1.3 comes with the answer.
                session = client.session
            requests += 1
        except OSError:
            errors += 1
    print(requests, resumed, errors)


main()
