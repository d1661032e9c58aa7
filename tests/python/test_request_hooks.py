"""`pre_request` and `post_request`: when, where and with what they are called. Runs against gunicorn as well."""

import json
from pathlib import Path

import pytest

from harness import APPS

CONF = str(APPS / "request_hooks_conf.py")


def last(gates, name, count=1):
    return json.loads(gates.wait_notes(name, count)[-1])


@pytest.fixture
def one(server):
    return server("request_hooks:app", "-c", CONF, "--threads", "2")


def test_the_request_is_described(one, gates):
    response = one.get("/a%20b/c?x=1&y", [("X-Twice", "1"), ("x-twice", "2"), ("Cookie", "a=b")])
    assert response.status == 200
    seen = last(gates, "pre")
    assert seen["method"] == "GET"
    assert seen["uri"] == "/a%20b/c?x=1&y"
    assert seen["path"] == "/a%20b/c"
    assert (seen["query"], seen["fragment"], seen["version"], seen["scheme"]) == ("x=1&y", "", [1, 1], "http")
    headers = [pair for pair in seen["headers"] if pair[0] in ("X-TWICE", "COOKIE")]
    assert headers == [["X-TWICE", "1"], ["X-TWICE", "2"], ["COOKIE", "a=b"]]
    assert seen["peer_addr"][0] == seen["remote_addr"][0] == "127.0.0.1"
    assert isinstance(seen["peer_addr"][1], int)
    assert seen["proxy_protocol_info"] is None
    assert seen["body"] is True
    assert seen["thread"] is False
    pid, nr, *rest = seen["worker"]
    assert pid == one.workers()[0]
    assert rest == [True, True, 2]
    one.get()
    assert last(gates, "pre", 2)["worker"][1] == nr + 1


def test_the_response_is_described(one, gates):
    one.get("/length")
    seen = last(gates, "post")
    assert (seen["status"], seen["status_code"]) == ("201 Created", 201)
    assert ["Content-Type", "text/plain"] in seen["headers"]
    assert (seen["sent"], seen["headers_sent"], seen["response_length"]) == (5, True, 5)
    assert (seen["environ"], seen["method"]) == ("/length", "GET")


@pytest.mark.parametrize("path", ["/generator", "/write"])
def test_what_is_streamed_is_counted(one, gates, path):
    assert one.get(path).body == b"onetwothree"
    seen = last(gates, "post")
    assert (seen["sent"], seen["headers_sent"], seen["response_length"]) == (11, True, None)
    assert seen["chunked"] is True


def test_no_body_is_counted_for_head(one, gates):
    with one.connect() as client:
        client.request("HEAD", "/length")
    assert last(gates, "post")["sent"] == 0


def test_hooks_surround_application_and_close(one, gates):
    one.get("/order")
    gates.wait_notes("post")
    assert gates.notes("order") == ["called", "iterated", "closed"]
    stamps = [Path(gates.directory / f"{name}.notes").stat().st_mtime_ns for name in ("pre", "order", "post")]
    assert stamps == sorted(stamps)


def test_changes_of_the_request_reach_the_application(one):
    body = json.loads(one.get("/environ?pre-changes", [("X-Gone", "yes"), ("X-Stays", "1")]).body)
    assert body["HTTP_X_REQUEST_ID"] == "given-by-hook"
    assert body["HTTP_X_STAYS"] == "1"
    assert "HTTP_X_GONE" not in body
    assert body["PATH_INFO"] == "/changed path"


def test_an_exception_before_the_request_is_a_500(one, gates):
    response = one.get("/never?pre-raises")
    assert response.status == 500
    one.log.wait(r"\[ERROR\] Error handling request GET /never\?pre-raises$")
    one.log.wait(r", in pre_request$")
    one.log.wait(r"^ValueError: pre_request is broken$")
    # As with gunicorn the other hook still runs, and sees that there is no response.
    assert last(gates, "post") == {"environ": None, "method": "GET"}
    assert one.get("/length").status == 201


def test_an_exception_after_the_request_is_logged(one):
    assert one.get("/length?post-raises").body == b"hello"
    one.log.wait(r"\[ERROR\] Exception in post_request hook$")
    one.log.wait(r"^ValueError: post_request is broken$")
    assert one.get("/length").status == 201


def test_a_failed_request_has_its_hook_too(one, gates):
    assert one.get("/raises").status == 500
    seen = last(gates, "post")
    assert seen["status"] is None
    assert seen["headers_sent"] is False


@pytest.mark.parametrize("parameters", ["worker, req", "worker, req, environ", "worker, req, environ, resp"])
def test_older_forms_of_post_request_work(server, gates, tmp_path, parameters):
    conf = tmp_path / "conf.py"
    names = parameters.split(", ")
    conf.write_text(f"import gate\ndef post_request({parameters}):\n    gate.note('post', len([{parameters}]))\n")
    one = server("request_hooks:app", "-c", str(conf), "--pythonpath", str(APPS))
    one.get()
    assert gates.wait_notes("post") == [str(len(names))]


def test_a_hook_of_another_arity_stops_the_start(server, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text("def pre_request(worker):\n    pass\n")
    one = server("hello:app", "-c", str(conf), ready=False)
    assert one.wait_exit() == 1
    assert "Value must have an arity of: 2" in one.log.join()


def test_a_proxy_is_described(server, gates):
    one = server("request_hooks:app", "-c", CONF, "--proxy-protocol")
    with one.connect() as client:
        client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.read_response().status == 200
    info = {"proxy_protocol": "TCP4", "client_addr": "192.0.2.7", "client_port": 4711}
    assert info.items() <= last(gates, "proxy").items()


def test_a_unix_socket_has_no_address(server, gates, tmp_path):
    one = server("request_hooks:app", "-c", CONF, bind=[f"unix:{tmp_path / 's'}"])
    assert one.get().status == 200
    assert last(gates, "pre")["peer_addr"] == ""
    assert "Traceback" not in one.log.text
