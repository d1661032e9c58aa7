"""Who the application is while it is imported, and what it leaves behind."""

import os

WHO = f"{os.getuid()} {os.getgid()} {sorted(os.getgroups())}"


def application(environ, start_response):
    body = WHO
    if environ["PATH_INFO"] == "/orphan":
        # Here, because the unprivileged user may not be able to read the interpreter's library.
        import subprocess

        # The shell leaves at once; the process that adopts its child has to reap it.
        body = subprocess.run(
            ["sh", "-c", "sleep 0.05 & echo $!"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
    body = body.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
