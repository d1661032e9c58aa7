"""PEP 3333 in depth: what an application is given and what becomes of its answer."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from harness import IS_OURS, NAME, Gates, Server, parse_address, wait_until
from wire import Disconnected, encode_chunks

VALIDATED = "probe:application"


@pytest.fixture
def probe(server):
    """A server whose application goes through wsgiref.validate; its complaints fail the test."""
    one = server(VALIDATED, "--threads", "2")
    yield one
    assert "AssertionError" not in one.log.text, one.log.text
    assert "garbage collected without being closed" not in one.log.text


def environ_of(one, target="/environ", headers=(), **options):
    return json.loads(one.get(target, headers, **options).body)


# -- environ ---------------------------------------------------------------------------------------


def test_environ_has_every_key(probe):
    with probe.connect() as client:
        local, remote = client.socket.getpeername(), client.socket.getsockname()
        environ = json.loads(client.request("GET", "/environ/a%20b?q=1%202", [("X-Thing", "v")]).body)
    assert environ.pop("SERVER_SOFTWARE").startswith(NAME + "/")
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/environ/a b",
        "QUERY_STRING": "q=1%202",
        "RAW_URI": "/environ/a%20b?q=1%202",
        "SERVER_NAME": local[0],
        "SERVER_PORT": str(local[1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": remote[0],
        "REMOTE_PORT": str(remote[1]),
        "HTTP_HOST": "example.test",
        "HTTP_X_THING": "v",
        "wsgi.version": "(1, 0)",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "type": "dict",
    }
    assert {key: environ.get(key) for key in expected} == expected
    for key in ("wsgi.input", "wsgi.errors", "wsgi.file_wrapper"):
        assert key in environ
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "REQUEST_URI"):
        assert key not in environ


def test_environ_is_new_for_each_request(probe):
    with probe.connect() as client:
        for _ in range(3):
            assert "left.behind" not in json.loads(client.request("GET", "/environ").body)


def test_several_workers_are_multiprocess(server):
    assert environ_of(server(VALIDATED, workers=2))["wsgi.multiprocess"] is True


def test_content_fields_have_no_prefix(probe):
    with probe.connect() as client:
        answer = client.request("POST", "/environ", [("Content-Type", "text/csv; charset=x")], b"a,b")
    environ = json.loads(answer.body)
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/csv; charset=x", "3")
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ


def test_repeated_fields_are_joined(probe):
    fields = [("X-Many", "a"), ("x-many", "b"), ("Cookie", "c=1"), ("Cookie", "d=2"), ("X-MANY", "c")]
    environ = environ_of(probe, headers=fields)
    assert environ["HTTP_X_MANY"] == "a,b,c"
    assert re.fullmatch("c=1[,;] ?d=2", environ["HTTP_COOKIE"])


def test_field_values_are_trimmed_and_latin1(probe):
    environ = environ_of(probe, headers=[("X-Space", "  \t inner  space \t"), ("X-Latin", "caf\xe9"), ("X-Empty", "")])
    assert environ["HTTP_X_SPACE"] == "inner  space"
    assert environ["HTTP_X_LATIN"] == "caf\xe9"
    assert environ["HTTP_X_EMPTY"] == ""


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/environ/%C3%A9", "/environ/\xc3\xa9", ""),
        ("/environ/%2F%2f", "/environ///", ""),
        ("/environ/%25%zz%", "/environ/%%zz%", ""),
        ("/environ/a+b;c=d", "/environ/a+b;c=d", ""),
        ("/environ/../x//y/.", "/environ/../x//y/.", ""),
        ("/environ?", "/environ", ""),
        ("/environ?a=%20&b=?c/../", "/environ", "a=%20&b=?c/../"),
        ("//environ", "//environ", ""),
        ("http://example.test:80/environ/x?y", "/environ/x", "y"),
    ],
)
def test_path_is_decoded_and_query_is_not(probe, target, path, query):
    environ = environ_of(probe, target)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["RAW_URI"]) == (path, query, target)


@pytest.mark.ours
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_the_authority_of_an_absolute_target_is_the_host(server, tmp_path, version):
    """RFC 9112 section 3.2.2. On a unix socket the server's name comes from there too."""
    one = server(VALIDATED, bind=(f"unix:{tmp_path}/s",))
    environ = environ_of(one, "http://Example.test:80/environ", version=version)
    assert environ["HTTP_HOST"] == "Example.test:80"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("Example.test", "80")


@pytest.mark.ours
def test_the_authority_of_an_absolute_target_needs_no_host_in_http_1_0(probe):
    with probe.connect() as client:
        client.send(b"GET http://other.test/environ HTTP/1.0\r\n\r\n")
        environ = json.loads(client.read_response().body)
    assert environ["HTTP_HOST"] == "other.test"


def test_http_1_0_is_told(probe):
    assert environ_of(probe, version="HTTP/1.0")["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_unix_socket_peer_has_no_address(server, tmp_path):
    environ = environ_of(server(VALIDATED, bind=(f"unix:{tmp_path}/s",)))
    assert environ["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in environ
    assert environ["SERVER_NAME"] == "example.test"


def test_script_name_is_cut_from_the_path(server):
    one = server(VALIDATED, "-e", "SCRIPT_NAME=/prefix")
    environ = environ_of(one, "/prefix/environ")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/prefix", "/environ")
    assert one.get("/elsewhere").status == 500


def test_scheme_comes_from_a_trusted_proxy_only(server):
    secure = [("X-Forwarded-Proto", "https")]
    assert environ_of(server(VALIDATED), headers=secure)["wsgi.url_scheme"] == "https"
    assert (
        environ_of(server(VALIDATED, "--forwarded-allow-ips", "10.0.0.1"), headers=secure)["wsgi.url_scheme"] == "http"
    )


def test_contradicting_schemes_are_refused(probe):
    assert probe.get("/environ", [("X-Forwarded-Proto", "https"), ("X-Forwarded-Ssl", "off")]).status == 400


def test_underscore_cannot_impersonate_a_dash(probe):
    environ = environ_of(probe, headers=[("X_Real_User", "root"), ("X-Real-User", "me")])
    assert environ["HTTP_X_REAL_USER"] == "me"


# -- wsgi.input ------------------------------------------------------------------------------------

BODIES = {
    "empty": b"",
    "lines": b"one\ntwo\r\n\nfour without end",
    "one long line": b"x" * 100_000,
    "long lines": (b"y" * 9000 + b"\n") * 20,
    "spooled": bytes(range(256)) * 6000,
}
CALLS = {
    "read": [["read", 5], ["read", 0], ["read", 10_000_000], ["read", 1]],
    "read all": [["read"], ["read"], ["read", 5]],
    "read minus one": [["read", 3], ["read", -1], ["read", -1]],
    "readline": [["readline"]] * 5,
    "readline bounded": [["readline", 2], ["readline", 100], ["readline", 2], ["readline", 10_000]],
    "readlines": [["readlines"], ["readlines"]],
    "iterate": [["readline"], ["iterate"], ["iterate"]],
    "mixed": [
        ["read", 2],
        ["readline"],
        ["read", 3],
        ["readline", 1],
        ["readlines"],
        ["read", 9],
        ["readline"],
    ],
}


@pytest.fixture(scope="module")
def module_gates(tmp_path_factory):
    return Gates(tmp_path_factory.mktemp("gates"))


@pytest.fixture(scope="module")
def raw_probe(module_gates):
    """One server for the many cases below; not validated, as the validator forbids read() without a size."""
    one = Server(["probe:raw", "--threads", "2"], env=module_gates.env)
    try:
        yield one.wait_ready()
    finally:
        assert not one.reap()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_input_reads_like_a_file(raw_probe, body, calls, framing):
    model, expected = io.BytesIO(body), []
    for name, *arguments in calls:
        result = list(model) if name == "iterate" else getattr(model, name)(*arguments)
        expected.append([r.decode("latin-1") for r in result] if isinstance(result, list) else result.decode("latin-1"))
    fields = [("Transfer-Encoding", "chunked")] if framing == "chunked" else []
    pieces = [body[i : i + 7001] for i in range(0, len(body), 7001)]
    sent = encode_chunks(*pieces) if framing == "chunked" else body
    with raw_probe.connect() as client:
        answer = client.request("POST", "/operations?calls=" + quote(json.dumps(calls)), fields, sent)
        assert json.loads(answer.body) == expected
        if IS_OURS:  # others may close rather than read on
            assert client.request("GET", "/items").status == 200, "the connection is in step"


def test_readlines_takes_a_hint(raw_probe):
    body = b"".join(b"line %d\n" % number for number in range(100))
    with raw_probe.connect() as client:
        calls = quote(json.dumps([["readlines", 20], ["readlines"]]))
        first, rest = json.loads(client.request("POST", f"/operations?calls={calls}", (), body).body)
    assert first
    assert "".join(first + rest).encode() == body


def test_no_body_is_an_empty_input(probe):
    assert probe.get("/echo").body == b""


@pytest.mark.parametrize("size", [1, 65_536, 3_000_000])
def test_bodies_of_every_size_arrive(probe, size):
    body = bytes(i * 7 % 251 for i in range(1000)) * (size // 1000) or b"x"
    with probe.connect() as client:
        assert client.request("POST", "/echo", (), body).body == body
        assert client.request("POST", "/echo", [("Transfer-Encoding", "chunked")], encode_chunks(body)).body == body


def test_unread_body_does_not_disturb_the_next_request(probe):
    with probe.connect() as client:
        assert client.request("POST", "/ignore_body", (), b"GET /evil HTTP/1.1\r\n\r\n" * 100).text == "did not look"
        assert client.request("GET", "/items").text == "xxxxx"


# -- wsgi.errors -----------------------------------------------------------------------------------


def test_errors_go_to_the_error_log(probe):
    assert probe.get("/errors").text == "complained"
    probe.log.wait("^written to errors$")
    probe.log.wait("^first of two\nsecond of two: grüß$")
    probe.log.wait("^printed to errors$")


def test_errors_go_to_the_error_log_file(server, tmp_path):
    log = tmp_path / "error.log"
    one = server("probe:application", "--error-logfile", str(log), ready=False)
    text = wait_until(lambda: log.exists() and "Booting worker" in log.read_text() and log.read_text(), "boot")
    one.address = parse_address(re.search(r"Listening at: (\S+)", text).group(1))
    one.get("/errors")
    wait_until(lambda: "printed to errors\n" in log.read_text(), "wsgi.errors in the file")


# -- start_response --------------------------------------------------------------------------------


@pytest.mark.ours
def test_error_handler_replaces_an_unsent_head(server):
    answer = server("faulty").get("/exc_info?when=before")
    assert (answer.status, answer.reason, answer.header("X-From"), answer.text) == (
        503,
        "Sorry",
        "handler",
        "sorry",
    )


def test_error_handler_cannot_replace_a_sent_head(server, gates):
    one = server("faulty")
    with pytest.raises(Disconnected) as cut:
        one.get("/exc_info?when=after")
    assert b"0\r\n\r\n" not in cut.value.partial
    assert gates.wait_notes("reraised") == ["handled by the application"]
    one.log.wait("ValueError: handled by the application")
    assert one.get("/").status == 200


def test_write_callable_comes_before_the_iterable(probe):
    assert probe.get("/writes").text == "written, again, returned"
    assert probe.get("/write_only").text == "written"


def test_start_response_may_come_with_the_first_item(probe):
    answer = probe.get("/late_start")
    assert (answer.status, answer.text) == (202, "late")


@pytest.mark.parametrize("route", ["/stream", "/stream_by_write"])
def test_items_leave_as_they_are_produced(probe, gates, route):
    with probe.connect() as client:
        client.send_request("GET", route)
        assert client.read_head().is_chunked
        assert client.read_chunk() == b"first"
        gates.wait_reached("second")
        gates.open("second")
        assert client.read_chunk() == b"second"
        assert client.read_chunk() == b""


def test_http_1_0_stream_ends_with_the_connection(probe, gates):
    gates.open("second")
    with probe.connect() as client:
        client.send_request("GET", "/stream", version="HTTP/1.0")
        answer = client.read_response()
        assert not answer.is_chunked
        assert answer.header("Content-Length") is None
        assert answer.text == "firstsecond"


def test_status_line_is_sent_as_given(probe):
    for line in (
        "200 OK",
        "299 Words of my own",
        "404 Not Found",
        "500 Internal Server Error",
        "418 I'm a teapot",
    ):
        answer = probe.get("/status?line=" + quote(line))
        assert f"{answer.status} {answer.reason}" == line
        assert answer.text == "status body"


def test_fields_keep_their_order_and_repetitions(probe):
    answer = probe.get("/headers")
    assert answer.all("Set-Cookie") == ["a=1", "b=2; Path=/"]
    assert answer.header("X-Between") == "ÿ"
    names = [name for name, _ in answer.headers]
    assert names.index("X-Between") < len(names) - 1 - names[::-1].index("Set-Cookie")


def test_server_and_date_are_added(probe):
    answer = probe.get("/items")
    assert answer.header("Server") == NAME
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.header("Date"))


@pytest.mark.ours
def test_server_and_date_of_the_application_win(probe):
    answer = probe.get("/own_server_and_date")
    assert answer.header("Server") == "mine/1"
    assert answer.header("Date") == "Thu, 01 Jan 1970 00:00:00 GMT"


# -- framing of the answer -------------------------------------------------------------------------


@pytest.mark.ours
@pytest.mark.parametrize("shape", ["list", "tuple"])
@pytest.mark.parametrize("size", [0, 5, 1_000_000])
def test_single_item_gets_a_content_length(raw_probe, shape, size):
    answer = raw_probe.get(f"/items?as={shape}&size={size}")
    assert answer.header("Content-Length") == str(size)
    assert len(answer.body) == size


def test_unknown_length_is_chunked(raw_probe):
    answer = raw_probe.get("/items?as=generator&count=3")
    assert answer.is_chunked
    assert answer.text == "x" * 15


def test_empty_items_do_not_end_the_body(probe):
    assert probe.get("/empty_items").text == "onetwo"


def test_no_items_is_an_empty_body(raw_probe):
    for shape in ("list", "tuple", "generator"):
        assert raw_probe.get(f"/items?as={shape}&count=0").body == b""


def test_large_bodies_arrive_whole(raw_probe):
    for query in (
        "count=1&size=8000000",
        "as=generator&count=800&size=10000",
        "as=tuple&count=8&size=1000000",
    ):
        assert len(raw_probe.get("/items?" + query).body) == 8_000_000


def test_bytes_beyond_the_content_length_are_cut(raw_probe):
    with raw_probe.connect() as client:
        assert client.request("GET", "/declared?length=3&size=10").text == "xxx"
        assert client.request("GET", "/items").text == "xxxxx"


@pytest.mark.ours
def test_body_shorter_than_declared_closes_the_connection(raw_probe):
    with pytest.raises(Disconnected), raw_probe.connect() as client:
        client.request("GET", "/declared?length=10&size=3")
    raw_probe.log.wait("Content-Length")


def test_head_has_the_fields_and_no_body(probe):
    with probe.connect() as client:
        answer = client.request("HEAD", "/status?line=200%20OK")
        assert answer.header("Content-Length") == "11"
        assert client.request("GET", "/items").text == "xxxxx", "not a byte of body was sent"


@pytest.mark.parametrize("line", ["204 No Content", "304 Not Modified"])
def test_bodiless_statuses(probe, line):
    with probe.connect() as client:
        answer = client.request("GET", "/status?line=" + quote(line))
        assert answer.header("Transfer-Encoding") is None
        assert answer.header("X-Here") == "1"
        assert client.request("GET", "/items").text == "xxxxx"


@pytest.mark.ours
def test_application_may_ask_to_close(probe):
    with probe.connect() as client:
        assert client.request("GET", "/asks_to_close").header("Connection") == "close"
        assert client.is_closed()


# -- close() ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["", "raise_at_start", "raise_later", "never_started", "raise_in_close"])
def test_close_is_called_exactly_once(server, gates, how):
    one = server("probe:raw")
    with one.connect() as client:
        client.send_request("GET", f"/closing?how={how}", [("Connection", "close")])
        client.read_to_end()
    assert gates.wait_notes("closed") == [how]
    assert one.get("/items").status == 200
    assert one.stop() == 0
    assert gates.notes("closed") == [how]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_close_that_raises_leaves_the_response_whole(server, gates, version):
    """All of it was sent, chunked or up to the connection's end, when `close()` is called."""
    one = server("probe:raw")
    with one.connect() as client:
        client.send(f"GET /closing?how=raise_in_close HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        assert client.read_response().body == b"item"
        if version == "1.1":
            assert client.request("GET", "/items").status == 200
        else:
            assert client.read_to_end() == b""
    one.log.wait("RuntimeError: in close")


def test_close_is_called_once_for_head(server, gates):
    one = server("probe:raw")
    with one.connect() as client:
        client.request("HEAD", "/closing")
    assert gates.wait_notes("closed") == [""]
    one.stop()
    assert gates.notes("closed") == [""]


@pytest.mark.parametrize("goodbye", ["close", "reset"])
def test_close_is_called_once_when_the_peer_leaves(server, gates, goodbye):
    one = server("probe:raw", "--threads", "2")
    client = one.connect()
    client.send_request("GET", "/closing?how=endless")
    gates.wait_reached("streaming")
    getattr(client, goodbye)()
    assert gates.wait_notes("closed") == ["endless"]
    assert one.get("/items").status == 200
    assert one.stop() == 0
    assert gates.notes("closed") == ["endless"]


# -- wsgi.file_wrapper -----------------------------------------------------------------------------


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "content"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


@pytest.mark.parametrize("application", ["probe:raw", "probe:application"])
def test_file_wrapper(server, content, application):
    one = server(application, "--threads", "2")
    whole = content.read_bytes()
    for query, expected in (
        ("", whole),
        (f"&length={len(whole)}", whole),
        ("&offset=1000", whole[1000:]),
        ("&offset=1000&length=50", whole[1000:1050]),
        ("&length=0", b""),
        ("&block=1000000", whole),
        *([(f"&offset={len(whole)}", b"")] if IS_OURS else []),
    ):
        with one.connect() as client:
            assert client.request("GET", f"/file?path={content}{query}").body == expected, query
            assert client.request("GET", "/items").status == 200
    with one.connect() as client:
        assert client.request("HEAD", f"/file?path={content}&length={len(whole)}").header("Content-Length") == str(
            len(whole)
        )
        assert client.request("GET", "/items").text == "xxxxx"


def test_file_wrapper_over_an_object_without_descriptor(server, gates):
    one = server("probe:raw")
    assert one.get("/file_like").text == "onetwothree"
    assert gates.wait_notes("closed") == ["file"]


def test_file_wrapper_closes_its_file(server, content):
    one = server("probe:raw")
    for _ in range(3):
        one.get(f"/file?path={content}")
    (worker,) = one.workers()
    wait_until(
        lambda: str(content) not in [str(fd.resolve()) for fd in Path(f"/proc/{worker}/fd").iterdir()],
        "the file is closed",
    )


# -- applications that go wrong --------------------------------------------------------------------

WRONG = [
    ("raises", "ValueError: application is broken"),
    ("raises_after_start", "ValueError: application is broken"),
    ("generator_raises_first", "ValueError: application is broken"),
    pytest.param("never_starts", "", marks=pytest.mark.ours),
    ("returns_none", "TypeError"),
    pytest.param("text_items", "TypeError", marks=pytest.mark.ours),
    ("starts_twice", "AssertionError"),
    ("status_is_a_number", "TypeError"),
    ("status_without_code", ""),
    ("status_splits", ""),
    ("header_value_splits", "X-Bad"),
    ("header_name_splits", "X-Bad"),
    ("header_name_with_space", "X Bad"),
    ("header_value_is_a_number", "Content-Length" if IS_OURS else ""),
    ("header_value_is_beyond_latin1", "X-Bad" if IS_OURS else ""),
    pytest.param("header_is_hop_by_hop", "Transfer-Encoding", marks=pytest.mark.ours),
    ("recursion", "RecursionError"),
    ("recursion_through_c", "RecursionError"),
    ("recursion_through_slots", "RecursionError"),
    ("deep_garbage", "ValueError: application is broken"),
]


@pytest.fixture(scope="module")
def faulty(module_gates):
    one = Server(["faulty", "--threads", "2"], env=module_gates.env)
    try:
        yield one.wait_ready()
    finally:
        assert not one.reap()


@pytest.mark.parametrize(("path", "said"), WRONG)
def test_application_error_is_a_500_with_a_traceback_in_the_log(faulty, path, said):
    before = faulty.workers()
    answer = faulty.get(f"/{path}")
    assert (answer.status, answer.reason) == (500, "Internal Server Error")
    assert answer.header("Connection") == "close"
    assert not answer.all("X-Injected")
    assert "Traceback" not in answer.text, "details stay in the log"
    faulty.log.wait(rf"\[ERROR\] Error handling request (GET )?/{path}")
    faulty.log.wait("Traceback|ferricorn")
    if said:
        faulty.log.wait(re.escape(said))
    assert faulty.get("/").status == 200
    assert faulty.workers() == before, "the worker survived"


def test_error_after_the_first_item_cuts_the_answer(faulty):
    with pytest.raises(Disconnected) as cut:
        faulty.get("/fails_later")
    assert not cut.value.partial.endswith(b"0\r\n\r\n"), "a cut answer must not look whole"
    faulty.log.wait("ValueError: application is broken")
    assert faulty.get("/").status == 200


@pytest.mark.ours
def test_sys_exit_in_the_application_is_an_application_error(faulty):
    before = faulty.workers()
    assert faulty.get("/leaves").status == 500
    assert faulty.get("/").status == 200
    assert faulty.workers() == before
