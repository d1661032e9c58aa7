"""Clients that read their responses a little at a time: they keep a place for as long as they read fast enough."""

from __future__ import annotations

import contextlib
import select
import sys
import time

import pytest
from frames import CANCEL, Frames, WindowUpdateFrame

from harness import APPS, COMMAND, PATIENCE_S
from wire import Client, Disconnected

pytestmark = [pytest.mark.ours, pytest.mark.slow]

sys.path.insert(0, str(APPS))
from bodies import made  # noqa: E402

APP = "bodies"
MIB = 1 << 20
FULL_DISK = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]


def slow_reader(server, tmp_path, rate, shape):
    """A client on a unix socket, whose server notices each 160 KB that are read."""
    settings = {"FERRICORN_SEND_TIMEOUT": "2", "FERRICORN_SEND_MIN_RATE": str(rate)}
    one = server(APP, "--threads", "2", bind=[f"unix:{tmp_path}/s"], env=settings)
    client = one.connect()
    client.send_request("GET", f"/made?size={32 * MIB}&shape={shape}")
    return one, client


def read_slowly(client: Client, seconds):
    """500 KB per second. Returns when the server ended the connection; `None`: it did not."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        try:
            client.read_exactly(100_000)
        except Disconnected:
            return time.monotonic() - began
        time.sleep(0.2)
    return None


@pytest.mark.parametrize("shape", ["list", "stream"])
def test_a_client_that_reads_too_slowly_is_ended(server, tmp_path, shape):
    """Each time it reads within `send_timeout`."""
    one, client = slow_reader(server, tmp_path, 4_000_000, shape)
    with client:
        client.read_head()
        took = read_slowly(client, 10)
        assert took is not None and took > 1
    assert one.get("/").status == 200


@pytest.mark.parametrize("rate", [0, 50_000])
@pytest.mark.parametrize("shape", ["list", "stream"])
def test_a_client_that_reads_fast_enough_is_served(server, tmp_path, rate, shape):
    _, client = slow_reader(server, tmp_path, rate, shape)
    with client:
        client.read_head()
        assert read_slowly(client, 5) is None


def test_a_stream_of_which_nothing_waits_is_not_slow(server, gates):
    """The application is silent for longer than the timeout, as long polls and event streams are."""
    settings = {"FERRICORN_SEND_TIMEOUT": "1", "FERRICORN_SEND_MIN_RATE": "1000000"}
    one = server("events", "--threads", "2", env=settings)
    with one.connect() as client:
        client.send_request("GET", "/")
        client.read_head()
        for number in range(4):
            assert client.read_chunk() == b"data: %d\n\n" % number
            time.sleep(0.7)
            gates.open(f"event-{number}")
        assert client.read_chunk() == b""


# -- HTTP/2: the client opens its windows as slowly as it likes -----------------------------------


def http2_reader(server, rate, shape, step, pause, seconds):
    """A client that opens the windows by `step` bytes each `pause`. Returns its reply."""
    settings = {"FERRICORN_SEND_TIMEOUT": "2", "FERRICORN_SEND_MIN_RATE": str(rate)}
    arguments = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")
    one = server(APP, "--threads", "2", *arguments, env=settings)
    with Frames(one.address, 20) as client:
        client.credits = False
        stream = client.ask(f"/made?size={4 * MIB}&shape={shape}")
        until = time.monotonic() + seconds
        client.socket.settimeout(pause)
        while time.monotonic() < until and not (stream in client.replies and client.replies[stream].over):
            try:
                while client.step():
                    pass
            except TimeoutError:
                client.send(WindowUpdateFrame(0, step), WindowUpdateFrame(stream, step))
        client.socket.settimeout(20)
        assert client.reply(client.ask("/")).status == 200, "the connection lives on"
        return client.replies[stream]


@pytest.mark.parametrize("shape", ["list", "stream"])
def test_a_client_of_http2_that_opens_its_window_a_byte_at_a_time_is_ended(server, shape):
    """Each byte within `send_timeout`, which held a response and a thread for ever."""
    reply = http2_reader(server, 240, shape, 1, 0.2, 15)
    assert reply.reset == CANCEL


@pytest.mark.parametrize("rate", [0, 2_000])
@pytest.mark.parametrize("shape", ["list", "stream"])
def test_a_client_of_http2_that_reads_fast_enough_is_served(server, rate, shape):
    reply = http2_reader(server, rate, shape, 20_000, 0.2, 5)
    assert reply.reset is None and len(reply.body) > 200_000


def that_read_nothing(stack, one, count, shape="stream"):
    """Clients whose responses have begun. Each holds a thread."""
    for number in range(count):
        client = Client(one.address, PATIENCE_S, receive_buffer=4096)
        stack.callback(client.close)
        client.send_request("GET", f"/made?size={8 * MIB}&shape={shape}&seed={number}")


@pytest.mark.parametrize("disk", ["", "full"])
@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("shape", ["stream", "write"])
def test_another_client_is_answered_although_all_threads_stream_to_clients_that_read_nothing(
    server, shape, count, disk
):
    """It waited for `send_timeout`, 60 s, with each two of them. Those without room on the disk are closed."""
    one = server(APP, "--threads", "2", command=FULL_DISK if disk else COMMAND)
    with contextlib.ExitStack() as stack:
        that_read_nothing(stack, one, count, shape)
        began = time.monotonic()
        with Client(one.address, 30) as other:
            assert other.request("GET", "/").status == 200
        assert time.monotonic() - began < 25


@pytest.mark.parametrize("still", [0, 1])
@pytest.mark.parametrize("shape", ["list", "stream"])
def test_clients_that_read_slowly_keep_the_threads_that_wait_for_them(server, shape, still):
    """200 KB per second each: the socket takes more of it twice in a second, which was taken for standing still."""
    command = FULL_DISK if shape == "list" else COMMAND
    one = server(APP, "--threads", "2", command=command, env={"FERRICORN_RESPONSE_BUFFER_TOTAL": "100000"})
    size = MIB + 500_000
    with contextlib.ExitStack() as stack:
        readers = []
        for number in range(2 - still):
            readers.append(stack.enter_context(Client(one.address, PATIENCE_S, receive_buffer=16384)))
            readers[-1].send_request("GET", f"/made?size={size}&shape={shape}&seed={number}")
        for reader in readers:
            reader.read_head()
        that_read_nothing(stack, one, still, shape)
        other = stack.enter_context(Client(one.address, PATIENCE_S))
        other.send_request("GET", "/")
        bodies = [b"" for _ in readers]
        while len(bodies[-1]) < size:
            for number, reader in enumerate(readers):
                bodies[number] += reader.read_exactly(min(10_000, size - len(bodies[number])))
            time.sleep(0.05)
        assert bodies == [made(size, number) for number in range(len(readers))]
        assert other.read_response().status == 200


def test_clients_that_read_slowly_keep_their_descriptors(server):
    """100 KB per second each, while clients that read nothing need all the descriptors: a second in which the socket
    took nothing more was taken for standing still."""
    few = ["sh", "-c", 'ulimit -n 72; exec "$@"', "sh", *COMMAND]
    one = server(APP, "--threads", "2", command=few)
    size = 8 * MIB
    with contextlib.ExitStack() as stack:
        readers = []
        for number in range(4):
            readers.append(stack.enter_context(Client(one.address, PATIENCE_S, receive_buffer=16384)))
            readers[-1].send_request("GET", f"/made?size={size}&seed={number}")
        for reader in readers:
            reader.read_head()
        bodies = [b"" for _ in readers]

        def read_slowly(other):
            while not other or not select.select([other.socket], [], [], 0.1)[0]:
                for number, reader in enumerate(readers):
                    bodies[number] += reader.read_exactly(10_000)
                if not other:
                    break

        for _ in range(24):
            that_read_nothing(stack, one, 5, "list")
            read_slowly(None)
        other = stack.enter_context(Client(one.address, PATIENCE_S))
        other.send_request("GET", "/")
        read_slowly(other)
        assert other.read_response().status == 200
        assert bodies == [made(size, number)[: len(body)] for number, body in enumerate(bodies)]


def test_a_client_that_reads_slowly_keeps_the_last_free_thread(server):
    """100 KB per second on a full disk: of a client for which the last thread waits the socket takes nothing for
    seconds, then a megabyte, which was taken for standing still. Another one that reads nothing goes soon."""
    one = server(APP, "--threads", "1", command=FULL_DISK, env={"FERRICORN_RESPONSE_BUFFER_TOTAL": "100000"})
    with Client(one.address, PATIENCE_S, receive_buffer=16384) as reader:
        reader.send_request("GET", f"/made?size={8 * MIB}&seed=3")
        reader.read_head()
        body, began = b"", time.monotonic()
        while time.monotonic() < began + 6:
            body += reader.read_exactly(10_000)
            time.sleep(0.1)
        assert body == made(8 * MIB, 3)[: len(body)]
    with contextlib.ExitStack() as stack:
        that_read_nothing(stack, one, 1, "list")
        began = time.monotonic()
        assert one.get("/").status == 200
        assert time.monotonic() - began < 5
