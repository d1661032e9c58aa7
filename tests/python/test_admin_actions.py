"""`admin_token`: what a request at `admin_bind` may have done, and every way in which it is refused."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from test_dashboard import ask, data_of
from test_health import visit

from harness import Finished, stop_process, wait_until

pytestmark = pytest.mark.ours

TOKEN = "0123456789abcdef-of-the-test"
FORM = ("Content-Type", "application/x-www-form-urlencoded")
BEARER = ("Authorization", f"Bearer {TOKEN}")
ACTIONS = ["reload", "add-worker", "remove-worker", "stack"]


@pytest.fixture
def acted(server):
    def start(*options, env=None):
        token = {"ADMIN_TOKEN": TOKEN, **(env or {})}
        return server(
            "lifecycle", "--admin-bind", "127.0.0.1:0", "--admin-token", "env:ADMIN_TOKEN", *options, env=token
        )

    return start


def post(one, action, *fields, body=b"", host="127.0.0.1", method="POST", query=""):
    lines = [("Host", host), ("Content-Length", str(len(body))), *fields]
    head = f"{method} /actions/{action}{query} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines)
    with visit(one) as client:
        client.send(head.encode() + b"\r\n" + body)
        return client.read_response()


def untouched(one):
    """No signal has come, and nothing that was sent is in the log."""
    assert "Handling signal" not in one.log.text
    assert TOKEN not in one.log.text + one.output.text
    return True


# -- what is done ----------------------------------------------------------------------------------


def test_a_reload(acted):
    one = acted()
    before = one.workers()
    answer = post(one, "reload", BEARER)
    assert (answer.status, json.loads(answer.text)) == (200, {"status": "reloading"})
    one.log.wait("Handling signal: hup")
    wait_until(lambda: (new := one.workers()) and not set(new) & set(before), "new workers")
    assert data_of(one)["has_actions"] is True
    assert TOKEN not in one.log.text


def test_workers_more_and_fewer(acted):
    one = acted()
    assert post(one, "add-worker", FORM, body=f"token={TOKEN}".encode()).status == 200
    wait_until(lambda: len(one.workers()) == 2, "a second worker")
    assert post(one, "remove-worker", BEARER).status == 200
    wait_until(lambda: len(one.workers()) == 1, "one is left")
    answer = post(one, "remove-worker", BEARER)
    assert (answer.status, answer.text) == (409, "The last worker stays\n")


def test_the_stack_of_a_thread(acted, gates):
    one = acted("--threads", "2")
    (pid,) = one.workers()
    with one.connect() as client:
        client.send_request("GET", "/block?here")
        gates.wait_reached("here")
        answer = post(one, "stack", BEARER, FORM, body=f"pid={pid}".encode())
        assert (answer.status, answer.header("Content-Type")) == (200, "application/json")
        data = json.loads(answer.text)
        (row,) = data_of(one)["running"]["requests"]
        (thread,) = [one for one in data["threads"] if one["name"] == f"ferricorn-thread_{row['thread']}"]
        assert "gate" in json.dumps(thread["frames"])
        gates.open("here")
        assert client.read_response().status == 200


def test_stacks_are_asked_for_while_others_are_answered(acted):
    """A worker that does not run answers after two seconds; the pages do at once."""
    one = acted()
    (pid,) = one.workers()
    wait_until(lambda: [row["state"] for row in data_of(one)["workers"]] == ["serving"], "it serves")
    stop_process(pid)
    try:
        with visit(one) as asking:
            body = f"pid={pid}".encode()
            fields = [("Host", "127.0.0.1"), BEARER, FORM, ("Content-Length", str(len(body)))]
            lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
            asking.send(f"POST /actions/stack HTTP/1.1\r\n{lines}\r\n".encode() + body)
            assert ask(one, "/live").status == 200
            assert ask(one, "/dashboard.json").status == 200
            answer = asking.read_response()
            assert answer.status == 200
            assert "did not answer within 2 seconds" in json.loads(answer.text)["note"]
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("pid", ["", "0", "1", "-1", "x", "99999999999999999999"])
def test_a_stack_of_no_worker(acted, pid):
    answer = post(acted(), "stack", BEARER, FORM, body=f"pid={pid}".encode())
    assert (answer.status, answer.text) == (400, "pid must be that of a worker\n")


def test_the_arbiter_is_no_worker(acted):
    one = acted()
    assert post(one, "stack", BEARER, FORM, body=f"pid={one.pid}".encode()).status == 400


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_without_the_setting_nothing_is_done(server, action):
    one = server("lifecycle", "--admin-bind", "127.0.0.1:0")
    for fields in ([], [BEARER], [("Authorization", "Bearer ")]):
        answer = post(one, action, *fields)
        assert (answer.status, answer.text) == (403, "Actions need the setting admin_token\n")
    assert data_of(one)["has_actions"] is False
    assert untouched(one)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer 0123456789abcdef-of-the-tesT")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", f"Bearer {TOKEN[:-1]}")],
        [("Authorization", f"Basic {TOKEN}")],
        [("Authorization", TOKEN)],
        [("Cookie", f"token={TOKEN}")],
        [("X-Token", TOKEN)],
    ],
    ids=lambda fields: " ".join(value for _, value in fields) or "none",
)
def test_a_wrong_token(acted, action, fields):
    one = acted()
    answer = post(one, action, *fields)
    assert (answer.status, answer.header("WWW-Authenticate")) == (401, "Bearer")
    one.log.wait(r"admin_bind: refused \d+ requests with a wrong admin_token")
    assert untouched(one)


def test_wrong_tokens_of_just_before_the_end_are_logged(acted):
    one = acted()
    for _ in range(10):
        assert post(one, "reload", ("Authorization", "Bearer wrong")).status == 401
    one.stop()
    lines = re.findall(r"admin_bind: refused (\d+) requests with a wrong admin_token", one.log.join())
    assert sum(map(int, lines)) == 10


@pytest.mark.parametrize("action", ACTIONS)
def test_a_token_in_the_url_is_no_token(acted, action):
    one = acted()
    assert post(one, action, query=f"?token={TOKEN}").status == 401
    assert untouched(one)


@pytest.mark.parametrize("body", [b"token=", b"token", b"Token=" + TOKEN.encode(), b"xtoken=" + TOKEN.encode()])
def test_a_wrong_form(acted, body):
    one = acted()
    assert post(one, "reload", FORM, body=body).status == 401
    assert untouched(one)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/json", "multipart/form-data; boundary=x"])
def test_bodies_that_are_no_form(acted, kind):
    """Also what a form of a stranger's page can send without asking first (`text/plain`, `multipart`)."""
    one = acted()
    fields = [("Content-Type", kind)] if kind else []
    assert post(one, "reload", *fields, BEARER, body=f"token={TOKEN}".encode()).status == 415
    assert untouched(one)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("action", ACTIONS)
def test_other_methods(acted, action, method):
    one = acted()
    answer = ask(one, f"/actions/{action}", method)
    assert (answer.status, answer.header("Allow")) == (405, "POST")
    assert answer.header("Access-Control-Allow-Origin") is None, "no preflight of strangers succeeds"
    assert untouched(one)


@pytest.mark.parametrize(
    "field",
    [
        ("Origin", "http://evil.example"),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ],
    ids=" ".join,
)
def test_pages_of_other_origins(acted, field):
    one = acted()
    assert post(one, "reload", BEARER, field).status == 403
    assert untouched(one)


def test_the_own_page_and_programs(acted):
    one = acted()
    for fields in ([], [("Origin", "http://127.0.0.1")], [("Sec-Fetch-Site", "same-origin")]):
        assert post(one, "stack", BEARER, FORM, *fields, body=b"pid=1").status == 400, "permitted, and then no worker"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example"])
def test_a_name_of_strangers_that_points_here(acted, host):
    one = acted()
    assert post(one, "reload", BEARER, host=host).status == 421
    assert untouched(one)


def test_long_bodies_and_unknown_actions(acted):
    one = acted()
    assert post(one, "reload", BEARER, FORM, body=b"a=" + b"x" * 5000).status == 413
    assert post(one, "shutdown", BEARER).status == 405
    assert post(one, "", BEARER).status == 405
    assert untouched(one)


def test_a_server_that_stops_is_left_alone(acted, gates):
    one = acted("--stop-delay", "30")
    one.send_signal(signal.SIGTERM)
    one.log.wait("Stopping in 30 s")
    for action in ("reload", "add-worker", "remove-worker"):
        answer = post(one, action, BEARER)
        assert (answer.status, answer.text) == (409, "The server is stopping\n")
    one.send_signal(signal.SIGINT)
    assert one.wait_exit() == 0


# -- where the token is ----------------------------------------------------------------------------


def refused(*options, env=None):
    finished = Finished(["lifecycle", "--admin-bind", "127.0.0.1:0", *options], env=env)
    assert finished.code == 1
    return finished.error + finished.output


def test_a_token_on_the_command_line_is_refused_and_not_shown():
    said = refused("--admin-token", TOKEN)
    assert "every user of the machine can read a command line: give env:NAME or file:PATH" in said
    assert TOKEN not in said


@pytest.mark.parametrize("check", [[], ["--check-config"]])
def test_a_token_that_is_none_is_refused(tmp_path, check):
    for token, part in (
        ("env:NO_SUCH_VARIABLE", "the environment variable NO_SUCH_VARIABLE is not set"),
        (f"file:{tmp_path}/missing", "No such file or directory"),
        ("env:SHORT", "has 5 bytes; it needs at least 16"),
        ("env:SPACED", "only printable ASCII characters"),
    ):
        env = {"SHORT": "short", "SPACED": "with spaces, of enough length"}
        said = refused("--admin-token", token, *check, env=env)
        assert "admin_token" in said
        assert part in said
        assert "short\n" not in said
        assert "with spaces" not in said


def test_it_is_masked_wherever_settings_are_shown(server, tmp_path):
    config = tmp_path / "conf.py"
    config.write_text(f"admin_bind = '127.0.0.1:0'\nadmin_token = '{TOKEN}'\n")
    for option in ("--print-config", "--check-config"):
        finished = Finished(["hello:app", "-c", str(config), option])
        assert finished.code == 0, finished.error
        assert TOKEN not in finished.output + finished.error
        if option == "--print-config":
            assert re.search(r"^admin_token .*\*\*\*", finished.output, re.MULTILINE)
    one = server("lifecycle", "-c", str(config), "--log-level", "debug")
    assert post(one, "stack", BEARER).status == 400
    for path in ("/", "/dashboard.json", "/metrics"):
        assert TOKEN not in ask(one, path).text
    for pid in (one.pid, *one.workers()):
        assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert one.stop() == 0
    assert TOKEN not in one.log.text + one.output.text


def test_a_file_is_read_anew_by_a_reload(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("the-first-token-0\n")
    one = server("lifecycle", "--admin-bind", "127.0.0.1:0", "--admin-token", f"file:{token}")

    def status(text):
        return post(one, "stack", ("Authorization", f"Bearer {text}")).status

    assert (status("the-first-token-0"), status("the-second-token-0")) == (400, 401)
    token.write_text("the-second-token-0\n")
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: (status("the-first-token-0"), status("the-second-token-0")) == (401, 400), "the new token")
    token.write_text("short")
    one.send_signal(signal.SIGHUP)
    one.log.wait("Reload failed: .*admin_token has 5 bytes|admin_token has 5 bytes")
    assert status("the-second-token-0") == 400, "the settings are unchanged"
