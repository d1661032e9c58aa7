"""Greenlets that switch at random at every call from the server into the application, its hooks and its logger.

docs/gevent.md lists the calls. What may go wrong is an answer, a body, a log line or a hook of another request.
"""

from __future__ import annotations

import re
import threading

import pytest

pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 20, 24
CONF = """
request_buffering = False
access_log_format = "line %({made}e)s %(s)s"
accesslog = "-"

def pre_request(worker, req):
    import gate, switching
    switching.switch()
    gate.note("pre", req.query)

def post_request(worker, req, environ, resp):
    import gate, switching
    switching.switch()
    gate.note("post", req.query)
"""
LOGGER = """
from gunicorn.glogging import Logger

class logger_class(Logger):
    def access(self, *arguments):
        import switching
        switching.switch()
        super().access(*arguments)

    def error(self, *arguments, **named):
        import sys
        if "switching" in sys.modules:
            sys.modules["switching"].switch()
        super().error(*arguments, **named)
"""


def talk(one, first: int, failures: list[str]) -> None:
    """Requests on one connection, while it lasts; each answer is that of its request."""
    client = one.connect(60)
    for number in range(first, first + REQUESTS):
        body = str(number).encode() * 1000
        client.send(b"POST /?%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (number, len(body)))
        for at in range(0, len(body), 1500):
            client.send(body[at : at + 1500])
        response = client.read_response()
        kind = number % 8
        wanted = {0: "", 6: "", 7: f"{number:>8}" * 120_000}.get(kind, f"{number} " * 3)
        is_failure = kind in (0, 6)
        if response.status != (500 if is_failure else 200):
            failures.append(f"{number}: {response.status}")
        if not is_failure and (response.text != wanted or response.header("X-Number") != str(number)):
            failures.append(f"{number}: {response.header('X-Number')} {response.text[:60]}")
        if response.header("Connection") == "close":
            client.close()
            client = one.connect(60)
    client.close()


@pytest.mark.ours
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("conf", [CONF, CONF + LOGGER], ids=["plain", "logger"])
def test_switches_at_every_call_mix_nothing_up(server, gates, tmp_path, library, seed, conf):
    path = tmp_path / "conf.py"
    path.write_text(conf)
    one = server("switching", "-k", library, "-c", str(path), env={"GREEN": library, "SEED": str(seed)})
    failures: list[str] = []
    threads = [
        threading.Thread(target=talk, args=(one, 10_000 + number * REQUESTS, failures)) for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    numbers = [str(number) for number in range(10_000, 10_000 + CLIENTS * REQUESTS)]
    assert sorted(gates.wait_notes("post", len(numbers))) == numbers
    assert sorted(gates.notes("pre")) == numbers
    closed = [number for number in numbers if int(number) % 8 in (2, 5)]
    assert sorted(gates.wait_notes("closed", len(closed))) == closed
    one.output.wait(r"line made-\d+ \d+$", len(numbers))
    lines = re.findall(r"line made-(\d+) (\d+)$", one.output.text, re.MULTILINE)
    assert sorted(lines) == [(number, "500" if int(number) % 8 in (0, 6) else "200") for number in numbers]
    for number in numbers:
        if int(number) % 8 == 0:
            assert f"error-{number}" in one.log.text
    assert len(one.booted()) == 1
    assert one.stop() == 0
