"""`wsgi.file_wrapper` over what only looks like a file: it is read, and closed when the last of it has left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from test_files import resident_kib

from harness import COMMAND, PATIENCE_S, wait_until
from wire import Client, Disconnected

APP = "lookalikes:application"
# More than sockets hold.
SIZE = 8_000_000
CONTENT = (b"Twelve Bytes" * (SIZE // 12 + 1))[:SIZE]


@pytest.fixture
def content(tmp_path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


def slow(one) -> Client:
    """A client that has room for little, so that its server has most of a body still to send."""
    return Client(one.address, PATIENCE_S, receive_buffer=4096)


def let_others(one) -> None:
    """Requests run and end: what the server could have closed meanwhile would be closed."""
    for _ in range(20):
        assert one.get("/").text == "ok"


# -- what arrives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["", f"&length={SIZE}"], ids=["chunked", "length"])
@pytest.mark.parametrize("kind", ["Wiped", "Truncated", "Reused"])
@pytest.mark.ours
def test_a_file_that_close_wipes_arrives_as_it_was(server, content, kind, length):
    one = server(APP, "--threads", "2")
    with slow(one) as client:
        client.send_request("GET", f"/file?kind={kind}&path={content}{length}")
        assert client.read_response().body == CONTENT


@pytest.mark.ours
@pytest.mark.parametrize("kind", ["Delegating", "patched", "Derived", "Buffered"])
def test_an_object_with_a_read_of_its_own_is_read(server, content, kind):
    assert server(APP).get(f"/file?kind={kind}&path={content}").body == CONTENT.swapcase()


@pytest.mark.ours
@pytest.mark.parametrize(
    "kind", ["NoFileno", "OddFileno", "WrongFileno", "WrongTell", "OnlyRead", "spooled", "temporary", "plain"]
)
def test_an_object_arrives_whatever_its_fileno_says(server, content, kind):
    one = server(APP)
    assert one.get(f"/file?kind={kind}&path={content}").body == CONTENT
    assert "Traceback" not in one.log.text


@pytest.mark.ours
def test_an_object_is_read_in_the_blocks_that_the_application_chose(server, gates, content):
    assert server(APP).get(f"/file?kind=Sized&path={content}&block=100000").body == CONTENT
    assert set(gates.wait_notes("sizes", patience=3)) == {"100000"}


# -- when it is closed -----------------------------------------------------------------------------


@pytest.mark.ours
@pytest.mark.parametrize("kind", ["Stored", "Delegating", "patched"])
def test_close_waits_for_the_last_byte_and_is_called_once_on_a_pool_thread(server, gates, content, kind):
    one = server(APP, "--threads", "2")
    with slow(one) as client:
        client.send_request("GET", f"/file?kind={kind}&path={content}&length={SIZE}")
        client.read_head()
        let_others(one)
        assert gates.notes("closed") == []
        client.read_exactly(SIZE)
    (name,) = gates.wait_notes("closed")
    assert name.startswith("ferricorn-thread")
    one.get("/")
    assert len(gates.notes("closed")) == 1


@pytest.mark.ours
def test_a_real_file_is_closed_when_its_last_byte_has_left(server, gates, content):
    """It is sent by the kernel, and only its `close` is the application's, as with Django's FileResponse."""
    one = server(APP, "--threads", "2")
    with slow(one) as client:
        client.send_request("GET", f"/file?kind=closing&path={content}")
        client.read_head()
        let_others(one)
        assert gates.notes("closed") == []
        assert client.read_exactly(SIZE) == CONTENT
    (name,) = gates.wait_notes("closed")
    assert name.startswith("ferricorn-thread")
    one.get("/")
    assert len(gates.notes("closed")) == 1


@pytest.mark.ours
@pytest.mark.parametrize("how", ["leaves", "resets", "stop"])
def test_a_real_file_is_closed_once_however_its_sending_ends(server, gates, content, how):
    one = server(APP, "--threads", "2", "--graceful-timeout", "1")
    with slow(one) as client:
        client.send_request("GET", f"/file?kind=closing&path={content}")
        client.read_head()
        let_others(one)
        assert gates.notes("closed") == []
        if how == "stop":
            one.send_signal(signal.SIGTERM)
            assert one.wait_exit() == 0
        else:
            client.close() if how == "leaves" else client.reset()
        gates.wait_notes("closed", patience=5)
    if how != "stop":
        assert one.get("/").text == "ok"
    assert len(gates.notes("closed")) == 1


@pytest.mark.ours
@pytest.mark.parametrize("how", ["leaves", "resets"])
def test_close_is_called_once_when_the_client_leaves(server, gates, content, how):
    one = server(APP, "--threads", "2")
    with slow(one) as client:
        client.send_request("GET", f"/file?kind=Stored&path={content}")
        client.read_head()
        let_others(one)
        assert gates.notes("closed") == []
        client.close() if how == "leaves" else client.reset()
    (name,) = gates.wait_notes("closed", patience=5)
    assert name.startswith("ferricorn-thread")
    assert one.get("/").text == "ok"
    assert len(gates.notes("closed")) == 1


@pytest.mark.ours
def test_close_is_called_once_when_the_client_takes_nothing(server, gates, content):
    one = server(APP, "--threads", "2", env={"FERRICORN_SEND_TIMEOUT": "1"})
    with slow(one) as client:
        client.send_request("GET", f"/file?kind=Stored&path={content}")
        client.read_head()
        let_others(one)
        assert gates.notes("closed") == []
        gates.wait_notes("closed", patience=8)
        assert one.get("/").text == "ok"
        assert len(gates.notes("closed")) == 1


@pytest.mark.ours
def test_close_is_called_once_when_the_server_stops(server, gates, content):
    """The response under way is finished first."""
    one = server(APP, "--threads", "2")
    with slow(one) as client:
        client.send_request("GET", f"/file?kind=Wiped&path={content}&length={SIZE}")
        client.read_head()
        let_others(one)
        one.send_signal(signal.SIGTERM)
        one.log.wait("Handling signal: term")
        assert gates.notes("closed") == []
        assert client.read_exactly(SIZE) == CONTENT
    assert one.wait_exit() == 0
    assert len(gates.notes("closed")) == 1


def test_a_wrapper_that_a_middleware_iterates_is_closed_once(server, gates, content):
    one = server(APP)
    assert one.get(f"/file?kind=Wiped&path={content}&middleware=yes").body == CONTENT
    gates.wait_notes("closed")
    one.get("/")
    assert len(gates.notes("closed")) == 1


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200%20OK"), ("GET", "304%20Not%20Modified")])
def test_a_response_without_a_body_closes_its_file_once(server, gates, content, method, status):
    one = server(APP)
    with one.connect() as client:
        answer = client.request(method, f"/file?kind=Stored&path={content}&length={SIZE}&status={status}")
        assert answer.body == b""
        gates.wait_notes("closed")
        assert client.request("GET", "/").text == "ok"
    assert len(gates.notes("closed")) == 1


def test_a_close_that_raises_costs_nothing_but_a_line(server, gates, content):
    one = server(APP)
    with one.connect() as client:
        assert client.request("GET", f"/file?kind=BadClose&path={content}&length={SIZE}").body == CONTENT
    one.log.wait("RuntimeError: close broke")
    assert one.get("/").text == "ok"
    assert len(gates.notes("closed")) == 1


@pytest.mark.ours
def test_a_read_that_raises_breaks_the_response_off(server, gates, content):
    one = server(APP)
    with one.connect() as client:
        client.send_request("GET", f"/file?kind=BadRead&path={content}")
        with pytest.raises(Disconnected):
            client.read_response()
    one.log.wait("RuntimeError: read broke")
    assert len(gates.wait_notes("closed")) == 1


@pytest.mark.ours
@pytest.mark.parametrize("length", ["", f"&length={SIZE}"], ids=["chunked", "length"])
@pytest.mark.parametrize("kind", ["write_only", "write_only_buffered", "closed"])
def test_a_file_that_cannot_be_read_is_an_error_before_the_head_is_sent(server, content, kind, length):
    one = server(APP)
    assert one.get(f"/file?kind={kind}&path={content}{length}").status == 500
    one.log.wait("UnsupportedOperation|ValueError")
    assert content.read_bytes() == CONTENT


# -- what it costs others --------------------------------------------------------------------------


@pytest.mark.ours
def test_objects_that_are_read_hold_little_memory(server, tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    one = server(APP, "--threads", "4")
    one.get("/")
    (worker,) = one.workers()
    before = resident_kib(worker)
    clients = [slow(one) for _ in range(3)]
    for client in clients:
        client.send_request("GET", f"/file?kind=NoFileno&path={path}")
        client.read_head()
    for _ in range(20):
        assert one.get("/").text == "ok"
    assert resident_kib(worker) - before < 40 * 1024
    for client in clients:
        client.close()


@pytest.mark.ours
@pytest.mark.parametrize("kind", ["plain", "temporary", "spooled", "NoFileno", "OnlyRead"])
def test_slow_readers_of_a_file_hold_no_thread(server, tmp_path, kind):
    """Whether it is a real one, or an object that is read."""
    path = tmp_path / "large"
    path.write_bytes(CONTENT * 4)
    one = server(APP, "--threads", "2", "--graceful-timeout", "1")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(slow(one)) for _ in range(4)]
        for client in clients:
            client.send_request("GET", f"/file?kind={kind}&path={path}")
        for client in clients[:2]:
            client.read_head()
        with one.connect() as client:
            assert client.request("GET", "/").text == "ok"


@pytest.mark.ours
def test_a_body_of_text_costs_a_short_line(server, content):
    one = server(APP)
    assert one.get(f"/file?kind=Text&path={content}&block=1000000").status == 500
    one.log.wait("TypeError: ")
    assert max(len(line) for line in one.log.text.splitlines()) < 1000


@pytest.mark.ours
@pytest.mark.parametrize("length", ["", f"&length={SIZE}"], ids=["chunked", "length"])
def test_an_object_arrives_although_no_file_can_be_written(server, content, length):
    """The thread waits for a client that is slower than the object, as the thread of a stream does."""
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
    one = server(APP, "--threads", "2", command=limited)
    with slow(one) as client:
        client.send_request("GET", f"/file?kind=OnlyRead&path={content}{length}")
        client.read_head()
        let_others(one)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        body = client.read_exactly(SIZE) if length else b"".join(iter(client.read_chunk, b""))
        assert body == CONTENT
    one.stop()
    # None when the client was fast enough to take what would have had no room.
    assert one.log.join().count("No room for a response") <= 1


# -- a file that becomes shorter -------------------------------------------------------------------


def end_of(client: Client) -> str:
    try:
        while client.socket.recv(65536):
            pass
    except ConnectionResetError:
        return "reset"
    return "end"


@pytest.mark.ours
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("kind", ["plain", "Stored"])
def test_a_file_that_shrinks_while_it_is_sent_ends_in_a_reset_and_a_line(server, tmp_path, kind, version):
    path = tmp_path / "shrinks"
    size = 64 << 20
    with path.open("wb") as file:
        file.truncate(size)
    one = server(APP)
    with slow(one) as client:
        client.send_request("GET", f"/file?kind={kind}&path={path}&length={size}", version=version)
        assert client.read_head().header("Content-Length") == str(size)
        os.truncate(path, 1 << 20)
        assert end_of(client) == "reset"
    one.log.wait(rf"/file\?kind={kind}\S* {version} .*(truncated|short)")


@pytest.mark.ours
def test_a_lock_that_close_frees_protects_the_bytes_until_they_have_left(server, gates, content):
    """A writer waits for the reader's `close`, then writes: the reader must have what was there before."""
    one = server(APP, "--threads", "2")

    def writer():
        gates.wait_notes("closed")
        content.write_bytes(b"?" * SIZE)

    thread = threading.Thread(target=writer)
    thread.start()
    with slow(one) as client:
        client.send_request("GET", f"/file?kind=Stored&path={content}&length={SIZE}")
        client.read_head()
        began = time.monotonic()
        while time.monotonic() - began < 0.3 and thread.is_alive():
            one.get("/")
        assert client.read_exactly(SIZE) == CONTENT
    thread.join(PATIENCE_S)
    wait_until(lambda: not thread.is_alive(), "the writer")
