"""Programs that people really use, each as its users use it: none needs a kindness that HTTP does not ask for.

A program that is not installed is skipped by name.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import nginx, program

from harness import PATIENCE_S, Server
from wire import Client

LARGE = 16 * 1024 * 1024


def run(*line: str | Path, given: bytes = b"") -> bytes:
    """The output of a command that has to succeed."""
    done = subprocess.run([str(word) for word in line], input=given, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout[-2000:]!r}\n{done.stderr[-2000:]!r}"
    return done.stdout


def url(one: Server, target: str = "/") -> str:
    host, port = one.address
    return f"http://{host}:{port}{target}"


# -- curl ------------------------------------------------------------------------------------------


@pytest.fixture
def curl():
    path = program("curl")
    return lambda *words, **options: run(path, "-sS", "--fail", "--max-time", PATIENCE_S, *words, **options)


def test_curl_reuses_its_connection(server, curl):
    one = server("probe:raw")
    targets = [url(one, "/items?count=3&as=generator"), url(one, "/echo"), url(one, "/environ")]
    shown = curl("-w", "connects=%{num_connects}\n", *targets, "-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null")
    assert re.findall(rb"connects=(\d)", shown) == [b"1", b"0", b"0"]


def test_curl_uploads_large_bodies(server, curl, tmp_path):
    """With a length curl asks for `100 Continue`; without one it sends chunks."""
    one = server("probe:raw")
    body = os.urandom(3_000_000)
    (tmp_path / "body").write_bytes(body)
    assert curl("--data-binary", f"@{tmp_path}/body", url(one, "/echo")) == body
    assert curl("-T", "-", url(one, "/echo"), given=body) == body
    trace = run(program("curl"), "-sSv", "--stderr", "-", "-o", "/dev/null", "-T", tmp_path / "body", url(one, "/echo"))
    assert b"100 Continue" in trace


def test_curl_speaks_other_dialects(server, curl):
    """HEAD, HTTP/1.0, an offer of HTTP/2 that is not taken up, a range that is ignored."""
    one = server("hello:app")
    assert b"Content-Length: 14" in curl("--head", url(one))
    assert curl("--http1.0", url(one)) == b"Hello, World!\n"
    assert curl("--http2", "-w", " %{http_version}", url(one)) == b"Hello, World!\n 1.1"
    assert curl("-r", "0-3", url(one)) == b"Hello, World!\n"


def test_curl_on_a_unix_socket(server, curl, tmp_path):
    server("hello:app", bind=(f"unix:{tmp_path}/app.sock",))
    assert curl("--unix-socket", tmp_path / "app.sock", "http://localhost/") == b"Hello, World!\n"


def test_curl_speaks_the_proxy_protocol(server, curl):
    """One header for the connection, then request after request."""
    one = server("probe:raw", "--proxy-protocol", "auto")
    shown = curl("--haproxy-protocol", url(one, "/environ"), url(one, "/echo"), url(one, "/environ")).decode()
    first, second = (json.loads(part) for part in re.findall(r"{.*?}", shown))
    assert first["REMOTE_ADDR"] == second["REMOTE_ADDR"] == "127.0.0.1"
    assert first["REMOTE_PORT"] == second["REMOTE_PORT"]


def test_curl_sees_a_broken_stream(server):
    """An answer that is broken off is an error for the client, not a short success."""
    one = server("probe:raw")
    done = subprocess.run(
        [program("curl"), "-sS", "--max-time", str(PATIENCE_S), url(one, "/closing?how=raise_later")],
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 18, done


# -- Python's clients ------------------------------------------------------------------------------


def test_requests_and_urllib3(server):
    requests = pytest.importorskip("requests")
    one = server("probe:raw")
    with requests.Session() as session:
        for number in range(20):
            answer = session.post(url(one, "/echo"), data=f"body {number}", timeout=PATIENCE_S)
            assert (answer.status_code, answer.text) == (200, f"body {number}")
        parts = (bytes([number]) * 1000 for number in range(200))
        assert len(session.post(url(one, "/echo"), data=parts, timeout=PATIENCE_S).content) == 200_000
        streamed = session.get(url(one, "/items?count=50&size=1000&as=generator"), stream=True, timeout=PATIENCE_S)
        assert sum(len(part) for part in streamed.iter_content(777)) == 50_000
        files = {"file": ("name.bin", os.urandom(100_000))}
        assert session.post(url(one, "/ignore_body"), files=files, timeout=PATIENCE_S).text == "did not look"
        pools = session.get_adapter(url(one)).poolmanager.pools
        [pool] = [pools[key] for key in pools.keys()]  # noqa: SIM118 - this container cannot be iterated
        assert pool.num_connections == 1, "every request went over the first connection"


def test_httpx(server):
    httpx = pytest.importorskip("httpx")
    one = server("probe:raw", "--threads", "2")
    with httpx.Client(base_url=url(one, ""), timeout=PATIENCE_S) as client:
        ports = {client.get("/environ").json()["REMOTE_PORT"] for _ in range(10)}
        assert len(ports) == 1
        assert client.post("/echo", content=iter([b"a" * 70_000, b"b"])).content == b"a" * 70_000 + b"b"
        with client.stream("GET", "/items?count=50&size=1000&as=generator") as streamed:
            assert len(b"".join(streamed.iter_bytes())) == 50_000
        assert client.head("/environ").content == b""


# -- load generators -------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_alive", [False, True], ids=["close", "keep-alive"])
def test_ab(server, tmp_path, keep_alive):
    """ApacheBench speaks HTTP/1.0 and wants the length and the keep-alive spelt out."""
    one = server("probe:raw", "--threads", "2")
    (tmp_path / "body").write_bytes(b"x" * 2000)
    words = ["-k"] if keep_alive else []
    for target, more in (("/echo", ["-p", tmp_path / "body"]), ("/items", [])):
        report = run(program("ab"), "-q", "-n", "400", "-c", "8", *words, *more, url(one, target)).decode()
        assert re.search(r"Complete requests: +400$", report, re.MULTILINE), report
        assert re.search(r"Failed requests: +0$", report, re.MULTILINE), report
        assert "Non-2xx" not in report
        if keep_alive and target == "/echo":
            assert re.search(r"Keep-Alive requests: +400$", report, re.MULTILINE), report


def test_h2load_in_http_1_1(server):
    one = server("hello:app", "--threads", "2")
    for pipelined in (1, 16):
        line = ["--h1", "-n", "2000", "-c", "8", "-m", str(pipelined), url(one)]
        report = run(program("h2load"), *line).decode()
        assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in report, report
        assert "2000 2xx" in report


# -- nginx in front --------------------------------------------------------------------------------

LOCATIONS = """
location / {
    proxy_pass http://app;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For "203.0.113.7";
    proxy_set_header X-Forwarded-Proto https;
}
location /unbuffered/ {
    proxy_pass http://app/;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_request_buffering off;
    proxy_buffering off;
}
"""


@pytest.fixture(params=["tcp", "unix"])
def proxied(request, server) -> Iterator[tuple[Server, str]]:
    with tempfile.TemporaryDirectory(prefix="upstream-") as home:
        options = ("probe:raw", "--threads", "2", "--forwarded-allow-ips", "*", "--access-logfile", "-")
        if request.param == "unix":
            one = server(*options, bind=(f"unix:{home}/app.sock",))
            upstream = f"unix:{home}/app.sock"
        else:
            one = server(*options)
            upstream = f"{one.address[0]}:{one.port}"
        with nginx(upstream, LOCATIONS) as front:
            yield one, front


def test_nginx_keeps_its_connections(proxied):
    one, front = proxied
    peers = set()
    with Client(front, PATIENCE_S) as client:
        for _ in range(30):
            shown = json.loads(client.request("GET", "/environ?a=%20b").body)
            assert (shown["wsgi.url_scheme"], shown["QUERY_STRING"]) == ("https", "a=%20b")
            assert shown["HTTP_X_FORWARDED_FOR"] == "203.0.113.7"
            peers.add(shown.get("REMOTE_PORT"))
    assert len(peers) == 1, "one upstream connection for all requests"


def test_nginx_passes_bodies_both_ways(proxied):
    one, front = proxied
    body = os.urandom(2_000_000)
    with Client(front, PATIENCE_S) as client:
        for prefix in ("", "/unbuffered"):
            answer = client.request("POST", f"{prefix}/echo", [("Content-Length", str(len(body)))], body)
            assert answer.body == body
            answer = client.request("GET", f"{prefix}/items?count=300&size=4000&as=generator")
            assert len(answer.body) == 1_200_000
            assert client.request("HEAD", f"{prefix}/environ").body == b""
            assert client.request("GET", f"{prefix}/status?line=204%20No%20Content").status == 204


def test_nginx_and_clients_that_leave(proxied):
    """nginx closes its side when its client leaves; the connections that it keeps go on."""
    one, front = proxied
    for _ in range(10):
        with Client(front, PATIENCE_S) as gone:
            gone.send_request("GET", "/unbuffered/items?count=1000&size=60000&as=generator")
            assert gone.read_head().status == 200
    with Client(front, PATIENCE_S) as client:
        assert client.request("GET", "/items").text == "xxxxx"
    assert "Traceback" not in one.log.text
    assert "panicked" not in one.log.text
