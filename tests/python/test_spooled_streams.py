"""Streams to slow clients go to a file while others wait for their threads, and lose nothing by it."""

from __future__ import annotations

import contextlib
import sys
import time

import pytest
from frames import Frames, WindowUpdateFrame

from harness import APPS, COMMAND, PATIENCE_S, descriptors, wait_until
from wire import Client, Disconnected

pytestmark = [pytest.mark.ours, pytest.mark.slow]

sys.path.insert(0, str(APPS))
from bodies import made  # noqa: E402

MIB = 1 << 20
H2C = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")
FULL_DISK = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
WITHOUT_EVICTION_S = 4
"""Clients of streams that read nothing for 5 s may be closed, which is another way to a free thread."""


@contextlib.contextmanager
def slow(one, target, fields=()):
    """A client that has asked and reads nothing."""
    with Client(one.address, PATIENCE_S, receive_buffer=4096) as client:
        client.send_request("GET", target, fields)
        yield client


def answered(one, within=WITHOUT_EVICTION_S, client=Client):
    """Another client gets its answer although all threads stream."""
    began = time.monotonic()
    with client(one.address, PATIENCE_S) as other:
        reply = other.reply(other.ask("/")) if client is Frames else other.request("GET", "/")
        assert reply.status == 200
    took = time.monotonic() - began
    assert took < within, took
    return took


def files_without_names(worker):
    return sum("(deleted)" in path for path in descriptors(worker).values())


class SlowReader:
    """Reads a stream a little at a time, of HTTP/1."""

    def __init__(self, stack, one, target):
        self.client = stack.enter_context(Client(one.address, PATIENCE_S, receive_buffer=4096))
        self.client.send_request("GET", target)
        self.is_chunked = self.client.read_head().is_chunked
        self.raw = b""

    def read_a_little(self):
        self.raw += self.client.read_exactly(5000)

    def read_all(self, size):
        if not self.is_chunked:
            return self.raw + self.client.read_exactly(size - len(self.raw))
        # What was read of the chunks is put back.
        self.client._read_buffer[:0] = self.raw
        return b"".join(iter(self.client.read_chunk, b""))


class SlowHttp2Reader:
    """Opens its windows a little at a time."""

    def __init__(self, stack, one, target):
        self.client = stack.enter_context(Frames(one.address, PATIENCE_S))
        self.client.credits = False
        self.stream = self.client.ask(target)
        while not (reply := self.client.replies.get(self.stream)) or len(reply.body) < 65535:
            assert self.client.step()

    def read_a_little(self):
        size, before = 5000, len(self.client.replies[self.stream].body)
        self.client.send(WindowUpdateFrame(0, size), WindowUpdateFrame(self.stream, size))
        while len(self.client.replies[self.stream].body) < before + size:
            assert self.client.step()

    def read_all(self, size):
        self.client.credits = True
        self.client.send(WindowUpdateFrame(0, 10 * MIB), WindowUpdateFrame(self.stream, 10 * MIB))
        reply = self.client.reply(self.stream)
        assert reply.reset is None
        return reply.body


@pytest.mark.parametrize("kind", ["length", "chunked", "write", "http2"])
def test_others_are_answered_again_and_again_while_all_threads_have_slow_clients(server, kind):
    """They waited until one of the slow ones was through."""
    one = server("bodies", "--threads", "2", *(H2C if kind == "http2" else ()))
    size = (4 if kind == "http2" else 20) * MIB
    more = {"length": "&shape=stream", "chunked": "&shape=stream&chunked=1", "write": "&shape=write"}
    target = f"/made?size={size}{more.get(kind, '&shape=stream')}"
    with contextlib.ExitStack() as stack:
        reader, other = (SlowHttp2Reader, Frames) if kind == "http2" else (SlowReader, Client)
        readers = [reader(stack, one, f"{target}&seed={number}") for number in range(2)]
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for each in readers:
                each.read_a_little()
            time.sleep(0.1)
            answered(one, client=other)
        for number, each in enumerate(readers):
            assert each.read_all(size) == made(size, number)


def test_another_client_is_answered_soon_although_300_streams_are_not_read(server):
    """It took 80 s, until enough of them were closed."""
    one = server("bodies", "--threads", "2")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(slow(one, f"/made?size={8 * MIB}&shape=stream")) for _ in range(300)]
        answered(one, within=40)
        body = made(8 * MIB, "x")
        for client in clients[::50]:
            assert client.read_response().body == body


@pytest.mark.parametrize("target", ["/mixed", "/small"])
def test_items_of_all_sizes_arrive_in_order(server, target):
    one = server("spooled", "--threads", "1")
    body = made(8 * MIB, "m") if target == "/mixed" else made(2 * MIB, "s")
    with slow(one, target) as client:
        client.read_head()
        answered(one)
        client._read_buffer[:0] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert client.read_response().body == body
        # The connection lives on.
        assert client.request("GET", "/").body == b"ok"


def test_a_stream_that_pauses_delivers_what_it_has_produced(server, gates):
    """Its thread has gone on without the client; the client need not wait for the next item."""
    one = server("spooled", "--threads", "1")
    with slow(one, "/pausing") as client, Client(one.address, PATIENCE_S) as other:
        client.read_head()
        other.send_request("GET", "/")
        gates.wait_reached("pause", WITHOUT_EVICTION_S)
        body = b""
        while not body.endswith(b"first second "):
            body += client.read_chunk()
        assert body == made(2 * MIB, "p") + b"first second "
        gates.open("pause")
        assert client.read_chunk() == b"third" and client.read_chunk() == b""
        assert other.read_response().status == 200


def test_what_was_spooled_is_sent_before_the_response_is_broken_off(server, gates):
    one = server("spooled", "--threads", "1")
    (worker,) = one.workers()
    assert one.get("/").status == 200
    before = files_without_names(worker)
    with slow(one, "/failing") as client:
        client.read_head()
        answered(one)
        body = b""
        with pytest.raises(Disconnected):
            while True:
                body += client.read_chunk()
        assert body == made(4 * MIB, "f")
    gates.wait_notes("closed")
    one.log.wait("after what was spooled")
    one.log.wait("Response to GET /failing HTTP/1.1 was aborted after 4194304 bytes of its body")
    wait_until(lambda: files_without_names(worker) == before, "the file is given back")


def test_a_stream_without_end_holds_its_thread_no_longer_than_its_file_may_grow(server, gates):
    """Then its client has to read, or to go; and what it had is given back."""
    one = server("spooled", "--threads", "1")
    (worker,) = one.workers()
    assert one.get("/").status == 200
    before = files_without_names(worker)
    with slow(one, "/endless"):
        answered(one, within=PATIENCE_S)
        gates.wait_notes("closed")
    wait_until(lambda: files_without_names(worker) == before, "the file is given back")


def test_a_client_that_leaves_gives_its_file_back(server):
    one = server("bodies", "--threads", "1")
    (worker,) = one.workers()
    assert one.get("/").status == 200
    before = files_without_names(worker)
    with slow(one, f"/made?size={20 * MIB}&shape=stream") as client:
        answered(one)
        assert files_without_names(worker) == before + 1
        client.reset()
        wait_until(lambda: files_without_names(worker) == before, "the file is given back")
    answered(one)


def test_no_byte_is_lost_on_a_full_disk(server):
    """The threads wait for their clients, as if nobody else did."""
    one = server("bodies", "--threads", "2", command=FULL_DISK)
    size = 4 * MIB
    with contextlib.ExitStack() as stack:
        target = f"/made?size={size}&shape=stream&seed="
        clients = [stack.enter_context(slow(one, f"{target}{number}")) for number in range(2)]
        for client in clients:
            client.read_head()
        other = stack.enter_context(Client(one.address, PATIENCE_S))
        other.send_request("GET", "/")
        one.log.wait("Its thread waits for its client")
        for number, client in enumerate(clients):
            assert client.read_exactly(size) == made(size, number)
        assert other.read_response().status == 200


def test_streams_share_a_file_where_descriptors_are_short(server):
    few = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh", *COMMAND]
    one = server("bodies", "--threads", "1", command=few)
    size = 2 * MIB
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(slow(one, f"/made?size={size}&shape=stream&seed={number}")) for number in range(40)
        ]
        answered(one, within=PATIENCE_S)
        for number, client in enumerate(clients):
            assert client.read_response().body == made(size, number)


def test_a_stream_that_forks_is_spooled_to_its_end(server):
    one = server("spooled", "--threads", "1")
    with slow(one, "/forking") as client:
        client.read_head()
        answered(one)
        client._read_buffer[:0] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert client.read_response().body == made(4 * MIB, "k")


def test_a_stop_waits_for_what_was_spooled(server):
    one = server("bodies", "--threads", "1")
    size = 8 * MIB
    with slow(one, f"/made?size={size}&shape=stream") as client:
        client.read_head()
        answered(one)
        one.begin_stop()
        assert client.read_exactly(size) == made(size, "x")
        assert one.wait_exit() == 0
