"""Requests that run too long: the client, the application and the operator are told, and the worker goes on."""

from __future__ import annotations

import json
import time

import pytest

from harness import wait_until

pytestmark = pytest.mark.ours

TIMED = ("timed_out", "--threads", "2", "--request-timeout", "0.4", "--access-logfile", "-")


def whoami(one):
    return json.loads(one.get("/pid").body)


def test_the_client_gets_504_and_the_application_an_exception(server, gates):
    one = server(*TIMED)
    worker, _ = whoami(one)
    began = time.monotonic()
    with one.connect() as client:
        answer = client.request("GET", "/spin?first")
    took = time.monotonic() - began
    assert answer.status == 504
    assert answer.header("Connection") == "close"
    assert 0.39 < took < 5
    [raised] = gates.wait_notes("raised")
    name, is_exception, thread = raised.split()
    assert (name, is_exception) == ("RequestTimeout", "False"), "`except Exception` must not swallow it"
    assert thread.startswith("ferricorn-thread_")
    assert gates.wait_notes("finally") == ["first"]
    one.log.wait(r"Request timed out after 0\.\d s \(request_timeout\): GET /spin from 127\.0\.0\.1, in thread [01]\.")
    # The stack of that very thread, down to the line that ran.
    one.log.wait(r"Stack of thread [01] at its timeout, in GET /spin from 127\.0\.0\.1:(\n .*)*timed_out\.py.*in spin")
    one.output.wait(r'"GET /spin\?first HTTP/1\.1" 504 ')
    # The worker and both threads go on, and the next request of that thread is not hit.
    assert {whoami(one)[0] for _ in range(20)} == {worker}
    assert "Error handling request" not in one.log.text


def test_an_application_that_answers_late_is_not_heard(server):
    one = server(*TIMED)
    with one.connect() as client:
        assert client.request("GET", "/stubborn").status == 504
    one.output.wait(r'"GET /stubborn HTTP/1\.1" 504 ')
    assert one.get("/pid").status == 200
    assert "200 4" not in one.output.text.replace('"GET /pid HTTP/1.1" 200', "")


def test_a_stream_that_does_not_end_is_broken_off(server, gates):
    one = server(*TIMED)
    with one.connect() as client:
        client.send_request("GET", "/stream")
        head = client.read_head()
        assert head.status == 200
        assert client.read_chunk() == b"one"
        rest = client.read_to_end()
    assert not rest.endswith(b"0\r\n\r\n"), "the client can tell that this is not all"
    assert gates.wait_notes("generator") == ["closed"]
    one.output.wait(r'"GET /stream HTTP/1\.1" 200 3 ')
    assert one.get("/pid").status == 200


@pytest.mark.slow
def test_a_thread_that_does_not_come_back_costs_the_worker_its_place(server, gates):
    one = server(*TIMED, "--graceful-timeout", "2")
    worker, _ = whoami(one)
    with one.connect() as client:
        client.send_request("GET", "/stuck?30")
        gates.wait_reached("stuck")
        assert client.read_response().status == 504
        one.log.wait(r"Thread [01] has not returned from its request; replacing the worker")
    one.output.wait(r'"GET /stuck HTTP/1\.1" 504 ')
    wait_until(lambda: whoami(one)[0] != worker, "another worker")


def test_the_log_tells_what_the_other_threads_were_doing(server, gates):
    """The one that holds the others up may be another."""
    one = server(*TIMED)
    with one.connect() as first, one.connect() as second:
        first.send_request("GET", "/stuck?2")
        gates.wait_reached("stuck")
        second.send_request("GET", "/spin?beside")
        gates.wait_reached("beside")
        assert first.read_response().status == 504
        assert second.read_response().status == 504
    one.log.wait(
        r"Stack of thread [01] .*in GET /stuck .*(\n .*)*in stuck\n(.*\n)*?Meanwhile thread [01]:(\n .*)*in spin"
    )


def test_requests_within_their_time_are_left_alone(server):
    one = server("timed_out", "--threads", "2", "--request-timeout", "5")
    with one.connect() as client:
        for _ in range(200):
            assert client.request("GET", "/pid").status == 200
    assert "timed out" not in one.log.text
