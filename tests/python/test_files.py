"""Files as bodies, and bodies that do not end as they were announced."""

from __future__ import annotations

import gzip
import signal
from pathlib import Path

import pytest

from wire import Disconnected

APP = "files:application"
CONTENT = bytes(range(256)) * 400


@pytest.fixture
def content(tmp_path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", CONTENT),
        ("&kind=raw", CONTENT),
        ("&kind=object", CONTENT),
        ("&kind=temporary", CONTENT),
        ("&kind=pipe", b"through a pipe"),
        ("&offset=1000", CONTENT[1000:]),
        # Not the descriptor's position: what was read ahead is still to come.
        pytest.param("&offset=1000&read=10", CONTENT[1010:], marks=pytest.mark.ours),
        ("&offset=102400", b""),
        ("&length=1000", CONTENT[:1000]),
        ("&offset=7&length=1000", CONTENT[7:1007]),
    ],
)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_wrapped_file_arrives(server, content, query, expected, version):
    one = server(APP)
    with one.connect() as client:
        answer = client.request("GET", f"/file?path={content}{query}", version=version)
    assert answer.status == 200
    assert answer.body == expected
    assert "Traceback" not in one.log.text


@pytest.mark.ours
def test_a_decompressor_is_read_and_not_its_file(server, tmp_path):
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(CONTENT))
    assert server(APP).get(f"/file?path={packed}&kind=gzip").body == CONTENT


@pytest.mark.ours
def test_files_that_say_that_they_are_empty_are_read(server):
    assert server(APP).get("/file?path=/proc/self/status").text.startswith("Name:")


def test_head_of_a_file_has_its_length_only(server, content):
    one = server(APP)
    with one.connect() as client:
        answer = client.request("HEAD", f"/file?path={content}&length={len(CONTENT)}")
        assert (answer.header("Content-Length"), answer.body) == (str(len(CONTENT)), b"")
        assert client.request("GET", "/").text == "ok"


def test_a_file_that_is_no_file_is_closed_once_on_its_thread(server, gates, content):
    assert server(APP).get(f"/file?path={content}&kind=object").body == CONTENT
    assert len(gates.wait_notes("closed")) == 1


@pytest.mark.ours
def test_a_file_shorter_than_its_length_closes_the_connection(server, content):
    one = server(APP)
    with one.connect() as client:
        client.send_request("GET", f"/file?path={content}&length=200000")
        with pytest.raises(Disconnected) as cut:
            client.read_response()
    assert cut.value.partial == CONTENT
    line = f"GET /file?path={content}&length=200000 HTTP/1.1"
    one.log.wait(f"Response to {line.replace('?', '.')} is {200000 - len(CONTENT)} bytes shorter than its Content-Len")


@pytest.mark.ours
def test_a_file_that_shrinks_meanwhile_resets_the_connection(server, tmp_path):
    path = tmp_path / "shrinks"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    one = server(APP)
    with one.connect() as client:
        client.send_request("GET", f"/file?path={path}")
        assert client.read_head().header("Content-Length") == str(64 << 20)
        with path.open("r+b") as file:
            file.truncate(1 << 20)
        assert len(client.read_to_end()) < 64 << 20
    one.log.wait(r"The file sent to GET /file\S+ HTTP/1.1 was truncated while it was being sent; resetting")


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


@pytest.mark.slow
@pytest.mark.ours
def test_four_gib_are_served_with_flat_memory_and_no_thread(server, tmp_path):
    """The one thread is free while the client reads, and another client is answered in between."""
    path, size = tmp_path / "sparse", 4 << 30
    with path.open("wb") as file:
        file.truncate(size)
    one = server(APP, "--threads", "1")
    one.get("/")
    (worker,) = one.workers()
    idle = resident_kib(worker)
    buffer = bytearray(1 << 20)
    with one.connect() as client:
        client.send_request("GET", f"/file?path={path}")
        assert client.read_head().header("Content-Length") == str(size)
        left, most, reads = size - len(client.buffered()), 0, 0
        while left:
            got = client.socket.recv_into(buffer)
            assert got, f"{left} bytes are missing"
            left -= got
            reads += 1
            if reads % 500 == 1:
                most = max(most, resident_kib(worker))
                assert one.get("/").text == "ok"
    assert most - idle < 20 * 1024, f"{idle} KiB idle, {most} KiB while sending"


# -- more or less than announced -------------------------------------------------------------------


ENDLESS = [pytest.param(target, marks=pytest.mark.ours) for target in ("/too_long", "/too_long?split")]


@pytest.mark.parametrize("target", [*ENDLESS, "/too_long_list"])
def test_bytes_beyond_the_length_are_cut_and_the_connection_goes_on(server, target):
    one = server(APP)
    with one.connect() as client:
        assert len(client.request("GET", target).body) == 10
        assert client.request("GET", "/").text == "ok"


@pytest.mark.ours
@pytest.mark.parametrize("target", ["/too_long", "/too_long?split", "/too_long_list"])
def test_bytes_beyond_the_length_are_logged_once_with_the_request_and_end_the_iteration(server, gates, target):
    one = server(APP)
    assert len(one.get(target).body) == 10
    if "list" not in target:
        assert gates.wait_notes("closed") == ["too_long"]
        assert len(gates.notes("asked")) <= 3
    one.log.wait("longer than its Content-Length")
    one.stop()
    lines = [line for line in one.log.join().splitlines() if "longer than its Content-Length" in line]
    assert len(lines) == 1
    assert f"Response to GET {target} HTTP/1.1 is " in lines[0]


@pytest.mark.ours
def test_a_head_request_cuts_no_body(server):
    one = server(APP)
    with one.connect() as client:
        assert client.request("HEAD", "/too_long_list").body == b""
        assert client.request("GET", "/too_long_list").body
    one.log.wait("Response to GET /too_long_list HTTP/1.1 is")
    one.stop()
    assert "Response to HEAD" not in one.log.join()


# -- broken off ------------------------------------------------------------------------------------


@pytest.mark.ours
def test_a_broken_off_stream_has_no_end(server, gates):
    one = server(APP, "--access-logfile", "-")
    with one.connect() as client:
        client.send_request("GET", "/breaks_off")
        assert client.read_head().is_chunked
        assert client.read_chunk() == b"first"
        assert client.read_to_end() == b"", "no last chunk"
    one.log.wait(r"Error handling request GET /breaks_off")
    one.log.wait(r"Response to GET /breaks_off HTTP/1.1 was aborted after 5 bytes of its body")
    one.output.wait('"GET /breaks_off HTTP/1.1" 200 5')
    assert len(gates.wait_notes("closed")) == 1


@pytest.mark.ours
def test_a_broken_off_http_1_0_body_ends_in_a_reset(server, gates):
    """Nothing but the end of the connection delimits it, so an orderly end would make it look whole."""
    one = server(APP)
    with one.connect() as client:
        client.send_request("GET", "/breaks_off?slowly", version="HTTP/1.0")
        assert client.read_head().status == 200
        assert client.read_exactly(5) == b"first"
        gates.open("break")
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)


def test_a_whole_http_1_0_body_ends_in_good_order(server, content):
    one = server(APP)
    with one.connect() as client:
        client.send_request("GET", f"/file?path={content}&kind=object", version="HTTP/1.0")
        assert client.read_head().header("Content-Length") is None
        assert client.read_exactly(len(CONTENT)) == CONTENT
        assert client.socket.recv(1) == b""


@pytest.mark.ours
@pytest.mark.parametrize("how", ["disconnect", "quick stop"])
def test_a_stream_that_is_given_up_is_closed_once_on_its_thread(server, gates, how):
    one = server(APP, "--threads", "2")
    with one.connect() as client:
        client.send_request("GET", "/endless")
        client.read_head()
        if how == "disconnect":
            client.reset()
        else:
            one.send_signal(signal.SIGQUIT)
        assert gates.wait_notes("closed") == gates.notes("thread")
    if how == "quick stop":
        assert one.wait_exit() == 0
    assert len(gates.notes("closed")) == 1
