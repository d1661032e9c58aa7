"""More requests than a worker can run: how long they wait, who is sent away, and what the operator is told."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.ours


def test_a_request_that_waits_too_long_gets_503_and_is_never_run(server, gates):
    one = server("lifecycle", "--threads", "1", "--queue-timeout", "0.2", "--access-logfile", "-")
    with one.connect() as slow, one.connect() as waiting:
        slow.send_request("GET", "/block?slow")
        gates.wait_reached("slow")
        began = time.monotonic()
        waiting.send_request("GET", "/block?waiting")
        refused = waiting.read_response()
        assert refused.status == 503
        assert refused.header("Retry-After") == "1"
        assert refused.header("Connection") == "keep-alive"
        assert 0.19 < time.monotonic() - began < 5
        # Many in close succession are one line.
        assert [waiting.request("GET", "/pid").status for _ in range(3)] == [503] * 3
        gates.open("slow")
        assert slow.read_response().text == "unblocked slow"
        assert waiting.request("GET", "/pid").status == 200
    assert not gates.reached("waiting")
    one.output.wait(r'"GET /block\?waiting HTTP/1\.1" 503 ')
    one.stop()
    log = one.log.join()
    assert log.count("Answering requests with 503") == 1
    assert "4 request(s) were answered with 503" in log


def test_no_more_requests_wait_than_may(server, gates):
    one = server("lifecycle", "--threads", "2", "--max-queue", "2")
    clients = {name: one.connect() for name in "abcd"}
    for name in "ab":
        clients[name].send_request("GET", f"/block?{name}")
        gates.wait_reached(name)
    for name in "cd":
        clients[name].send_request("GET", f"/block?{name}")
    # What came before on another connection is read before: the loop takes events in their order.
    assert [one.get("/pid").status for _ in range(3)] == [503] * 3
    for name in "abcd":
        gates.open(name)
        assert clients[name].read_response().text == f"unblocked {name}"
        clients[name].close()
    one.log.wait(r"Answering requests with 503: too many requests wait .*max_queue; 2 waiting, 2 running")
    assert one.get("/pid").status == 200


@pytest.mark.parametrize(("given", "complaint"), [("-1", "must be positive"), ("soon", "Not a number of seconds")])
def test_a_time_that_is_none_is_refused(server, given, complaint):
    one = server("lifecycle", "--queue-timeout=" + given, ready=False)
    assert one.wait_exit() == 1
    assert complaint in one.log.join()
