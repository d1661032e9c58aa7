"""HTTP/2 without TLS: streams, windows, limits, and what breaks the protocol."""

from __future__ import annotations

import contextlib
import re
import signal
import ssl
import subprocess

import httpx
import pytest
from frames import (
    CANCEL,
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    INTERNAL_ERROR,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Frames,
)
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from harness import PATIENCE_S, Server, wait_until
from wire import Client

pytestmark = pytest.mark.ours

H2C = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")


@pytest.fixture
def h2(server):
    def start(*arguments: str, **options) -> Server:
        return server("streams:application", "--threads", "2", *H2C, *arguments, **options)

    return start


def connect(one: Server, **options) -> Frames:
    return Frames(one.address, PATIENCE_S, **options)


# -- requests --------------------------------------------------------------------------------------


def test_a_request_has_the_environ_of_http_2(h2):
    one = h2("--access-logfile", "-", "--access-logformat", "%(r)s %(H)s %(s)s")
    with connect(one) as client:
        fields = [
            ("x-name", "caf\xe9".encode("latin-1")),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-a", "1"),
            ("x-a", "2"),
        ]
        reply = client.reply(client.ask("/environ?q=1", fields=fields))
    assert (reply.status, reply.header("x-name")) == (200, "caf\xe9".encode("latin-1"))
    environ = reply.body.decode("latin-1").splitlines()
    for line in (
        "SERVER_PROTOCOL='HTTP/2.0'",
        "HTTP_HOST='localhost'",
        "RAW_URI='/environ?q=1'",
        "QUERY_STRING='q=1'",
        "HTTP_X_NAME='caf\xe9'",
        "HTTP_COOKIE='a=1; b=2'",
        "HTTP_X_A='1,2'",
        "wsgi.url_scheme='http'",
    ):
        assert line in environ
    assert reply.header("server") and reply.header("date")
    one.output.wait(r"GET /environ\?q=1 HTTP/2.0 HTTP/2.0 200")


def test_a_body_comes_whole_in_either_direction(h2):
    body = bytes(range(256)) * 2000
    with connect(h2()) as client:
        stream = client._next
        client._next += 2
        client.send(client.headers_frame(stream, client.head("/echo", "POST")))
        sent, window = 0, 65535
        while sent < len(body):
            size = min(16384, window, len(body) - sent)
            if size == 0:
                frame = client.wait(WindowUpdateFrame)
                window += frame.window_increment if frame.stream_id == stream else 0
                continue
            sent += size
            window -= size
            client.send(DataFrame(stream, body[sent - size : sent], flags=["END_STREAM"] if sent == len(body) else []))
        assert client.reply(stream).body == body


def test_an_upload_reaches_the_application_as_it_comes(h2):
    with connect(h2("--no-request-buffering")) as client:
        stream = client.ask("/echo", "POST", body=b"z" * 50_000)
        assert client.reply(stream).body == b"z" * 50_000


def test_streams_run_side_by_side_and_a_slow_one_delays_nobody(h2, gates):
    with connect(h2()) as client:
        slow = client.ask("/gate/slow")
        gates.wait_reached("slow")
        for _ in range(20):
            assert client.reply(client.ask()).body == b"hello"
        assert not client.replies[slow].over if slow in client.replies else True
        gates.open("slow")
        assert client.reply(slow).body == b"gated"


@pytest.mark.slow
def test_a_hundred_stalled_streams_hold_no_thread_and_delay_no_other_client(h2):
    one = h2()
    with connect(one, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as stalled, connect(one) as client:
        stalled.credits = False
        streams = [stalled.ask("/large") for _ in range(100)]
        while any(stream not in stalled.replies for stream in streams):
            assert stalled.step()
        for _ in range(100):
            assert client.reply(client.ask()).body == b"hello"
        stalled.credits = True
        stalled.send(WindowUpdateFrame(streams[0], 1 << 21), WindowUpdateFrame(0, 1 << 21))
        assert len(stalled.reply(streams[0]).body) == 1 << 20


def test_responses_take_turns(h2):
    with connect(h2(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 22}) as client:
        client.credits = False  # the connection's window holds all four back until all four have begun
        streams = [client.ask("/large") for _ in range(4)]
        while any(stream not in client.replies for stream in streams):
            assert client.step()
        begun = len(client.frames)
        client.credits = True
        client.send(WindowUpdateFrame(0, 1 << 24))
        for stream in streams:
            assert len(client.reply(stream).body) == 1 << 20
        order = [frame.stream_id for frame in client.frames[begun:] if isinstance(frame, DataFrame)]
        ends = [max(at for at, stream in enumerate(order) if stream == wanted) for wanted in streams]
        starts = [order.index(wanted) for wanted in streams]
        assert max(starts) < min(ends), "each began before any was over"


@pytest.mark.parametrize("target", ["/items", "/large"])
def test_a_body_waits_for_the_clients_window(h2, target):
    with connect(h2()) as client:
        client.credits = False
        stream = client.ask(target)
        while len(client.replies.get(stream, Frames).body if stream in client.replies else b"") < 65535:
            assert client.step()
        client.send(PingFrame(0, opaque_data=b"12345678"))
        client.wait(PingFrame)
        assert len(client.replies[stream].body) == 65535
        client.credits = True
        client.send(WindowUpdateFrame(stream, 1 << 21), WindowUpdateFrame(0, 1 << 21))
        assert len(client.reply(stream).body) >= 1_000_000


def test_interim_answers(h2):
    with connect(h2()) as client:
        assert client.reply(client.ask("/hints")).interim == [103]
        stream = client._next
        client._next += 2
        expecting = client.head("/echo", "POST", [("expect", "100-continue"), ("content-length", "4")])
        client.send(client.headers_frame(stream, expecting))
        while stream not in client.replies:
            assert client.step()
        assert client.replies[stream].interim == [100]
        client.send(DataFrame(stream, b"body", flags=["END_STREAM"]))
        assert client.reply(stream).body == b"body"
        assert client.reply(client.ask("/", fields=[("expect", "miracles")])).status == 417


def test_answers_without_a_body(h2):
    with connect(h2()) as client:
        head = client.reply(client.ask("/", "HEAD"))
        assert (head.status, head.body, head.header("content-length")) == (200, b"", b"5")
        nothing = client.reply(client.ask("/nothing"))
        assert (nothing.status, nothing.body, nothing.header("content-length")) == (204, b"", None)


def test_an_application_that_fails_is_seen_to_fail(h2):
    with connect(h2()) as client:
        failed = client.reply(client.ask("/fail"))
        assert failed.status == 500 and b"secret" not in failed.body
        late = client.reply(client.ask("/late"))
        assert (late.status, late.body, late.reset) == (200, b"part", INTERNAL_ERROR)
        short = client.reply(client.ask("/short"))
        assert (short.status, short.body, short.reset) == (200, b"short", INTERNAL_ERROR)
        assert client.reply(client.ask()).body == b"hello"


def test_an_early_answer_ends_an_upload_without_error(h2):
    one = h2("--limit-request-body", "1000")
    with connect(one) as client:
        for fields in [[("content-length", "5000")], []]:
            stream = client._next
            client._next += 2
            client.send(client.headers_frame(stream, client.head("/echo", "POST", fields)))
            client.send(DataFrame(stream, b"x" * 5000))
            assert client.reply(stream).status == 413
            while client.replies[stream].reset is None:
                assert client.step()
            assert client.replies[stream].reset == NO_ERROR
        assert client.reply(client.ask()).status == 200
    # Refused at the head, and when it is too long.
    one.log.wait(r"Invalid request from ip=127\.0\.0\.1: Request body is too large \(limit 1000\)", 2)


@pytest.mark.parametrize(
    ("target", "fields", "status"),
    [
        ("/" + "a" * 5000, [], 414),
        ("/echo", [("x", "a" * 9000)], 431),
        ("/echo", [(f"x-{n}", "a") for n in range(101)], 431),
        ("/echo", [(f"x-{n}", "a" * 8000) for n in range(9)], 431),
        ("/echo", [("host", "other")], 400),
        ("/echo", [("expect", "miracles")], 417),
    ],
)
def test_a_head_that_is_refused_before_its_body_is_in_is_no_error_of_the_stream(h2, target, fields, status):
    with connect(h2()) as client:
        stream = client.begin(target, fields)
        client.send(DataFrame(stream, b"x" * 100))
        assert client.reply(stream).status == status
        while client.replies[stream].reset is None:
            assert client.step()
        assert client.replies[stream].reset == NO_ERROR
        client.send(DataFrame(stream, b"x" * 100, flags=["END_STREAM"]))
        assert client.reply(client.ask()).body == b"hello"


@pytest.mark.parametrize("mark", ['"', "<", ">", "`", "#", '{"a":["<b>"]}#c'])
def test_a_target_is_what_it_is_over_http_1(server, mark):
    one = server("streams:application", *H2C[:-1], "both")

    def seen(body: bytes) -> list[str]:
        lines = body.decode().splitlines()
        return [line for line in lines if line.startswith(("RAW_URI=", "PATH_INFO=", "QUERY_STRING="))]

    for target in (f"/environ?q={mark}&r", f"/environ/a{mark}?q={mark}"):
        plain = one.get(target)
        assert plain.status == 200 and f"RAW_URI={target!r}" in seen(plain.body)
        with connect(one) as client:
            # The second names the entry that the first has left in the table.
            for _ in range(2):
                reply = client.reply(client.ask(target))
                assert (reply.status, seen(reply.body)) == (200, seen(plain.body))
            assert client.reply(client.ask("/nothing")).status == 204


@pytest.mark.parametrize("how", ["whole", "streamed", "late", "twice", "empty"])
def test_trailers_follow_the_body(h2, how):
    with connect(h2()) as client:
        reply = client.reply(client.ask(f"/trailers/{how}"))
        assert (reply.status, reply.body) == (200, b"" if how == "empty" else b"summed")
        assert reply.trailers == [(b"x-sum", "caf\xe9".encode("latin-1")), (b"x-sum", b"2")]
        # HEAD has no body that they could follow.
        assert client.reply(client.ask(f"/trailers/{how}", "HEAD")).trailers == []
        assert client.reply(client.ask()).body == b"hello"


def test_trailers_are_checked_and_http_1_has_none(h2):
    one = h2("--http2-cleartext", "off")
    assert one.get("/trailers/whole").status == 500
    one.log.wait("KeyError: 'gunicorn.http2.send_trailers'")
    with connect(h2()) as client:
        assert b":status" in client.reply(client.ask("/trailers/pseudo")).body


def test_the_environ_has_what_gunicorns_has(h2, gates):
    one = h2()
    with connect(one) as client:
        lines = client.reply(client.ask("/keys", fields=[("version", "9")])).body.decode().splitlines()
        assert lines == ["HTTP_VERSION='2'", "priority_depends_on=0", "priority_weight=16"]
        stream = client._next
        client._next += 2
        head = client.head("/keys")
        frame = HeadersFrame(stream, client.block(head), flags=["END_HEADERS", "END_STREAM", "PRIORITY"])
        frame.stream_weight, frame.depends_on = 200, 1
        client.send(frame)
        lines = client.reply(stream).body.decode().splitlines()
        assert lines[1:] == ["priority_depends_on=1", "priority_weight=201"]
        # PRIORITY comes as a frame of its own while the request waits.
        streams = [client.ask(f"/gate/p{number}") for number in range(2)]
        gates.wait_reached("p0")
        gates.wait_reached("p1")
        waiting = client.ask("/keys")
        client.send(PriorityFrame(waiting, stream_weight=7, depends_on=streams[0]))
        client.send(PingFrame(0, opaque_data=bytes(8)))
        client.wait(PingFrame)
        gates.open("p0")
        gates.open("p1")
        lines = client.reply(waiting).body.decode().splitlines()
        assert lines[1:] == [f"priority_depends_on={streams[0]}", "priority_weight=8"]


# -- limits and rules ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "fields", "options", "status"),
    [
        ("/" + "a" * 5000, [], {}, 414),
        ("/", [("x", "a" * 9000)], {}, 431),
        ("/", [(f"x-{n}", "a") for n in range(101)], {}, 431),
        ("/", [(f"x-{n}", "a" * 8000) for n in range(9)], {}, 431),
        ("/", [("host", "other")], {}, 400),
        ("/", [("host", "a"), ("host", "a")], {"authority": None}, 400),
        ("/", [("x", " a")], {}, 400),
        ("/", [("n" * 70_000, "a")], {}, None),
        ("relative", [], {}, None),
        ("/", [("connection", "close")], {}, None),
        ("/", [("te", "gzip")], {}, None),
        ("/", [("content-length", "5")], {}, None),
    ],
)
def test_a_bad_request_is_answered_on_its_stream(h2, target, fields, options, status):
    with connect(h2()) as client:
        reply = client.reply(client.ask(target, fields=fields, **options))
        if status is None:
            assert reply.status == 400 or reply.reset == PROTOCOL_ERROR
        else:
            assert reply.status == status
        assert client.reply(client.ask()).body == b"hello", "the connection is kept"


@pytest.mark.parametrize("authority", ["a.example:443", "127.0.0.1:443", "[::1]:443"])
def test_a_tunnel_is_not_implemented(h2, authority):
    with connect(h2()) as client:
        client.send(client.headers_frame(1, [(":method", "CONNECT"), (":authority", authority)], "END_STREAM"))
        assert client.reply(1).status == 501
        client._next = 3
        assert client.reply(client.ask()).body == b"hello", "the connection is kept"


def test_pseudo_fields_in_trailers_are_malformed(h2, gates):
    with connect(h2()) as client:
        stream = client._next
        client._next += 2
        client.send(client.headers_frame(stream, client.head("/note/trailers", "POST")))
        client.send(DataFrame(stream, b"body"), client.headers_frame(stream, [(":path", "/x")], "END_STREAM"))
        assert client.reply(stream).reset == PROTOCOL_ERROR
        good = client._next
        client._next += 2
        client.send(client.headers_frame(good, client.head("/echo", "POST")))
        client.send(DataFrame(good, b"body"), client.headers_frame(good, [("x-sum", "1")], "END_STREAM"))
        assert client.reply(good).body == b"body"
    assert gates.notes("ran") == []


def frames_that_end(client: Frames) -> dict[str, tuple[bytes, int]]:
    """By name: what breaks the connection, and the code that RFC 9113 has for it."""
    block = client.block(client.head())
    first = HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]).serialize()
    return {
        "DATA on stream 0": (b"\0\0\1\0\0\0\0\0\0x", PROTOCOL_ERROR),
        "DATA on an idle stream": (DataFrame(5, b"x").serialize(), PROTOCOL_ERROR),
        "HEADERS on stream 0": (b"\0\0\1\1\5\0\0\0\0\x82", PROTOCOL_ERROR),
        "an even stream": (b"\0\0\1\1\5\0\0\0\2\x82", PROTOCOL_ERROR),
        "a push": (b"\0\0\4\5\4\0\0\0\1\0\0\0\2", PROTOCOL_ERROR),
        "a broken header block": (b"\0\0\1\1\5\0\0\0\1\xff", COMPRESSION_ERROR),
        "PING of 7 bytes": (b"\0\0\7\6\0\0\0\0\0" + bytes(7), FRAME_SIZE_ERROR),
        "SETTINGS of 5 bytes": (b"\0\0\5\4\0\0\0\0\0" + bytes(5), FRAME_SIZE_ERROR),
        "SETTINGS on a stream": (b"\0\0\0\4\0\0\0\0\1", PROTOCOL_ERROR),
        "a window of 2^31": (b"\0\0\6\4\0\0\0\0\0\0\4\x80\0\0\0", FLOW_CONTROL_ERROR),
        "a large frame": (b"\0\x40\1\0\0\0\0\0\1" + bytes(16385), FRAME_SIZE_ERROR),
        "a window update of 0": (b"\0\0\4\x08\0\0\0\0\0" + bytes(4), PROTOCOL_ERROR),
        "a window past its end": (WindowUpdateFrame(0, 0x7FFFFFFF).serialize(), FLOW_CONTROL_ERROR),
        "RST_STREAM on an idle stream": (RstStreamFrame(9, error_code=8).serialize(), PROTOCOL_ERROR),
        "CONTINUATION alone": (ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize(), PROTOCOL_ERROR),
        "a frame within a header block": (
            HeadersFrame(1, block[:2]).serialize() + PingFrame(0, opaque_data=bytes(8)).serialize(),
            PROTOCOL_ERROR,
        ),
        "an old stream": (
            HeadersFrame(3, block, flags=["END_HEADERS", "END_STREAM"]).serialize() + first,
            PROTOCOL_ERROR,
        ),
    }


def test_what_breaks_the_connection_ends_it_with_the_code_of_the_rfc(h2):
    one = h2()
    with connect(one) as probe:
        names = list(frames_that_end(probe))
    seen = {}
    for name in names:
        with connect(one) as client:
            data, code = frames_that_end(client)[name]
            client.send_bytes(data)
            goaways = client.end()
            seen[name] = (goaways[-1][1] if goaways else None, code)
    assert {name: pair for name, pair in seen.items() if pair[0] != pair[1]} == {}


def test_the_first_frame_is_settings(h2):
    with connect(h2(), begin=False) as client:
        client.send_bytes(PREFACE)
        client.send(PingFrame(0, opaque_data=bytes(8)))
        assert client.end()[-1][1] == PROTOCOL_ERROR


def test_a_preface_in_pieces_and_one_that_is_wrong(h2):
    one = h2()
    with connect(one, begin=False) as client:
        for byte in PREFACE:
            client.send_bytes(bytes([byte]))
        client.send(SettingsFrame(0))
        assert client.reply(client.ask()).body == b"hello"
    with one.connect() as plain:
        plain.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        response = plain.read_response()
        assert response.status == 400 and "Expected HTTP/2 connection preface" in response.text
    one.log.wait(
        r"\[WARNING\] Invalid request from ip=127.0.0.1: Expected HTTP/2 connection preface, got b'GET / HTTP/1.*"
        r" \(http2_cleartext is prior-knowledge; with both, HTTP/1 is served too\)$"
    )


def test_only_trusted_peers_speak_it(h2):
    one = h2("--forwarded-allow-ips", "192.0.2.1")
    with one.connect() as plain:
        plain.send(PREFACE)
        assert plain.read_response().status in (400, 505)
    assert one.get("/").text == "hello"


# -- guards ----------------------------------------------------------------------------------------


def flood(client: Frames, data: bytes, times: int) -> int:
    """Send until the server ends the connection. Returns its code."""
    client.credits = client.acknowledges = False
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(times):
            client.send_bytes(data)
    client.end()
    return client.goaways[-1][1]


@pytest.mark.parametrize(
    "frames",
    [
        PingFrame(0, opaque_data=bytes(8)).serialize(),
        SettingsFrame(0).serialize(),
        b"\0\0\0\x63\0\0\0\0\0",
    ],
)
def test_control_frames_are_bounded(h2, frames):
    with connect(h2()) as client:
        assert flood(client, frames * 100, 11) == ENHANCE_YOUR_CALM


def test_metrics_name_what_connections_were_ended_for(h2, tmp_path):
    one = h2("--admin-bind", f"unix:{tmp_path}/admin.sock")

    def counted() -> dict[str, str]:
        with Client(f"{tmp_path}/admin.sock", PATIENCE_S) as admin:
            admin.send_request("GET", "/metrics")
            text = admin.read_response().body.decode()
        return dict(re.findall(r'^ferricorn_http2_ended_total\{guard="(\w+)"\} (\d+)$', text, re.M))

    assert set(counted().values()) == {"0"} and len(counted()) == 8
    flood = PingFrame(0, opaque_data=bytes(8)).serialize() * 1001
    for data in (flood, flood, b"\0\0\1\1\5\0\0\0\1\xff"):
        with connect(one) as client, contextlib.suppress(ConnectionError):
            client.send_bytes(data)
            client.end()
    wait_until(lambda: counted()["control"] == "2" and counted()["protocol"] == "1", "they are counted")


def test_empty_data_is_bounded(h2):
    with connect(h2()) as client:
        client.send(client.headers_frame(1, client.head("/echo", "POST")))
        assert flood(client, DataFrame(1, b"").serialize() * 101, 1) == ENHANCE_YOUR_CALM


def test_useless_frames_are_bounded_by_what_they_serve(h2):
    with connect(h2()) as client:
        assert (
            flood(client, PriorityFrame(1, depends_on=3, stream_weight=1).serialize() * 10_000, 90) == ENHANCE_YOUR_CALM
        )


def test_continuations_are_bounded(h2):
    with connect(h2()) as client:
        client.send(HeadersFrame(1, client.block(client.head())))
        assert flood(client, ContinuationFrame(1, b"").serialize() * 20, 1) == ENHANCE_YOUR_CALM


def test_rapid_reset_is_bounded_and_runs_nothing(h2, gates):
    with connect(h2()) as client:
        for number in range(2):
            client.ask(f"/gate/hold{number}")
        gates.wait_reached("hold0")
        gates.wait_reached("hold1")
        client.wait(SettingsFrame)
        data = b""
        for stream in range(5, 5 + 2 * 300, 2):
            data += client.headers_frame(stream, client.head("/note/x"), "END_STREAM").serialize()
            data += RstStreamFrame(stream, error_code=CANCEL).serialize()
        assert flood(client, data, 1) == ENHANCE_YOUR_CALM
    gates.open("hold0")
    gates.open("hold1")
    gates.wait_notes("gone", 2)
    assert gates.notes("ran") == []


def test_a_few_resets_are_what_browsers_do(h2):
    with connect(h2()) as client:
        client.wait(SettingsFrame)
        for _ in range(100):
            stream = client.ask("/large")
            client.send(RstStreamFrame(stream, error_code=CANCEL))
        assert client.reply(client.ask()).body == b"hello"


def test_a_reset_stream_counts_until_its_job_is_over(h2, gates):
    with connect(h2("--http2-max-concurrent-streams", "2")) as client:
        for number in range(2):
            stream = client.ask(f"/gate/g{number}")
            gates.wait_reached(f"g{number}")
            client.send(RstStreamFrame(stream, error_code=CANCEL))
        assert client.reply(client.ask()).reset == REFUSED_STREAM
        gates.open("g0")
        assert gates.wait_notes("gone", 1) == ["g0 True"]
        wait_until(lambda: client.reply(client.ask()).body == b"hello", "there is room again")
        gates.open("g1")


def test_a_waiting_request_of_a_gone_client_is_not_run(h2, gates):
    one = h2()
    with connect(one) as client:
        for number in range(2):
            client.ask(f"/gate/w{number}")
            gates.wait_reached(f"w{number}")
        for number in range(10):
            client.ask(f"/note/{number}")
        client.send(PingFrame(0, opaque_data=bytes(8)))
        client.wait(PingFrame)
    gates.open("w0")
    gates.open("w1")
    gates.wait_notes("gone", 2)
    with connect(one) as client:
        assert client.reply(client.ask()).body == b"hello"
    assert gates.notes("ran") == []


# -- the end ---------------------------------------------------------------------------------------


def test_an_idle_connection_ends_with_goaway(h2):
    with connect(h2("--keep-alive", "1")) as client:
        assert client.reply(client.ask()).body == b"hello"
        assert client.end() == [(1, NO_ERROR)]


@pytest.mark.parametrize("is_busy", [False, True])
def test_term_says_goodbye_twice_and_finishes(h2, gates, is_busy):
    one = h2()
    with connect(one) as client:
        assert client.reply(client.ask()).body == b"hello"
        if is_busy:
            stream = client.ask("/gate/term")
            gates.wait_reached("term")
        one.send_signal(signal.SIGTERM)
        client.wait(GoAwayFrame)
        assert client.goaways == [(0x7FFFFFFF, NO_ERROR)]
        late = client.ask()
        ping = client.wait(PingFrame) if not any(isinstance(f, PingFrame) for f in client.frames) else client.frames[-1]
        client.send(PingFrame(0, opaque_data=ping.opaque_data, flags=["ACK"]))
        assert client.reply(late).body == b"hello", "it was on its way"
        if is_busy:
            gates.open("term")
            assert client.reply(stream).body == b"gated"
        goaways = client.end()
        assert goaways[-1] == (late, NO_ERROR) and len(goaways) == 2
    assert one.wait_exit() == 0


@pytest.mark.parametrize("is_busy", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stop_that_waits_for_nothing_says_which_requests_were_taken(h2, gates, number, is_busy):
    one = h2("--graceful-timeout", "1")
    with connect(one) as client:
        assert client.reply(client.ask()).body == b"hello"
        last = 1
        if is_busy:
            last = client.ask("/gate/held")
            gates.wait_reached("held")
        one.send_signal(number)
        if number == signal.SIGTERM:
            # The client does not say what is on its way, and the request outlives `graceful_timeout`.
            client.wait(GoAwayFrame)
        assert client.end()[-1] == (last, NO_ERROR)
        gates.open("held")


def test_a_silent_client_does_not_hold_a_stop(h2):
    one = h2()
    with connect(one) as client:
        assert client.reply(client.ask()).body == b"hello"
        one.send_signal(signal.SIGTERM)
        assert one.wait_exit() == 0


def test_request_timeout_answers_on_the_stream(h2, gates):
    with connect(h2("--request-timeout", "1")) as client:
        stream = client.ask("/gate/long")
        gates.wait_reached("long")
        assert client.reply(stream).status == 504
        assert client.reply(client.ask()).body == b"hello"
        gates.open("long")


# -- real clients ----------------------------------------------------------------------------------


def test_httpx_speaks_it(h2):
    host, port = h2().address
    with httpx.Client(http1=False, http2=True) as client:
        for _ in range(3):
            response = client.post(f"http://{host}:{port}/echo", content=b"a" * 100_000)
            assert (response.http_version, response.content) == ("HTTP/2", b"a" * 100_000)


@pytest.fixture
def certificate(tmp_path):
    path = tmp_path / "all.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(path)]
    command = ["openssl", "req", "-x509", *key, *subject, "-days", "30", "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return path


@pytest.mark.parametrize("is_tls", [False, True])
def test_the_scheme_is_what_a_trusted_client_says_in_any_case(server, certificate, is_tls):
    arguments = ("--certfile", str(certificate)) if is_tls else H2C[2:]
    one = server("streams:application", "--http-protocols", "h1,h2", *arguments)
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2"])
    with connect(one, begin=False) as client:
        if is_tls:
            client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        client.send_bytes(PREFACE)
        client.send(SettingsFrame(0))
        seen = {}
        for scheme in ("http", "HTTP", "https", "HTTPS", "coap"):
            stream = client._next
            client._next += 2
            head = client.head("/environ")
            head[1] = (":scheme", scheme)
            client.send(client.headers_frame(stream, head, "END_STREAM"))
            lines = client.reply(stream).body.decode("latin-1").splitlines()
            seen[scheme] = next(line for line in lines if line.startswith("wsgi.url_scheme="))
    other = "https" if is_tls else "http"
    said = {"http": "http", "HTTP": "http", "https": "https", "HTTPS": "https", "coap": other}
    assert seen == {scheme: f"wsgi.url_scheme={value!r}" for scheme, value in said.items()}


@pytest.mark.parametrize(("protocols", "chosen"), [("h2,h1", "HTTP/2"), ("h1,h2", "HTTP/1.1"), ("h2", "HTTP/2")])
def test_alpn_chooses_the_preferred_protocol(server, certificate, protocols, chosen):
    one = server("streams:application", "--certfile", str(certificate), "--http-protocols", protocols)
    host, port = one.address
    context = ssl.create_default_context(cafile=certificate)
    with httpx.Client(http2=True, verify=context) as client:
        for target in ("/environ", "/large", "/items"):
            response = client.get(f"https://{host}:{port}{target}")
            assert (response.http_version, response.status_code) == (chosen, 200)
        response = client.post(f"https://{host}:{port}/echo", content=b"a" * 300_000)
        assert response.content == b"a" * 300_000
        environ = client.get(f"https://{host}:{port}/environ").text
    assert "wsgi.url_scheme='https'" in environ
    assert one.stop() == 0
