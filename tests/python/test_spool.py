"""Bodies that are spooled, when there is no room for them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys

import pytest
from frames import Frames
from hyperframe.frame import DataFrame
from test_outgoing_budget import stored_bytes

from harness import APPS, COMMAND, wait_until

pytestmark = pytest.mark.ours

sys.path.insert(0, str(APPS))
from bodies import made  # noqa: E402


def test_a_full_disk_is_507_and_the_worker_lives(server, tmp_path):
    spools = tmp_path / "spools"
    spools.mkdir()
    # A limit on the size of files fails the write as a full disk does, and needs no privilege.
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
    one = server("probe:raw", "--worker-tmp-dir", str(spools), "--access-logfile", "-", command=limited)
    pid = one.workers()
    with one.connect() as client:
        client.send_request("POST", "/echo", [("Content-Length", str(8 << 20))])
        client.send(b"x" * (2 << 20))
        answer = client.read_response()
    assert (answer.status, answer.reason) == (507, "Insufficient Storage")
    assert answer.header("Connection") == "close"
    one.log.wait(r"\[ERROR\] A request body could not be spooled")
    one.output.wait(r'"POST /echo HTTP/1.1" 507 ')
    # What fits in memory is served as before, by the same worker, and no file is left.
    with one.connect() as client:
        assert client.request("POST", "/echo", body=b"small" * 1000).body == b"small" * 1000
    assert one.workers() == pid
    assert list(spools.iterdir()) == []


def test_a_full_disk_in_the_middle_of_chunks_is_507(server, tmp_path):
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
    one = server("probe:raw", "--worker-tmp-dir", str(tmp_path), "--body-buffer-size", "1000", command=limited)
    with one.connect() as client:
        client.send_request("POST", "/echo", [("Transfer-Encoding", "chunked")])
        for _ in range(4):
            client.send(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
        assert client.read_response().status == 507
    assert one.get("/status?line=200%20OK").status == 200


UPLOADS, BODY_BYTES = 40, 300_000


def uploaded(number):
    return made(BODY_BYTES, f"upload {number}")


def digest(body):
    return f"{len(body)} {hashlib.sha1(body).hexdigest()}".encode()


@pytest.fixture
def spooling(server):
    """With descriptors for the clients, and none for a file each."""
    few = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh", *COMMAND]
    h2c = ("--http-protocols", "h1,h2", "--http2-cleartext", "both")
    sizes = {"FERRICORN_BODY_BUFFER_SIZE": "1000", "FERRICORN_BODY_BUFFER_TOTAL": "100000"}
    return server("bodies", "--threads", "2", *h2c, command=few, env=sizes)


def test_bodies_share_a_file_where_descriptors_are_short(spooling):
    """Each took one, and was 507 when none was left. Bytes of different bodies arrive in turns."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(spooling.connect()) for _ in range(UPLOADS)]
        for client in clients:
            client.send_request("POST", "/upload", [("Content-Length", str(BODY_BYTES))])
        for at in range(0, BODY_BYTES, 60_000):
            for number, client in enumerate(clients):
                client.send(uploaded(number)[at : at + 60_000])
        for number, client in enumerate(clients):
            answer = client.read_response()
            assert (answer.status, answer.body) == (200, digest(uploaded(number)))
    (worker,) = spooling.workers()
    wait_until(lambda: stored_bytes(worker) == 0, "nothing is left on the disk")


def test_bodies_of_streams_share_a_file_where_descriptors_are_short(spooling):
    """A connection of HTTP/2 may have a hundred of them."""
    bodies = [uploaded(number)[:3_000] for number in range(90)]
    with Frames(spooling.address, 30) as client:
        streams = [client.begin("/upload", [("content-length", "3000")]) for _ in bodies]
        for at in range(0, 3_000, 500):
            for stream, body in zip(streams, bodies, strict=True):
                client.send(DataFrame(stream, body[at : at + 500], flags=["END_STREAM"] if at == 2_500 else []))
            # Until the window is as large as before.
            assert client.reply(client.ask("/")).status == 200
        for stream, body in zip(streams, bodies, strict=True):
            answer = client.reply(stream)
            assert (answer.status, answer.body) == (200, digest(body))


def test_bodies_that_find_no_room_are_logged_together(server, tmp_path):
    """A line for each of them filled the log with what the first had said."""
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
    one = server("probe:raw", "--worker-tmp-dir", str(tmp_path), "--body-buffer-size", "1000", command=limited)
    for _ in range(10):
        with one.connect() as client:
            client.send_request("POST", "/echo", [("Content-Length", str(1 << 20))])
            client.send(b"x" * 400_000)
            assert client.read_response().status == 507
    assert one.stop() == 0
    text = one.log.join()
    assert text.count("A request body could not be spooled") == 1
    assert re.search(
        r"\[ERROR\] 9 more request bodies could not be spooled within \d+ s, the last: File too large", text
    )
