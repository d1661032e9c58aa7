"""HTTP/1.1 on the wire: connections that stay, bodies that are framed, requests that are refused."""

from __future__ import annotations

import pytest

from harness import IS_OURS, PATIENCE_S, Gates, Server
from wire import encode_chunks, encode_request


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    """One server for the whole file: every test ends with a connection of its own."""
    one = Server(["probe:raw", "--threads", "2"], env=Gates(tmp_path_factory.mktemp("gates")).env)
    try:
        yield one.wait_ready()
    finally:
        assert not one.reap()


# -- connections that stay -------------------------------------------------------------------------


def test_a_connection_serves_many_requests(http):
    with http.connect() as client:
        for _ in range(50):
            answer = client.request("GET", "/items?as=list")
            assert (answer.version, answer.status, answer.text) == ("HTTP/1.1", 200, "xxxxx")
            assert answer.header("Connection") in (None, "keep-alive")


def test_close_is_honoured(http):
    with http.connect() as client:
        assert client.request("GET", "/items", [("Connection", "close")]).header("Connection") == "close"
        assert client.is_closed()


def test_close_is_found_among_other_tokens_and_any_case(http):
    if not IS_OURS:
        pytest.skip("gunicorn compares the whole value")
    for value in ("Close", "te, close", "close , te"):
        with http.connect() as client:
            assert client.request("GET", "/items", [("Connection", value)]).header("Connection") == "close"
            assert client.is_closed()


def test_http_1_0_closes_by_default(http):
    with http.connect() as client:
        answer = client.request("GET", "/items", version="HTTP/1.0")
        assert answer.header("Connection") == "close"
        assert not answer.is_chunked
        assert client.is_closed()


def test_http_1_0_may_ask_to_stay(http):
    with http.connect() as client:
        for _ in range(3):
            answer = client.request("GET", "/status?line=200%20OK", [("Connection", "keep-alive")], version="HTTP/1.0")
            assert answer.header("Connection") == "keep-alive"
            assert answer.text == "status body"


def test_keep_alive_zero_closes_after_each_answer(server):
    one = server("hello:app", "--keep-alive", "0", "--threads", "2")
    with one.connect() as client:
        assert client.request().header("Connection") == "close"
        assert client.is_closed()


def test_idle_connection_is_closed_after_the_keep_alive_time(server):
    one = server("hello:app", "--keep-alive", "1", "--threads", "2")
    with one.connect() as client:
        assert client.request().status == 200
        assert client.is_closed()


def test_one_empty_line_before_a_request_is_skipped(http):
    with http.connect() as client:
        client.send(b"\r\n" + encode_request("GET", "/items"))
        assert client.read_response().status == 200


# -- pipelining ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 101])
def test_pipelined_requests_are_answered_in_order(http, count):
    burst = b"".join(encode_request("POST", f"/echo?{number}", (), b"request %d" % number) for number in range(count))
    with http.connect() as client:
        client.send(burst)
        for number in range(count):
            assert client.read_response().body == b"request %d" % number
        assert client.has_nothing_to_read()


def test_pipelined_requests_of_every_kind_stay_in_step(http):
    kinds = [
        ("GET", "/items?as=list", (), None, b"xxxxx"),
        ("HEAD", "/status?line=200%20OK", (), None, b""),
        ("POST", "/echo", [("Transfer-Encoding", "chunked")], encode_chunks(b"one", b"two"), b"onetwo"),
        ("GET", "/status?line=204%20No%20Content", (), None, b""),
        ("POST", "/ignore_body", (), b"x" * 5000, b"did not look"),
        ("GET", "/items?as=generator&count=2", (), None, b"xxxxxxxxxx"),
        ("GET", "/status?line=304%20Not%20Modified", (), None, b""),
    ]
    with http.connect() as client:
        client.send(b"".join(encode_request(*kind[:4]) for kind in kinds * 5))
        for method, *_, expected in kinds * 5:
            assert client.read_response(bodiless=method == "HEAD").body == expected


def test_requests_behind_a_close_are_not_run(http):
    with http.connect() as client:
        client.send(encode_request("GET", "/items", [("Connection", "close")]) + encode_request("GET", "/items"))
        assert client.read_response().status == 200
        assert client.read_to_end() == b""


def test_a_request_may_arrive_byte_by_byte(http):
    with http.connect() as client:
        for byte in encode_request("POST", "/echo", [("Transfer-Encoding", "chunked")], encode_chunks(b"abc", b"de")):
            client.send(bytes([byte]))
        assert client.read_response().body == b"abcde"


# -- bodies in -------------------------------------------------------------------------------------


def test_chunked_body_with_extensions_and_trailers(http):
    body = b'3;name=value\r\nabc\r\n2;q="x;y"\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n'
    with http.connect() as client:
        assert client.request("POST", "/echo", [("Transfer-Encoding", "chunked")], body).body == b"abcde"
        assert client.request("GET", "/items").status == 200


def test_continue_is_sent_before_the_body(http):
    with http.connect() as client:
        client.send_request("POST", "/echo", [("Expect", "100-continue"), ("Content-Length", "5")])
        assert client.read_head().status == 100
        client.send(b"hello")
        answer = client.read_response()
        assert (answer.status, answer.interim, answer.text) == (200, [], "hello")


def test_continue_is_sent_before_a_chunked_body(http):
    with http.connect() as client:
        client.send_request("POST", "/echo", [("Expect", "100-Continue"), ("Transfer-Encoding", "chunked")])
        assert client.read_head().status == 100
        client.send(encode_chunks(b"hello"))
        assert client.read_response().text == "hello"


def test_http_1_0_gets_no_continue(http):
    with http.connect() as client:
        answer = client.request("POST", "/echo", [("Expect", "100-continue")], b"hello", version="HTTP/1.0")
        assert (answer.interim, answer.text) == ([], "hello")


@pytest.mark.ours
def test_truncated_body_never_reaches_the_application(http):
    with http.connect() as client:
        client.send_request("POST", "/echo", [("Content-Length", "100")], b"too short")
        client.socket.shutdown(1)
        assert b"200 OK" not in client.read_to_end()


# -- refusals --------------------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
REFUSED = {
    "no request line": (b"nonsense\r\n\r\n", 400, "Bad Request"),
    "too many words": (b"GET / HTTP/1.1 x\r\n\r\n", 400, "Bad Request"),
    "method in lower case": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "Bad Request"),
    "method no token": (b"GE{T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "Bad Request"),
    "control byte in target": (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "Bad Request"),
    "raw high byte in target": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "Bad Request"),
    "relative target": (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "Bad Request"),
    "no version": (b"GET /\r\n\r\n", 400, "Bad Request"),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "Bad Request"),
    "field without colon": (GET + b"Bad\r\n\r\n", 400, "Bad Request"),
    "space before colon": (GET + b"Bad : 1\r\n\r\n", 400, "Bad Request"),
    "folded field": (GET + b"X: 1\r\n 2\r\n\r\n", 400, "Bad Request"),
    "NUL in a field": (GET + b"X: a\x00b\r\n\r\n", 400, "Bad Request"),
    "bare CR in a field": (GET + b"X: a\rb\r\n\r\n", 400, "Bad Request"),
    "two hosts": (GET + b"Host: b\r\n\r\n", 400, "Bad Request"),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "Bad Request"),
    "signed length": (POST + b"Content-Length: +1\r\n\r\na", 400, "Bad Request"),
    "length in words": (POST + b"Content-Length: one\r\n\r\na", 400, "Bad Request"),
    "length and chunked": (
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "Bad Request",
    ),
    "chunked in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "Bad Request",
    ),
    "chunked not last": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, "Bad Request"),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, "Bad Request"),
    "bad chunk size": (
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        400,
        "Bad Request",
    ),
    "bad chunk end": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n", 400, "Bad Request"),
    "contradicting schemes": (
        GET + b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n",
        400,
        "Bad Request",
    ),
    "long request line": (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "URI Too Long"),
    "unmet expectation": (POST + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417, "Expectation Failed"),
    "too many fields": (GET + b"X: 1\r\n" * 101 + b"\r\n", 431, "Request Header Fields Too Large"),
    "long field": (GET + b"X: " + b"a" * 9000 + b"\r\n\r\n", 431, "Request Header Fields Too Large"),
}
# Where gunicorn answers otherwise; the table of deliberate differences names them.
REFUSED_BY_US = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "Bad Request"),
    "unknown coding": (POST + b"Transfer-Encoding: magic, chunked\r\n\r\n0\r\n\r\n", 501, "Not Implemented"),
    "coding alone": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400, "Bad Request"),
    "padded length": (POST + b"Content-Length: 01\r\n\r\na", 400, "Bad Request"),
    "target and host of two places": (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "Bad Request"),
    "next major version": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "HTTP Version Not Supported"),
}


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [pytest.param(*case, id=name) for name, case in REFUSED.items()]
    + [pytest.param(*case, id=name, marks=pytest.mark.ours) for name, case in REFUSED_BY_US.items()],
)
def test_refused_requests(http, request_bytes, status, reason):
    with http.connect() as client:
        # The server may answer and close while the rest is still on its way.
        client.send(request_bytes)
        answer = client.read_response()
        assert (answer.version, answer.status, answer.reason) == ("HTTP/1.1", status, reason)
        assert answer.header("Connection") == "close"
        assert answer.header("Content-Type") == "text/html"
        assert f"<title>{reason}</title>" in answer.text
        assert client.is_closed()
    assert http.get("/items").status == 200


def test_refusal_names_no_markup_of_the_request(http):
    with http.connect() as client:
        client.send(b"GET /<script> HTTP/9.9<script>\r\n\r\n")
        assert "<script>" not in client.read_response().text


def test_request_before_a_refused_one_is_answered(http):
    with http.connect() as client:
        client.send(encode_request("GET", "/items") + b"nonsense\r\n\r\n")
        assert client.read_response().status == 200
        assert client.read_response().status == 400
        assert client.is_closed()


def test_limits_follow_the_settings(server):
    one = server(
        "hello:app", "--limit-request-line", "100", "--limit-request-fields", "5", "--limit-request-field_size", "60",
        "--threads", "2",
    )  # fmt: skip
    line = "/" + "a" * (100 - len("GET / HTTP/1.1"))
    assert one.get(line).status == 200
    assert one.get(line + "a").status == 414
    assert one.get("/", [(f"X-{n}", "1") for n in range(3)]).status == 200
    assert one.get("/", [(f"X-{n}", "1") for n in range(4)]).status == 431
    assert one.get("/", [("X", "a" * 50)]).status == 200
    assert one.get("/", [("X", "a" * 60)]).status == 431


@pytest.mark.ours
def test_body_over_the_limit_is_refused(server):
    one = server("probe:raw", env={"FERRICORN_LIMIT_REQUEST_BODY": "10"})
    with one.connect() as client:
        assert client.request("POST", "/echo", (), b"x" * 10).status == 200
        client.send_request("POST", "/echo", [("Content-Length", "11")])
        answer = client.read_response()
        assert (answer.status, answer.reason) == (413, "Content Too Large")
    with one.connect() as client:
        client.send_request("POST", "/echo", [("Transfer-Encoding", "chunked")], encode_chunks(b"x" * 6, b"x" * 6))
        assert client.read_response().status == 413


@pytest.mark.ours
@pytest.mark.parametrize(
    ("setting", "started"),
    [
        ("FERRICORN_CLIENT_HEADER_TIMEOUT", b"GET / HTTP/1.1\r\nHo"),
        ("FERRICORN_CLIENT_BODY_TIMEOUT", b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"),
    ],
    ids=["head", "body"],
)
def test_unfinished_request_times_out(server, setting, started):
    one = server("probe:raw", env={setting: "1"})
    with one.connect() as client:
        client.send(started)
        answer = client.read_response()
        assert (answer.status, answer.reason) == (408, "Request Timeout")
        assert answer.header("Connection") == "close"
        assert client.is_closed()


@pytest.mark.ours
def test_silent_connection_is_closed_without_a_word(server):
    one = server("probe:raw", "--keep-alive", "1", env={"FERRICORN_CLIENT_HEADER_TIMEOUT": "1"})
    with one.connect() as client:
        assert client.is_closed()


def test_many_connections_at_once(http):
    clients = [http.connect(PATIENCE_S) for _ in range(200)]
    try:
        for client in clients:
            client.send_request("GET", "/items")
        for client in clients:
            assert client.read_response().status == 200
    finally:
        for client in clients:
            client.close()
