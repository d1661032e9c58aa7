"""Responses that their clients do not read: what a worker holds of them is bounded, and the others do not notice."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import time
from pathlib import Path

import pytest
from frames import Frames
from test_files import resident_kib
from test_health import ask

from harness import APPS, COMMAND, HAS_GIL, PATIENCE_S, descriptors, wait_until
from wire import Client, Disconnected

pytestmark = [pytest.mark.ours, pytest.mark.slow]

sys.path.insert(0, str(APPS))
from bodies import made  # noqa: E402

APP = "bodies"
MIB = 1 << 20
CLIENTS = 48


@contextlib.contextmanager
def that_do_not_read(one, targets, version="HTTP/1.1"):
    """Clients that have asked, and have room for next to nothing."""
    with contextlib.ExitStack() as stack:
        clients = []
        for target in targets:
            client = Client(one.address, PATIENCE_S, receive_buffer=4096)
            stack.callback(client.close)
            client.send_request("GET", target, version=version)
            clients.append(client)
        yield clients


def read_body(client, size):
    """With room for more, or it would take its time."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
    assert client.read_head().status == 200
    return client.read_exactly(size)


def made_targets(count, size, shape="list", more=""):
    return [f"/made?size={size}&shape={shape}&seed={number}{more}" for number in range(count)]


def settled_growth(worker, before, seconds=1.5):
    """The most that the worker holds more than before, in MiB, in some time in which requests are made.

    Without a GIL what a thread has made is freed when that thread runs again (docs/free-threaded.md).
    """
    if not HAS_GIL:
        pytest.skip("how much is held depends on which threads run")
    most, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        most = max(most, resident_kib(worker) - before)
        time.sleep(0.01)
    return most // 1024


def started(server, *arguments, **options):
    one = server(APP, "--threads", "4", *arguments, **options)
    assert one.get("/").status == 200
    (worker,) = one.workers()
    return one, worker, resident_kib(worker)


@pytest.mark.parametrize("shape", ["list", "pieces", "write"])
def test_responses_that_are_not_read_hold_a_bounded_amount_of_memory(server, shape):
    """384 MiB are asked for."""
    one, worker, before = started(server)
    with that_do_not_read(one, made_targets(CLIENTS, 8 * MIB, shape)):
        assert settled_growth(worker, before) < 192


@pytest.mark.parametrize(("shape", "count"), [("list", 12), ("pieces", 12), ("write", 3), ("stream", 3)])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_who_reads_at_last_gets_all_of_it(server, shape, count, version):
    """Whatever became of the bytes meanwhile: they are the client's own, in order."""
    one, _, _ = started(server)
    with that_do_not_read(one, made_targets(count, 8 * MIB, shape), version) as clients:
        assert one.get("/").status == 200
        for number in reversed(range(count)):
            assert read_body(clients[number], 8 * MIB) == made(8 * MIB, number)


def test_other_clients_are_served_as_before(server):
    """More responses that nobody reads than there are threads, and more bytes than there is room for."""
    one, _, _ = started(server)
    with that_do_not_read(one, made_targets(CLIENTS, 8 * MIB)), one.connect() as client:
        waits = []
        for _ in range(100):
            began = time.monotonic()
            assert client.request("GET", "/").status == 200
            waits.append(time.monotonic() - began)
        waits.sort()
        # All 48 may be in the application when the first one asks.
        assert waits[97] < 0.5 and waits[-1] < 5


def test_an_object_that_the_application_keeps_counts_once(server):
    """64 MiB, as much as may be held. Each of them in a file spares no memory, and others waited for the disk."""
    one, worker, _ = started(server)
    assert one.get("/kept").status == 200
    with that_do_not_read(one, ["/kept"] * CLIENTS) as clients:
        assert one.get("/").status == 200, "all of them are under way"
        assert stored_bytes(worker) == 0
        for client in clients[::8]:
            assert read_body(client, 64 * MIB) == made(64 * MIB, "kept")


def test_other_large_responses_are_served_to_those_who_read(server):
    """The budget is not the readers' loss."""
    one, worker, before = started(server)
    with that_do_not_read(one, made_targets(CLIENTS - 4, 8 * MIB)):
        for number in range(4):
            began = time.monotonic()
            assert one.get(f"/made?size={4 * MIB}&seed={number}").body == made(4 * MIB, number)
            assert time.monotonic() - began < 5
        assert settled_growth(worker, before, 0.3) < 192


def test_memory_and_files_are_given_back_when_they_leave(server):
    """Large pieces have mappings of their own here: else the C library keeps what is freed for the next ones."""
    one, worker, before = started(server, env={"MALLOC_MMAP_THRESHOLD_": "131072"})

    few = len(descriptors(worker))
    with that_do_not_read(one, made_targets(CLIENTS, 8 * MIB)):
        assert settled_growth(worker, before, 1) < 192
    wait_until(lambda: len(descriptors(worker)) <= few + 2, "their descriptors")
    assert one.get("/").status == 200
    wait_until(lambda: resident_kib(worker) - before < 64 * 1024, "their memory")


FIGURE = r"^(ferricorn_(?=\w*(?:response|outgoing|unsent|unread|write|send))\w*bytes\w*)(?:\{[^}]*\})? (\d\S*)$"


def test_the_bytes_that_wait_for_their_clients_are_in_the_metrics(server):
    """A gauge: some while they wait, none when they have left."""
    one, _, _ = started(server, "--admin-bind", "127.0.0.1:0")

    def figures():
        return {name: float(value) for name, value in re.findall(FIGURE, ask(one, "/metrics").text, re.MULTILINE)}

    idle = figures()
    with that_do_not_read(one, made_targets(8, 8 * MIB)):
        name = wait_until(lambda: [key for key, value in figures().items() if value - idle.get(key, 0) >= MIB], "it", 3)
    wait_until(lambda: any(figures()[key] == idle[key] for key in name), "nothing waits", 5)


def test_a_client_that_pipelines_and_does_not_read_holds_one_response(server):
    one, worker, before = started(server)
    with Client(one.address, PATIENCE_S, receive_buffer=4096) as client:
        client.send(b"GET /made?size=1000000 HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        assert settled_growth(worker, before, 0.5) < 32
        assert one.get("/").status == 200


def test_no_room_on_the_disk_costs_no_worker_and_no_wrong_byte(server):
    """If responses go to files: those that cannot be written are sent from memory, waited for, or cut."""
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
    one = server(APP, "--threads", "4", command=limited)
    (worker,) = one.workers()
    with that_do_not_read(one, made_targets(12, 8 * MIB)) as clients:
        assert one.get("/").status == 200
        for number, client in enumerate(clients):
            with contextlib.suppress(Disconnected):
                assert read_body(client, 8 * MIB) == made(8 * MIB, number)
    assert one.workers() == [worker]
    assert "panicked" not in one.log.text


def test_a_stop_does_not_wait_for_those_who_do_not_read(server):
    one, _, _ = started(server, "--graceful-timeout", "1")
    with that_do_not_read(one, made_targets(24, 8 * MIB)):
        assert one.get("/").status == 200
        one.send_signal(15)
        assert one.wait_exit(6) == 0


@pytest.mark.parametrize("limit", ["-f 256", "-n 72"], ids=["disk", "descriptors"])
def test_memory_is_bounded_also_where_no_file_can_be_written(server, limit):
    """A full disk, or no descriptor left: then clients wait, or are refused, and the log says so a few times."""
    one, worker, before = started(server, command=["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *COMMAND])
    with that_do_not_read(one, made_targets(44, 8 * MIB)):
        assert settled_growth(worker, before) < 192
    assert one.log.text.count("\n") < 20


def test_other_clients_are_accepted_although_http2_holds_hundreds_of_responses(server):
    """Each in a file of its own, so that two connections used up the descriptors, and the threads waited for
    `send_timeout`."""
    arguments = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")
    few = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh", *COMMAND]
    one = server(APP, "--threads", "4", *arguments, command=few)
    clients = []
    for _ in range(2):
        client = Frames(one.address, 20)
        client.credits = False
        for _ in range(36):
            client.ask(f"/made?size={8 * MIB}&shape=list")
        clients.append(client)
    with Frames(one.address, 50) as other:
        assert other.reply(other.ask("/")).status == 200
    assert "No room for a response" not in one.log.text
    for client in clients:
        client.close()


@pytest.mark.parametrize("reads", ["all", "every second"])
def test_responses_share_a_file_where_descriptors_are_short(server, reads):
    """Each took one, and the threads waited for clients when none was left. Those that leave make room on the disk."""
    few = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh", *COMMAND]
    one, worker, _ = started(server, command=few, env={"FERRICORN_RESPONSE_BUFFER_TOTAL": "100000"})
    count, size = 40, 2 * MIB
    with that_do_not_read(one, made_targets(count, size)) as clients:
        assert one.get("/").status == 200, "all of them are made"
        for client in clients[1::2] if reads == "every second" else ():
            client.close()
        for number, client in enumerate(clients):
            if reads == "all" or number % 2 == 0:
                assert read_body(client, size) == made(size, number)
    wait_until(lambda: stored_bytes(worker) == 0, "nothing is left on the disk")
    assert "No room for a response" not in one.log.text


def test_what_is_on_its_way_outlives_its_place_in_a_shared_file(server):
    """All of it is in the sockets, and its place in the file given back, before its client reads. It came as zeros."""
    few = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh", *COMMAND]
    one, worker, _ = started(server, command=few, env={"FERRICORN_RESPONSE_BUFFER_TOTAL": "1"})
    count, size = 40, 70_001
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(one.connect()) for _ in range(count)]
        for client in clients:
            assert client.request("GET", "/").status == 200
        for client, target in zip(clients, made_targets(count, size), strict=True):
            client.send_request("GET", target)
        wait_until(lambda: stored_bytes(worker) == 0, "their place in the file is free")
        for number, client in enumerate(clients):
            assert read_body(client, size) == made(size, number)


def stored_bytes(worker):
    """What the worker's unlinked files hold on the disk."""
    held = 0
    for number, target in descriptors(worker).items():
        if target.endswith("(deleted)"):
            with contextlib.suppress(FileNotFoundError):
                held += Path(f"/proc/{worker}/fd/{number}").stat().st_blocks * 512
    return held


def test_other_clients_are_served_although_no_file_can_be_written(server):
    """All threads but one may wait for those who do not read; the client of the last one is cut."""
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
    one, worker, _ = started(server, command=limited)
    with that_do_not_read(one, made_targets(16, 8 * MIB)):
        for _ in range(20):
            assert one.get("/").status == 200
    assert one.workers() == [worker]


def test_responses_without_room_are_counted_to_the_end(server):
    """The first is a line, and the others are one more when the worker ends."""
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
    one, _, _ = started(server, command=limited)
    with that_do_not_read(one, made_targets(8, 8 * MIB)):
        for number in range(6):
            assert one.get(f"/made?size={8 * MIB}&seed={number}").status == 200
    one.stop()
    log = one.log.join()
    assert log.count("No room for a response") == 1
    assert re.search(r"\[WARNING\] There was no room for \d+ more responses since this was last logged\.", log), log


def test_one_that_reads_is_served_although_no_file_can_be_written(server):
    """Its own response finds no room either, because others hold it all."""
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND]
    one, _, _ = started(server, command=limited)
    with that_do_not_read(one, made_targets(8, 8 * MIB)):
        for number in range(6):
            assert one.get(f"/made?size={8 * MIB}&seed={number}").body == made(8 * MIB, number)
    assert one.log.text.count("No room for a response") == 1


def test_streams_that_have_ended_and_are_not_read_are_counted(server):
    """Each fits into its window, so its thread is long gone."""
    one, worker, before = started(server, env={"FERRICORN_RESPONSE_BUFFER_TOTAL": str(16 * MIB)})
    with that_do_not_read(one, made_targets(200, 500_000, "stream")):
        assert settled_growth(worker, before) < 64


def test_large_heads_that_are_not_read_hold_a_bounded_amount_of_memory(server):
    """Large pieces have mappings of their own here, or what the C library keeps of those that were cut is counted."""
    kept = {"MALLOC_MMAP_THRESHOLD_": "131072"}
    one, worker, before = started(server, env={"FERRICORN_RESPONSE_BUFFER_TOTAL": str(16 * MIB), **kept})
    with that_do_not_read(one, [f"/head?size={MIB - 1000}"] * 100):
        assert settled_growth(worker, before) < 64


@pytest.mark.parametrize("fields", [1, 1000])
def test_a_response_head_of_more_than_a_mebibyte_is_an_error_of_the_application(server, fields):
    one = server(APP)
    assert one.get(f"/head?size={MIB - 60_000}&fields={fields}").status == 200
    assert one.get(f"/head?size={MIB}&fields={fields}").status == 500
    one.log.wait(r"ValueError: Response head of \d+ bytes from the application: at most 1048576 are sent")
    assert max(len(line) for line in one.log.text.splitlines()) < 1000


@pytest.mark.parametrize("shape", ["list", "upload"])
def test_a_child_has_no_temporary_file_of_others(server, gates, shape):
    """Of a response that is not read, and of a request that another thread answers."""
    one = server("forks", "--threads", "3", env={"FERRICORN_RESPONSE_BUFFER_TOTAL": "100000"})
    (worker,) = one.booted()

    def deleted():
        return [number for number, target in descriptors(worker).items() if target.endswith("(deleted)")]

    before = deleted()
    with one.connect() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if shape == "list":
            client.send_request("GET", "/large")
        else:
            client.send_request("POST", "/late", [("Content-Length", str(4 * MIB))], b"x" * (4 * MIB))
        # Written to: the thread that makes it has said to the fork guard that it is there.
        wait_until(lambda: len(deleted()) > len(before) and stored_bytes(worker) > 0, "its file")
        found = one.get("/listed?fork=python").text
        gates.open("late")
    assert "(deleted)" not in found


def test_a_child_has_the_body_of_its_own_request(server):
    body = b"".join(b"line %d\n" % number for number in range(400_000))
    one = server("forks", "--threads", "2")
    with one.connect() as client:
        answer = client.request("POST", "/read_in_child", [("Content-Length", str(len(body)))], body)
    assert answer.text == str(len(body))


H2C = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")


def ask_without_reading(address, kind, context):
    """300 times in all for 8 MiB each: on 50 connections of HTTP/2, or on one each."""
    target = f"/made?size={8 * MIB}&shape=list"
    if kind == "HTTP/2":
        for _ in range(50):
            client = Frames(address, PATIENCE_S)
            client.credits = False
            for _ in range(6):
                client.ask(target)
            yield client
        return
    clients = []
    for _ in range(300):
        clients.append(Client(address, PATIENCE_S, receive_buffer=4096))
        yield clients[-1]
        if not context:
            clients[-1].send_request("GET", target)
    # Those that are not accepted yet wait with their handshakes.
    for client in clients if context else ():
        client.socket.settimeout(1)
        with contextlib.suppress(OSError):
            client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
            client.send_request("GET", target)


@pytest.mark.parametrize("kind", ["HTTP/2", "HTTP/1", "TLS"])
def test_another_client_is_answered_although_300_responses_are_not_read(server, tmp_path, kind):
    """More than there are descriptors, bytes and threads for: who has stood still for longest makes room."""
    few = ["sh", "-c", 'ulimit -n 120; exec "$@"', "sh", *COMMAND]
    arguments, context = (H2C if kind == "HTTP/2" else ()), None
    if kind == "TLS":
        authority = pytest.importorskip("authorities").Authority(tmp_path)
        certificate, key = authority.sign("server")
        arguments, context = ("--certfile", str(certificate), "--keyfile", str(key)), authority.client()
    one = server(APP, "--threads", "4", *arguments, command=few)
    with contextlib.ExitStack() as stack:
        for client in ask_without_reading(one.address, kind, context):
            stack.callback(client.close)
        began = time.monotonic()
        if kind == "HTTP/2":
            with Frames(one.address, 30) as other:
                assert other.reply(other.ask("/")).status == 200
        else:
            with Client(one.address, 30) as other:
                if context:
                    other.socket = context.wrap_socket(other.socket, server_hostname="localhost")
                assert other.request("GET", "/").status == 200
        assert time.monotonic() - began < 15, "one of them a second took 300 s"
