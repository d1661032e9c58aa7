"""What the server writes: start-up and stop lines, the access log, and nothing a peer could forge."""

from __future__ import annotations

import re
import signal

import pytest

from harness import IS_OURS, NAME, wait_until
from wire import encode_request

STAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\]"
ACCESS_TIME = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"


# -- start and stop --------------------------------------------------------------------------------


def test_start_up_lines(server):
    one = server("hello:app", "--threads", "2", workers=2)
    kind = r"hybrid \(2 threads\)" if IS_OURS else "gthread"
    lines = [
        rf"{STAMP} \[{one.pid}\] \[INFO\] Starting {NAME} \d+\.\d+\.\d+",
        rf"{STAMP} \[{one.pid}\] \[INFO\] Listening at: http://127\.0\.0\.1:{one.port} \({one.pid}\)",
        rf"{STAMP} \[{one.pid}\] \[INFO\] Using worker: {kind}",
    ]
    first, second = one.booted()
    announced = one.log.text.splitlines()
    for expected, line in zip(lines, announced, strict=False):
        assert re.fullmatch(expected, line), line
    for pid in (first, second):
        assert any(
            re.fullmatch(rf"{STAMP} \[{pid}\] \[INFO\] Booting worker with pid: {pid}", line) for line in announced
        )


def test_several_addresses_share_a_line(server, tmp_path):
    one = server("hello:app", bind=("127.0.0.1:0", f"unix:{tmp_path}/s"))
    one.log.wait(rf"Listening at: http://127\.0\.0\.1:\d+,unix:{tmp_path}/s \({one.pid}\)$")


def test_stop_lines(server):
    one = server("hello:app")
    # An answer shows that the worker has booted; one that is still booting may be ended without a word.
    assert one.get().status == 200
    (worker,) = one.workers()
    assert one.stop() == 0
    text = one.log.join()
    assert re.search(rf"^{STAMP} \[{one.pid}\] \[INFO\] Handling signal: term$", text, re.MULTILINE)
    assert re.search(rf"^{STAMP} \[{worker}\] \[INFO\] Worker exiting \(pid: {worker}\)$", text, re.MULTILINE)
    assert re.search(rf"^{STAMP} \[{one.pid}\] \[INFO\] Shutting down: Master$", text, re.MULTILINE)
    assert not re.search(r"\[(WARNING|ERROR|CRITICAL)\]", text)
    assert "Traceback" not in text


def test_log_level_hides_what_is_below(server, tmp_path):
    path = tmp_path / "s"
    one = server("hello:app", "--log-level", "warning", bind=(f"unix:{path}",), ready=False)
    wait_until(path.exists, "the socket")
    one.address = str(path)
    assert one.get().status == 200
    with one.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.read_response().status == 400
    one.log.wait(r"\[WARNING\] Invalid request from ip=")
    one.stop()
    assert "[INFO]" not in one.log.join()


def test_error_log_file_is_reopened_on_usr1(server, tmp_path):
    log = tmp_path / "error.log"
    unix = tmp_path / "s"
    one = server("hello:app", "--error-logfile", str(log), bind=(f"unix:{unix}",), ready=False)
    wait_until(lambda: log.exists() and "Booting worker" in log.read_text(), "start-up lines in the file")
    one.address = str(unix)
    log.rename(tmp_path / "error.log.1")
    one.send_signal(signal.SIGUSR1)
    wait_until(log.exists, "a new file")
    one.send_signal(signal.SIGTERM)
    assert one.wait_exit() == 0
    assert "Shutting down: Master" in log.read_text()
    assert "Shutting down" not in (tmp_path / "error.log.1").read_text()


# -- access log ------------------------------------------------------------------------------------


def access_lines(one, count):
    one.output.wait(r"\n", count)
    return one.output.text.splitlines()


def test_access_log_has_the_combined_format(server):
    one = server("hello:app", "--access-logfile", "-")
    one.get("/a/b?c=d", [("Referer", "http://x/"), ("User-Agent", "test/1")])
    one.get("/")
    first, second = access_lines(one, 2)
    assert re.fullmatch(rf'127\.0\.0\.1 - - {ACCESS_TIME} "GET /a/b\?c=d HTTP/1\.1" 200 14 "http://x/" "test/1"', first)
    assert re.fullmatch(rf'127\.0\.0\.1 - - {ACCESS_TIME} "GET / HTTP/1\.1" 200 14 "-" "-"', second)


def test_no_access_log_by_default(server):
    one = server("hello:app")
    one.get("/quiet")
    one.stop()
    assert "/quiet" not in one.output.join() + one.log.join()


def test_access_log_line_per_request_of_a_connection(server):
    one = server("probe:raw", "--access-logfile", "-", "--threads", "2")
    with one.connect() as client:
        client.request("HEAD", "/items?0")
        client.send(b"".join(encode_request("GET", f"/items?{number}") for number in range(1, 4)))
        for _ in range(3):
            client.read_response()
        client.request("GET", "/nowhere?4")
    lines = access_lines(one, 5)
    assert [re.search(r'\?(\d) HTTP/1\.1" (\d+)', line).groups() for line in lines] == [
        ("0", "200"), ("1", "200"), ("2", "200"), ("3", "200"), ("4", "404")
    ]  # fmt: skip


def test_every_atom(server):
    atoms = "h l u m U q H s B f a p".split()
    form = (
        " ".join(f"{atom}=%({atom})s" for atom in atoms)
        + " D=%(D)s M=%(M)s T=%(T)s L=%(L)s i=%({x-in}i)s o=%({x-here}o)s e=%({path_info}e)s"
    )
    one = server("probe:raw", "--access-logfile", "-", "--access-logformat", form)
    (worker,) = one.workers()
    fields = [("Authorization", "Basic dXNlcjpwYXNz"), ("X-In", "in"), ("Referer", "r"), ("User-Agent", "a")]
    one.get("/status/deep?line=200%20OK", fields)
    one.get("/status/deep?line=204%20No%20Content")
    first, second = access_lines(one, 2)
    assert first.startswith(
        "h=127.0.0.1 l=- u=user m=GET U=/status/deep q=line=200%20OK H=HTTP/1.1 s=200 B=11 f=r a=a p=<"
    )
    assert re.search(rf"p=<{worker}> D=\d+ M=\d+ T=\d+ L=\d+\.\d{{6}} i=in o=- e=/status/deep$", first)
    assert " o=1 " in second


def test_access_log_file_is_reopened_on_usr1(server, tmp_path):
    log = tmp_path / "access.log"
    one = server("hello:app", "--access-logfile", str(log))
    one.get("/before")
    wait_until(lambda: "/before" in log.read_text(), "the line")
    log.rename(tmp_path / "rotated")
    one.send_signal(signal.SIGUSR1)

    def arrives():
        one.get("/after")
        return log.exists() and "/after" in log.read_text()

    wait_until(arrives, "lines in the new file")


@pytest.mark.ours
def test_refused_requests_are_logged_too(server):
    one = server("hello:app", "--access-logfile", "-", env={"FERRICORN_CLIENT_HEADER_TIMEOUT": "1"})
    for sent, status in ((b"nonsense\r\n\r\n", 400), (b"GET /half HTTP/1.1\r\nHost:", 408)):
        with one.connect() as client:
            client.send(sent)
            assert client.read_response().status == status
    lines = access_lines(one, 2)
    assert " 400 " in lines[0]
    assert " 408 " in lines[1]


# -- nothing a peer could forge --------------------------------------------------------------------


def test_a_peer_cannot_forge_lines(server):
    """Quotes, percent-encoded line ends and control bytes of a request stay inside one line."""
    one = server("hello:app", "--access-logfile", "-")
    one.get('/%0a127.0.0.1"%0d%0a', [("User-Agent", 'x" 200 1 "forged" "\t\xff'), ("Referer", '"" - \\')])
    one.get("/last")
    lines = access_lines(one, 2)
    assert len(lines) == 2
    assert re.fullmatch(rf'127\.0\.0\.1 - - {ACCESS_TIME} "GET .*" 200 14 "(\\"|\\x22).*" "x(\\"|\\x22) .*"', lines[0])


@pytest.mark.ours
def test_control_and_high_bytes_are_escaped(server):
    one = server("hello:app", "--access-logfile", "-")
    one.get("/", [("User-Agent", 'tab\there "quoted" back\\slash \x85\x9b\xff')])
    (line,) = access_lines(one, 1)
    assert line.isascii()
    assert line.isprintable()
    assert '"tab\\x09here \\"quoted\\" back\\\\slash \\x85\\x9b\\xff"' in line.lower()


def test_refused_bytes_do_not_break_the_error_log(server):
    one = server("hello:app")
    for sent in (
        b"GET /\x1b[31m HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad\x1b]0;x\x07 name: 1\r\n\r\n",
    ):
        with one.connect() as client:
            client.send(sent)
            assert client.read_response().status == 400
    one.log.wait(r"Invalid request from ip=127\.0\.0\.1", 2)
    assert "\x1b" not in one.log.text
    for line in one.log.text.splitlines():
        assert re.match(STAMP, line), line


def test_local_time_of_the_environment_is_used(server):
    one = server("hello:app", "--access-logfile", "-", env={"TZ": "XXX-05:30"})
    one.get()
    assert "+0530] " in access_lines(one, 1)[0]
    assert re.match(r"\[[-0-9: ]+\+0530\]", one.log.text)


def test_a_failing_request_leaves_its_traceback(server):
    one = server("faulty")
    assert one.get("/raises").status == 500
    one.log.wait(r"^ValueError: application is broken$")
    assert re.search(
        r'^Traceback \(most recent call last\):\n  File ".*faulty\.py", line \d+', one.log.text, re.MULTILINE
    )


def test_log_lines_of_workers_are_whole(server):
    """Many writers, one file: lines never mix."""
    one = server("faulty", "--threads", "4", workers=2)
    clients = [one.connect() for _ in range(20)]
    for client in clients:
        client.send_request("GET", "/raises", [("Connection", "close")])
    for client in clients:
        assert client.read_response().status == 500
        client.close()
    one.log.wait(r"ValueError: application is broken\n", 20)
    for line in one.log.text.splitlines():
        assert re.match(rf"{STAMP} |Traceback| |ValueError: application is broken$|$", line), line
