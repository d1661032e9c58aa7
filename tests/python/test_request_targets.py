"""What a request says about its own length and its own target, where RFC 9112 leaves no doubt."""

from __future__ import annotations

import json

import pytest

from wire import Disconnected, encode_request

APP = "probe:raw"


def status_of(one, data: bytes) -> int:
    with one.connect(5) as client:
        client.send(data)
        return client.read_response().status


def request_with(*lines: str, body: bytes = b"", line: str = "POST /echo HTTP/1.1", host: str = "Host: example.test"):
    lines = [line, *([host] if host else []), "Connection: close", *lines]
    return "".join(f"{one}\r\n" for one in lines).encode() + b"\r\n" + body


# -- Transfer-Encoding (RFC 9112 section 6.3: chunked is the final coding, or the length is not known) ----------------

NOT_FINAL = [
    "gzip",
    "deflate",
    "compress",
    "identity",
    "x-unknown",
    "chunked, gzip",
    "chunked, identity",
    "gzip, deflate",
]


@pytest.mark.ours
@pytest.mark.parametrize("value", NOT_FINAL)
def test_a_coding_that_does_not_end_in_chunked_is_400(server, value):
    one = server(APP)
    with one.connect(5) as client:
        client.send(request_with(f"Transfer-Encoding: {value}", body=b"hello") + encode_request("GET", "/echo"))
        assert client.read_response().status == 400
        assert client.is_closed(), "nothing that follows is looked at"


@pytest.mark.ours
@pytest.mark.parametrize("value", ["x-unknown, chunked", "br, chunked"])
def test_an_unknown_coding_before_chunked_is_501(server, value):
    assert status_of(server(APP), request_with(f"Transfer-Encoding: {value}", body=b"0\r\n\r\n")) == 501


@pytest.mark.ours
@pytest.mark.parametrize("lines", [["gzip", "chunked"], ["chunked", "chunked"], ["chunked", "gzip"], ["chunked", ""]])
def test_codings_in_several_fields_are_one_list(server, lines):
    fields = [f"Transfer-Encoding: {value}" for value in lines]
    assert status_of(server(APP), request_with(*fields, body=b"0\r\n\r\n")) in (400, 501)


# -- absolute-form (RFC 9112 section 3.2.2) ------------------------------------------------------------------------


def environ(one, target, *hosts, version="HTTP/1.1"):
    lines = [f"GET {target} {version}", *(f"Host: {host}" for host in hosts), "Connection: close"]
    with one.connect(5) as client:
        client.send("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")
        answer = client.read_response()
    return json.loads(answer.body) if answer.status == 200 else answer.status


SAME = [
    ("http://example.test/environ?a=b", "example.test"),
    ("http://example.test:8080/environ?a=b", "example.test:8080"),
    ("http://EXAMPLE.test/environ?a=b", "example.TEST"),
    ("HTTP://example.test/environ?a=b", "example.test"),
    ("http://[::1]:80/environ?a=b", "[::1]:80"),
]


@pytest.mark.ours
@pytest.mark.parametrize(("target", "host"), SAME)
def test_the_authority_of_the_target_is_the_applications_host(server, target, host):
    shown = environ(server(APP), target, host)
    assert shown["HTTP_HOST"].lower() == host.lower()
    assert (shown["PATH_INFO"], shown["QUERY_STRING"]) == ("/environ", "a=b")


@pytest.mark.ours
def test_the_authority_of_the_target_is_there_without_a_host(server):
    """HTTP/1.0 needs none; the application finds one, and only one."""
    shown = environ(server(APP), "http://example.test:81/environ", version="HTTP/1.0")
    assert shown["HTTP_HOST"] == "example.test:81"


CONTRADICTIONS = [
    ("http://example.test/environ", "other.test"),
    ("http://example.test:81/environ", "example.test:82"),
    ("http://example.test:81/environ", "example.test"),
    ("http://user@example.test/environ", "example.test"),
    ("http:///environ", ""),
    ("http://example.test,other.test/environ", "example.test"),
]


@pytest.mark.ours
@pytest.mark.parametrize(("target", "host"), CONTRADICTIONS)
def test_a_host_that_contradicts_the_target_is_400(server, target, host):
    assert environ(server(APP), target, host) == 400


@pytest.mark.ours
def test_an_absolute_target_needs_a_host_as_any_other(server):
    assert environ(server(APP), "http://example.test/environ") == 400
    assert environ(server(APP), "http://example.test/environ", "example.test", "example.test") == 400


# -- Content-Length ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["05", "0005", "00000000000000000000000000000005"])
def test_a_length_with_leading_zeros_means_the_same_or_is_refused(server, length):
    """RFC 9110 section 8.6 allows them; a server may be stricter. Never another length."""
    one = server(APP)
    with one.connect(5) as client:
        client.send(request_with(f"Content-Length: {length}", body=b"hello"))
        try:
            answer = client.read_response()
        except Disconnected:
            pytest.fail("neither an answer nor a refusal")
        assert (answer.status, answer.body) == (200, b"hello") or answer.status == 400
