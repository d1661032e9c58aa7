"""A client of short connections: `handshakes.py full|resumed PORT AUTHORITY SECONDS`. Prints requests, how many were
resumed, and errors.

A process of its own, so that it has a core of its own. wrk resumes sessions where it can: it shows no full handshakes.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time


def main() -> None:
    is_resuming, port, authority, seconds = sys.argv[1] == "resumed", int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
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
                # The first one has nothing to resume.
                resumed += is_resuming and (client.session_reused or session is None)
                # A ticket of TLS 1.3 comes with the answer.
                session = client.session if is_resuming else None
            requests += 1
        except OSError:
            errors += 1
    print(requests, resumed, errors)


main()
