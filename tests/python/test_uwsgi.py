"""`--protocol uwsgi`: packets of the uwsgi protocol, by hand and from nginx's `uwsgi_pass`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile

import pytest
from programs import nginx

from harness import GUNICORN, PATIENCE_S
from wire import Client

PARAMS = """
uwsgi_param QUERY_STRING $query_string; uwsgi_param REQUEST_METHOD $request_method;
uwsgi_param CONTENT_TYPE $content_type; uwsgi_param CONTENT_LENGTH $content_length;
uwsgi_param REQUEST_URI $request_uri; uwsgi_param PATH_INFO $document_uri;
uwsgi_param SERVER_PROTOCOL $server_protocol; uwsgi_param HTTPS {https};
uwsgi_param HTTP_X_FORWARDED_FOR 203.0.113.7;
"""
LOCATIONS = f"""
location / {{ uwsgi_pass app; {PARAMS.format(https="$https if_not_empty")} }}
location /secure/ {{ rewrite ^/secure(.*)$ $1 break; uwsgi_pass app; {PARAMS.format(https="on")} }}
location /unbuffered/ {{
    rewrite ^/unbuffered(.*)$ $1 break; uwsgi_pass app; uwsgi_buffering off; uwsgi_request_buffering off;
    {PARAMS.format(https="$https if_not_empty")}
}}
"""


def packet(*variables: tuple[str, str]) -> bytes:
    texts = [text.encode("latin-1") for variable in variables for text in variable]
    block = b"".join(len(text).to_bytes(2, "little") + text for text in texts)
    return b"\0" + len(block).to_bytes(2, "little") + b"\0" + block


def ask(one, *variables: tuple[str, str], body: bytes = b""):
    with one.connect() as client:
        client.send(packet(("REQUEST_METHOD", "GET"), *variables) + body)
        return client.read_response()


@pytest.fixture
def proxied(server):
    with tempfile.TemporaryDirectory(prefix="upstream-") as home:
        one = server("probe:raw", "--threads", "2", "--protocol", "uwsgi", bind=(f"unix:{home}/app.sock",))
        with nginx(f"unix:{home}/app.sock", LOCATIONS) as front, Client(front, PATIENCE_S) as client:
            yield one, client


def test_nginx_passes_what_the_client_has_asked(proxied):
    _, client = proxied
    shown = json.loads(client.request("GET", "/environ?a=%20b").body)
    assert (shown["RAW_URI"], shown["PATH_INFO"], shown["QUERY_STRING"]) == ("/environ?a=%20b", "/environ", "a=%20b")
    assert (shown["wsgi.url_scheme"], shown["SERVER_PROTOCOL"]) == ("http", "HTTP/1.1")
    assert shown["HTTP_X_FORWARDED_FOR"] == "203.0.113.7"
    # A client cannot say https by itself.
    shown = json.loads(client.request("GET", "/environ", [("X-Forwarded-Proto", "https")]).body)
    assert shown["wsgi.url_scheme"] == "http"
    assert json.loads(client.request("GET", "/secure/environ").body)["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize("prefix", ["", "/unbuffered"])
def test_nginx_passes_bodies_both_ways(proxied, prefix):
    _, client = proxied
    body = os.urandom(2_000_000)
    answer = client.request("POST", f"{prefix}/echo", [("Content-Length", str(len(body)))], body)
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()
    # Without a length: the end of the connection delimits it, and no chunk's size is in it.
    answer = client.request("GET", f"{prefix}/items?count=300&size=4000&as=generator")
    assert answer.body == b"x" * 1_200_000
    assert client.request("HEAD", f"{prefix}/environ").body == b""
    assert client.request("GET", f"{prefix}/status?line=204%20No%20Content").status == 204


@pytest.mark.parametrize("prefix", ["", "/unbuffered"])
def test_what_clients_of_nginx_may_try(proxied, prefix):
    """Chunks, an expectation, two lengths, names that look like variables, and clients that leave."""
    one, client = proxied
    chunks = [("Transfer-Encoding", "chunked"), ("Expect", "100-continue")]
    client.send_request("POST", f"{prefix}/echo", chunks)
    client.send(b"4\r\nbody\r\n1;extension=x\r\n!\r\n0\r\nTrailer: x\r\n\r\n")
    answer = client.read_response()
    while answer.status == 100:
        answer = client.read_response()
    assert answer.body == b"body!"
    forged = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X_Forwarded_For", "6.6.6.6"),
        ("Https", "on"),
        ("Script-Name", "/forged"),
        ("Remote-User", "root"),
        ("Content_Length", "7"),
    ]
    shown = json.loads(client.request("GET", f"{prefix}/environ", forged).body)
    assert (shown["HTTP_X_FORWARDED_FOR"], shown["SCRIPT_NAME"]) == ("203.0.113.7", "")
    assert shown["wsgi.url_scheme"] == "http"
    assert "REMOTE_USER" not in shown
    assert shown.get("CONTENT_LENGTH", "") in ("", "0")
    for sent in (b"", b"x" * 70_000):
        with Client(client.socket.getpeername(), PATIENCE_S) as gone:
            gone.send(f"POST {prefix}/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode() + sent)
            gone.reset()
    assert client.request("GET", f"{prefix}/environ").status == 200
    assert "Traceback" not in one.log.text
    assert "panicked" not in one.log.text


def test_the_same_as_gunicorn(server):
    variables = [
        ("PATH_INFO", "/environ"),
        ("QUERY_STRING", "q=1"),
        ("HTTP_HOST", "x"),
        ("HTTP_X_A", "1"),
        ("HTTPS", "on"),
    ]
    variables += [("CONTENT_TYPE", "text/plain"), ("CONTENT_LENGTH", "0"), ("SCRIPT_NAME", "/ignored")]
    answers = []
    for command in (GUNICORN, None):
        one = server("probe:raw", "--protocol", "uwsgi", command=command, ready=False)
        one.wait_ready()
        shown = json.loads(ask(one, *variables).body)
        keys = ("PATH_INFO", "QUERY_STRING", "HTTP_HOST", "HTTP_X_A", "wsgi.url_scheme", "CONTENT_TYPE", "SCRIPT_NAME")
        answers.append({key: shown.get(key) for key in (*keys, "REQUEST_METHOD", "SERVER_PROTOCOL", "REMOTE_ADDR")})
    assert answers[0] == answers[1]


@pytest.mark.ours
def test_what_is_no_packet_is_refused(server):
    one = server("probe:raw", "--protocol", "uwsgi", "--access-logfile", "-")
    for sent, status, why in (
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "Unsupported uWSGI modifier1: 71"),
        (b"\0\3\0\0\x09\0a", 400, "Invalid uWSGI header: truncated key"),
        (packet(("CONTENT_LENGTH", "x")), 400, "Invalid HTTP Header: 'CONTENT-LENGTH'"),
    ):
        with one.connect() as client:
            client.send(sent)
            answer = client.read_response()
            assert (answer.status, answer.header("Connection")) == (status, "close")
        one.log.wait(f"Invalid request from ip=127.0.0.1: {why}")
    assert ask(one, ("PATH_INFO", "/environ")).status == 200


@pytest.mark.ours
def test_only_peers_of_the_list_may(server):
    one = server("probe:raw", "--protocol", "uwsgi", "--uwsgi-allow-from", "192.0.2.1")
    assert ask(one, ("PATH_INFO", "/environ")).status == 403
    one.log.wait("Invalid request from ip=127.0.0.1: uWSGI request from '127.0.0.1' not allowed")


@pytest.mark.ours
def test_a_packet_in_pieces_and_a_slow_one(server):
    one = server("probe:raw", "--protocol", "uwsgi", "--client-header-timeout", "1")
    whole = packet(("PATH_INFO", "/echo"), ("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "4")) + b"body"
    with one.connect() as client:
        for at in range(len(whole)):
            client.send(whole[at : at + 1])
        assert client.read_response().body == b"body"
    with one.connect() as client:
        client.send(whole[:20])
        assert client.read_response().status == 408
