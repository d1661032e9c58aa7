"""Bodies that are spooled, when there is no room for them."""

from __future__ import annotations

import pytest

from harness import COMMAND

pytestmark = pytest.mark.ours


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
