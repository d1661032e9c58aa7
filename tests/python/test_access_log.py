"""The access log: gunicorn's atoms beside gunicorn's own, ours, JSON, and what is left out."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from harness import GUNICORN, Server, wait_until

ATOMS = "h l u r m U q H s B b f a p T".split()
OURS_ATOMS = "queue gil bytes_in pid worker connection port scheme request_id trace_id reason".split()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def lines_of(one, count):
    one.output.wait(r"\n", count)
    return one.output.text.splitlines()


def pairs(line):
    """`a=[x] b=[y]` as a dictionary."""
    return dict(re.findall(r"(\S+)=\[(.*?)\](?: |$)", line))


def form(*names):
    return " ".join(f"{name}=[%({name})s]" for name in names)


# -- gunicorn's atoms ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both():
    """gunicorn and the server under test, with all atoms."""
    pytest.importorskip("gunicorn")
    names = (
        *ATOMS, "{X-In}i", "{x-twice}i", "{user-agent}i", "{missing}i", "{X-Out}o", "{content-type}o", "{server}o",
        "{REMOTE_USER}e", "{remote_user}e", "{app.number}e", "{HTTP_X_TWICE}e", "{SCRIPT_NAME}e", "{missing}e",
        "unknown", "{x}z",
    )  # fmt: skip
    arguments = ["noted", "--threads", "2", "--access-logfile", "-"]
    arguments += ["--access-logformat", form(*names) + " %(s)5s|%(m)-6s|%(B)05d|%(h).3s|100%%"]
    started = []
    try:
        for command in (GUNICORN, None):
            started.append(Server(arguments, command=command))
        yield [one.wait_ready() for one in started]
    finally:
        assert [one.reap() for one in started] == [[], []]


@pytest.mark.parametrize(
    ("method", "target", "fields", "body"),
    [
        ("GET", "/a/b%20c?d=e&f=%20", [("X-In", "in"), ("Referer", "http://r/?x"), ("User-Agent", "agent/1 (x)")], b""),
        ("POST", "/reads", [("X-Twice", "one"), ("x-twice", "two")], b"four bytes and more"),
        ("HEAD", "/missing", [("Authorization", "Basic dXNlcjpwYXNz"), ("User-Agent", "a"), ("User-Agent", "b")], b""),
        ("GET", "/streams", [("Authorization", "Basic bm9jb2xvbg=="), ("Referer", 'quoted "word"')], b""),
        ("DELETE", "/?", [("Authorization", "Bearer token")], b""),
    ],
)
def test_atoms_are_those_of_gunicorn(both, method, target, fields, body):
    shown = []
    for one in both:
        before = one.output.text.count("\n")
        with one.connect() as client:
            client.request(method, target, [*fields, ("Connection", "close")], body=body or None)
        line = lines_of(one, before + 1)[before]
        atoms, tail = pairs(line), line.rpartition("] ")[2]
        assert atoms.pop("p") == f"<{one.workers()[0]}>"
        shown.append((atoms, tail))
    (theirs, their_tail), (ours, our_tail) = shown
    assert ours == theirs
    assert our_tail == their_tail


def test_durations_are_of_one_request(server):
    one = server("noted", "--access-logfile", "-", "--access-logformat", "%(D)s %(M)s %(T)s %(L)s")
    one.get()
    micros, millis, seconds, decimal = lines_of(one, 1)[0].split()
    assert int(micros) // 1000 == int(millis)
    assert int(millis) // 1000 == int(seconds)
    assert decimal == f"{int(micros) // 1_000_000}.{int(micros) % 1_000_000:06d}"


@pytest.mark.ours
def test_a_broken_format_stops_the_start():
    one = Server(["noted", "--access-logfile", "-", "--access-logformat", "%(h)s %h"])
    assert one.wait_exit() == 1
    assert "Error: invalid access_log_format at 6: expected '%(name)s'" in one.log.join()
    one.reap()


# -- ours ------------------------------------------------------------------------------------------


@pytest.mark.ours
def test_our_atoms(server):
    names = [f"{{{name}}}x" for name in OURS_ATOMS]
    one = server("noted", "--access-logfile", "-", "--access-logformat", form(*names))
    (worker,) = one.workers()
    with one.connect() as client:
        client.request("POST", "/reads", [("X-Request-ID", "abc-1"), ("X-Forwarded-Proto", "https")], body=b"12345")
        client.request("GET", "/", [("traceparent", PARENT)])
        port = client.socket.getsockname()[1]
    with one.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.read_response().status == 400
    first, second, refused = map(pairs, lines_of(one, 3))
    assert re.fullmatch(r"0\.\d{6}", first["{queue}x"])
    assert 0 <= float(first["{gil}x"]) <= float(first["{queue}x"])
    assert first["{bytes_in}x"] == "5"
    assert second["{bytes_in}x"] == "0"
    assert first["{pid}x"] == str(worker)
    assert first["{worker}x"] == "1"
    assert first["{port}x"] == str(port)
    assert (first["{scheme}x"], second["{scheme}x"]) == ("https", "http")
    assert first["{connection}x"] == second["{connection}x"] != refused["{connection}x"]
    assert (first["{request_id}x"], first["{trace_id}x"]) == ("abc-1", "-")
    assert second["{request_id}x"] == second["{trace_id}x"] == PARENT[3:35]
    assert first["{reason}x"] == second["{reason}x"] == "-"
    assert refused["{reason}x"] != "-"
    assert (refused["{queue}x"], refused["{port}x"] != str(port)) == ("-", True)


@pytest.mark.ours
def test_the_reason_of_every_refusal(server):
    one = server(
        "noted", "--access-logfile", "-", "--access-logformat", "%(s)s %({reason}x)s",
        "--client-header-timeout", "1", "--client-body-timeout", "1",
    )  # fmt: skip
    sent = [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost:", 408),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", 408),
        (b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    ]
    for number, (request, status) in enumerate(sent, 1):
        with one.connect() as client:
            client.send(request)
            assert client.read_response().status == status
        lines_of(one, number)
    with one.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHo")
    lines = lines_of(one, 5)
    assert lines[0].startswith("400 ")
    assert "HOST" in lines[0]
    assert lines[1:] == [
        "408 client_header_timeout",
        "408 client_body_timeout",
        "500 application failed",
        "400 client gone before the end of the request",
    ]


@pytest.mark.ours
def test_the_reason_of_what_the_server_ends_itself(server, gates):
    one = server(
        "lifecycle", "--access-logfile", "-", "--access-logformat", "%(s)s %({reason}x)s",
        env={"FERRICORN_REQUEST_TIMEOUT": "1", "FERRICORN_MAX_QUEUE": "1"},
    )  # fmt: skip
    with one.connect() as client, one.connect() as waiting:
        client.send_request("GET", "/block?held")
        gates.wait_reached("held")
        waiting.send_request("GET", "/pid")
        # One runs, one waits, and there is no room for a third.
        wait_until(lambda: one.get("/pid").status == 503, "the queue is full")
        assert client.read_response().status == 504
        gates.open("held")
        assert waiting.read_response().status == 200
    wait_until(lambda: "504 request_timeout" in one.output.text, "its line")
    assert "503 max_queue\n" in one.output.text


@pytest.mark.ours
def test_a_request_has_one_name_for_log_and_application(server):
    one = server("noted", "--access-logfile", "-", "--access-logformat", "%({request_id}x)s", "-w", "2")
    seen = [one.get("/").body.decode() for _ in range(4)]
    assert len(set(seen)) == 4
    for name in seen:
        assert re.fullmatch(r"[0-9a-f]{32}", name)
    assert sorted(lines_of(one, 4)) == sorted(seen)
    assert one.get("/", [("X-Request-ID", "mine")]).body == b"mine"
    # What could be more than a name is none.
    forged = one.get("/", [("X-Request-ID", 'x" 200 "')]).body.decode()
    assert re.fullmatch(r"[0-9a-f]{32}", forged)


@pytest.mark.ours
def test_requests_have_no_names_unless_the_log_shows_them(server):
    one = server("noted", "--access-logfile", "-")
    assert one.get("/", [("X-Request-ID", "mine")]).body == b"unnamed"


# -- JSON ------------------------------------------------------------------------------------------


@pytest.mark.ours
def test_json_lines(server):
    one = server("noted", "--access-logfile", "-", "--access-logformat", "json")
    fields = [("User-Agent", 'a "quoted"\ttab \xe9'), ("Referer", "http://r/"), ("traceparent", PARENT)]
    with one.connect() as client:
        client.request(
            "POST", "/reads/caf%C3%A9?x=%22", [*fields, ("Authorization", "Basic dXNlcjpwYXNz")], body=b"123"
        )
    with one.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        client.read_response()
    first, refused = (json.loads(line) for line in lines_of(one, 2))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("timestamp"))
    assert isinstance(first.pop("http.server.request.duration"), float)
    assert isinstance(first.pop("ferricorn.queue.duration"), float)
    assert first.pop("http.response.body.size") > 0
    assert first == {
        "client.address": "127.0.0.1",
        "user.name": "user",
        "http.request.method": "POST",
        "url.scheme": "http",
        "url.path": "/reads/caf%C3%A9",
        "url.query": "x=%22",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "http.request.body.size": 3,
        "user_agent.original": 'a "quoted"\ttab \xe9',
        "http.request.header.referer": ["http://r/"],
        "process.pid": one.workers()[0],
        "ferricorn.request.id": PARENT[3:35],
        "trace_id": PARENT[3:35],
        "span_id": PARENT[36:52],
    }
    assert refused["http.response.status_code"] == 400
    assert refused["ferricorn.reason"]
    assert "ferricorn.queue.duration" not in refused


@pytest.mark.ours
def test_json_fields_are_chosen(server, tmp_path):
    config = tmp_path / "conf.py"
    config.write_text(
        "access_log_format = 'json'\n"
        "access_log_fields = ['ip=client.address', 'http.request.header.x-twice']\n"
        "access_log_fields += ['environ.REMOTE_USER', 'server.port']\n"
    )
    one = server("noted", "--access-logfile", "-", "-c", str(config))
    one.get("/", [("X-Twice", "1"), ("X-Twice", "2"), ("Host", "h.test:81")])
    assert json.loads(lines_of(one, 1)[0]) == {
        "ip": "127.0.0.1",
        "http.request.header.x-twice": ["1", "2"],
        "environ.REMOTE_USER": "grace",
        "server.port": 81,
    }


@pytest.mark.ours
def test_an_unknown_json_field_stops_the_start():
    one = Server(["noted", "--access-logformat", "json", "--access-log-fields", "client.address,url.pth"])
    assert one.wait_exit() == 1
    assert 'Error: access_log_fields has no field "url.pth"' in one.log.join()
    one.reap()


# -- what is left out ------------------------------------------------------------------------------


@pytest.mark.ours
def test_excluded_paths_leave_no_line(server):
    one = server(
        "noted", "--access-logfile", "-", "--access-logformat", "%(U)s", "--access-log-exclude", "/healthz, /static/*"
    )
    for path in ("/healthz", "/healthz?full", "/static/a.css", "/healthz/deep", "/static"):
        one.get(path)
    assert lines_of(one, 2) == ["/healthz/deep", "/static"]


@pytest.mark.ours
def test_only_what_reaches_a_status_or_is_slow(server, gates):
    one = server(
        "probe:raw", "--access-logfile", "-", "--access-logformat", "%(U)s %(s)s", "--threads", "2",
        "--access-log-min-status", "400", "--access-log-slow", "0.3",
    )  # fmt: skip
    one.get("/status?line=200%20OK")
    one.get("/status?line=404%20Not%20Found")
    with one.connect() as client:
        client.send_request("GET", "/block?gate=slow")
        gates.wait_reached("slow")
        slow_enough = time.monotonic() + 0.3
        one.get("/status?line=500%20Oops")
        wait_until(lambda: time.monotonic() > slow_enough, "the request to be slow")
        gates.open("slow")
        client.read_response()
    assert lines_of(one, 3) == ["/status 404", "/status 500", "/block 200"]


# -- whole lines, none lost ------------------------------------------------------------------------


def test_lines_of_the_last_turn_are_written(server):
    """A stop right behind the requests: every answer that a client has read has its line."""
    one = server("noted", "--access-logfile", "-", "--access-logformat", "%(U)s", workers=2)
    for number in range(20):
        one.get(f"/{number}")
    one.send_signal(signal.SIGQUIT)
    assert one.wait_exit() == 0
    assert sorted(one.output.join().split()) == sorted(f"/{number}" for number in range(20))


def test_lines_of_workers_are_whole_in_a_pipe(server):
    """Standard output is a pipe: what is longer than a pipe takes at once must not be torn apart."""
    one = server("noted", "--access-logfile", "-", "--access-logformat", "<%({x-long}i)s>", "--threads", "2", workers=3)
    long = "abc" * 500
    clients = [one.connect() for _ in range(12)]
    for _ in range(10):
        for client in clients:
            client.send_request("GET", "/", [("X-Long", long)])
        for client in clients:
            client.read_response()
    for client in clients:
        client.close()
    assert set(lines_of(one, 120)) == {f"<{long}>"}
