"""The same request to gunicorn and to us: what differs is named here, everything else agrees."""

from __future__ import annotations

import json
import re

import pytest

from harness import GUNICORN, Gates, Server
from wire import encode_chunks, encode_request

pytest.importorskip("gunicorn")

# Keys of environ whose values are the server's own.
OWN_VALUES = {
    "SERVER_SOFTWARE", "SERVER_PORT", "REMOTE_PORT",
    "wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.early_hints", "gunicorn.socket",
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """gunicorn and the server under test, with the same application and the same settings."""
    arguments = ["probe:raw", "--threads", "2", "--access-logfile", "-", "--keep-alive", "30"]
    both = []
    try:
        for command in (GUNICORN, None):
            gates = Gates(tmp_path_factory.mktemp("gates"))
            gates.open("second")
            both.append(Server(arguments, command=command, env=gates.env))
        yield [one.wait_ready() for one in both]
    finally:
        assert [one.reap() for one in both] == [[], []]


def ask(pair, *request, **options):
    return [one.get(*request, **options) for one in pair]


def comparable(answer):
    """A response without what names the server or the moment."""
    headers = [(name, "" if name in ("Server", "Date") else value) for name, value in answer.headers]
    return answer.version, answer.status, answer.reason, headers, answer.body


# -- environ ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/environ", []),
        ("/environ/caf%C3%A9/%2F?a=%20&b", [("X-One", "1"), ("x-one", "2"), ("Accept", "*/*")]),
        ("http://example.test/environ?x", [("Content-Type", "text/plain"), ("X-Latin", "\xe9\xff")]),
        ("/environ/;params//x/../y?", [("Cookie", "a=1"), ("Cookie", "b=2")]),
        ("/environ", [("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "10.1.1.1"), ("Forwarded", "for=1")]),
        ("/environ", [("X_Under", "1"), ("X-Under", "2"), ("X-Empty", ""), ("X-Blank", "   ")]),
        ("/environ#fragment", []),
        ("/environ", [("Authorization", "Basic dXNlcjpwYXNz"), ("Range", "bytes=0-1"), ("Content-Length", "0")]),
        ("/environ", [("Proxy", "http://evil.test"), ("Script-Name", "/x"), ("Path-Info", "/y")]),
    ],
)
def test_environ_agrees(pair, target, headers):
    theirs, ours = (json.loads(answer.body) for answer in ask(pair, target, headers))
    missing = theirs.keys() - ours.keys() - {"gunicorn.socket"}
    extra = {key for key in ours.keys() - theirs.keys() if not key.startswith("ferricorn.")}
    assert (missing, extra) == (set(), set())
    for key in theirs.keys() - OWN_VALUES:
        assert ours[key] == theirs[key], key


def test_environ_of_http_1_0_agrees(pair):
    theirs, ours = (json.loads(answer.body) for answer in ask(pair, "/environ", version="HTTP/1.0"))
    for key in theirs.keys() - OWN_VALUES:
        assert ours[key] == theirs[key], key


# -- responses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize(
    "target",
    [
        "/status?line=200%20OK",
        "/status?line=299%20My%20Words",
        "/status?line=404%20Not%20Found",
        "/status?line=204%20No%20Content",
        "/status?line=304%20Not%20Modified",
        "/headers",
        "/items?as=generator&count=3",
        "/writes",
        "/write_only",
        "/stream",
        "/stream_by_write",
        "/declared?length=3&size=10",
        "/no_such_route",
    ],
)
def test_responses_agree(pair, target, version):
    theirs, ours = ask(pair, target, version=version)
    assert comparable(ours) == comparable(theirs)


@pytest.mark.parametrize(
    ("method", "target", "headers", "body"),
    [
        ("GET", "/status?line=200%20OK", [], None),
        ("HEAD", "/status?line=200%20OK", [], None),
        ("HEAD", "/items?as=generator", [], None),
        ("POST", "/echo", [], b"a body"),
        ("POST", "/echo", [("Transfer-Encoding", "chunked")], encode_chunks(b"a ", b"body")),
        ("PUT", "/echo", [("Content-Length", "0")], b""),
        ("POST", "/ignore_body", [], b"unread"),
        ("DELETE", "/status?line=200%20OK", [("Connection", "keep-alive")], None),
    ],
)
def test_responses_on_a_kept_connection_agree(pair, method, target, headers, body):
    answers = []
    for one in pair:
        with one.connect() as client:
            answers.append([comparable(client.request(method, target, headers, body)) for _ in range(2)])
    theirs, ours = answers
    assert ours == theirs


@pytest.mark.parametrize(
    "target", ["/items?as=list&count=2", "/items?as=tuple", "/empty_items", "/items?as=list&count=0"]
)
def test_only_the_framing_of_lists_differs(pair, target):
    """The length of a list or tuple is known, so it is said instead of sending chunks."""
    framing = ("content-length", "transfer-encoding")
    theirs, ours = ask(pair, target)
    for answer in (theirs, ours):
        answer.headers = [(name, value) for name, value in answer.headers if name.lower() not in framing]
    assert comparable(ours) == comparable(theirs)


def test_bytes_of_a_response_agree(pair):
    """Not only the meaning: order and spelling of every line."""
    raw = []
    for one in pair:
        with one.connect() as client:
            client.send(encode_request("GET", "/headers", [("Connection", "close")]))
            raw.append(re.sub(rb"(Server|Date): [^\r]*", rb"\1:", client.read_to_end()))
    assert raw[1] == raw[0]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: something\r\n\r\n",
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 101 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
    ],
    ids=["method", "expect", "line", "fields", "length", "smuggle", "hosts", "name", "folding"],
)
def test_refusals_agree(pair, request_bytes):
    answers = []
    for one in pair:
        with one.connect() as client:
            client.send(request_bytes)
            answer = client.read_response()
            # gunicorn leaves these two out of its error pages.
            answer.headers = [(name, value) for name, value in answer.headers if name not in ("Server", "Date")]
            answers.append(comparable(answer))
    assert answers[1] == answers[0]


# -- log lines -------------------------------------------------------------------------------------


def test_access_log_lines_agree(pair):
    marked = [("User-Agent", 'agent "x"'), ("Referer", "http://r/")]
    for target in ("/status?line=200%20OK&parity", "/items?as=list&count=2&parity", "/status?line=304%20N&parity"):
        ask(pair, target, marked)
    lines = []
    for one in pair:
        one.output.wait(r"parity", 3)
        one.output.wait(r"304%20N&parity.*\n")
        found = [line for line in one.output.text.splitlines() if "parity" in line]
        # gunicorn's threads write a line after its answer has left, so two lines may change places.
        lines.append(sorted(re.sub(r"\[[^]]*\]", "[time]", line) for line in found))
    assert lines[1] == lines[0]


def test_life_lines_agree(server):
    """From start to stop, apart from name, version, worker class, pids, times, and our summary of the requests."""
    texts = []
    for command in (GUNICORN, None):
        one = server("hello:app", "--threads", "2", "--no-control-socket", command=command)
        one.get()
        one.stop()
        text = re.sub(r"^\[[^]]*\] \[\d+\]", "[time] [pid]", one.log.join(), flags=re.MULTILINE)
        text = re.sub(r"(Starting|Using worker:) .*", r"\1 ...", text)
        text = re.sub(r".* Requests: \d+ served, \d+ refused, \d+ cut\n", "", text)
        texts.append(re.sub(r"\b\d+\b", "N", text).splitlines())
    assert texts[1] == texts[0]
