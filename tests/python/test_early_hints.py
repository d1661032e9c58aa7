"""`wsgi.early_hints`: 103 before the response."""

from __future__ import annotations

import pytest

APP = "leaving:application"


@pytest.mark.ours
def test_hints_come_before_the_response(server, gates):
    one = server(APP)
    with one.connect() as client:
        client.send_request("GET", "/hints")
        first, second = client.read_head(), client.read_head()
        assert (first.version, first.status, first.reason) == ("HTTP/1.1", 103, "Early Hints")
        assert first.headers == [("Link", "</style.css>; rel=preload"), ("X-First", "1")]
        assert second.headers == [("Link", "</script.js>; rel=preload")]
        answer = client.read_response()
        assert (answer.status, answer.text, answer.interim) == (200, "body and more", [])
        assert client.request("GET", "/").text == "ok"
    assert [("X-Bad" in note, "Transfer-Encoding" in note) for note in gates.notes("refused")] == [
        (True, False),
        (False, True),
    ]


def test_http_1_0_gets_no_hints(server):
    one = server(APP)
    with one.connect() as client:
        client.send_request("GET", "/hints", version="HTTP/1.0")
        answer = client.read_response()
        assert (answer.status, answer.interim) == (200, [])
        assert answer.text == "body and more"
