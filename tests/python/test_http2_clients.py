"""HTTP/2 with the clients and proxies that people have: curl, nghttp, h2load, HAProxy, Chromium."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from authorities import Authority
from programs import accepts, program

from harness import PATIENCE_S, Server, wait_until
from wire import Client

pytestmark = pytest.mark.ours

H2 = ("--threads", "2", "--http-protocols", "h2,h1")
H2C = (*H2, "--http2-cleartext", "prior-knowledge")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> tuple[Authority, tuple[Path, Path]]:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    return authority, authority.sign("server")


@pytest.fixture(params=["cleartext", "tls"])
def site(request, server, certificates) -> tuple[Server, str, str]:
    """A server, its URL, and the file of its authority."""
    authority, (certificate, key) = certificates
    if request.param == "cleartext":
        one = server("streams:application", *H2C, "--access-logfile", "-")
        return one, f"http://127.0.0.1:{one.port}", ""
    words = ("--certfile", str(certificate), "--keyfile", str(key), "--access-logfile", "-")
    one = server("streams:application", *H2, *words)
    return one, f"https://127.0.0.1:{one.port}", str(authority.file)


def run(name: str, *words: str) -> str:
    done = subprocess.run([program(name), *words], capture_output=True, text=True, errors="replace", timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_curl(site, tmp_path):
    one, url, authority = site
    speaks = ("--http2", "--cacert", authority) if authority else ("--http2-prior-knowledge",)
    shown = ("-sS", "--max-time", "30", *speaks, "-w", " %{http_version} %{http_code}")
    assert run("curl", *shown, f"{url}/") == "hello 2 200"
    upload = tmp_path / "upload"
    upload.write_bytes(b"u" * 300_000)
    assert run("curl", *shown, "--data-binary", f"@{upload}", f"{url}/echo") == "u" * 300_000 + " 2 200"
    assert run("curl", *shown, "-I", f"{url}/").endswith(" 2 200")
    if not authority:
        # curl 7.88.1 fails at several streams with prior knowledge, against HAProxy too.
        return
    targets = [word for _ in range(8) for word in ("-o", "/dev/null", f"{url}/items")]
    run("curl", "-sS", "--max-time", "30", *speaks, "--parallel", *targets)
    one.output.wait(r'"GET /items HTTP/2.0" 200 1000000', 8)


def test_nghttp(site):
    _, url, _ = site
    said = run("nghttp", "-nv", f"{url}/", f"{url}/items", f"{url}/trailers/whole")
    assert said.count(":status: 200") == 3
    assert "x-sum: 2" in said


def test_h2load(site):
    _, url, _ = site
    said = run("h2load", "-n", "2000", "-c", "4", "-m", "20", f"{url}/")
    assert re.search(r"2000 succeeded, 0 failed, 0 errored, 0 timeout", said), said
    said = run("h2load", "-n", "100", "-c", "2", "-m", "10", f"{url}/large")
    assert re.search(r"100 succeeded, 0 failed, 0 errored, 0 timeout", said), said


HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
frontend front
    bind unix@{home}/front.sock
    default_backend app
backend app
    server one 127.0.0.1:{port} {words}
"""


@contextlib.contextmanager
def haproxy(home: Path, port: int, words: str) -> Iterator[str]:
    settings, front = home / "haproxy.cfg", str(home / "front.sock")
    settings.write_text(HAPROXY.format(home=home, port=port, words=words))
    process = subprocess.Popen([program("haproxy"), "-db", "-f", str(settings)], stderr=subprocess.PIPE)
    try:
        wait_until(lambda: accepts(front) or process.poll() is not None, "HAProxy listens")
        assert process.poll() is None, process.stderr.read()
        yield front
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def test_haproxy(site, tmp_path):
    one, _, authority = site
    words = f"ssl ca-file {authority} verify required alpn h2 sni str(localhost)" if authority else "proto h2"
    with haproxy(tmp_path, one.port, words) as front, Client(front, PATIENCE_S) as client:
        for _ in range(20):
            client.send_request("GET", "/environ")
            assert b"SERVER_PROTOCOL='HTTP/2.0'" in client.read_response().body
        client.send_request("POST", "/echo", body=b"b" * 200_000)
        assert client.read_response().body == b"b" * 200_000
        client.send_request("GET", "/items")
        assert len(client.read_response().body) == 1_000_000
    one.output.wait(r'"GET /items HTTP/2.0" 200 1000000')


def test_chromium(site, tmp_path):
    one, url, authority = site
    if not authority:
        pytest.skip("a browser speaks HTTP/2 over TLS alone")
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--ignore-certificate-errors",
    ]
    assert "hello" in run("chromium", *words, "--dump-dom", f"{url}/")
    one.output.wait(r'"GET / HTTP/2.0" 200')
