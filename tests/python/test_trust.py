"""Names, schemes and mount points: which peer may say what, side by side with gunicorn; then the client's address."""

from __future__ import annotations

import json
import os
import signal

import pytest

from harness import GUNICORN, Gates, Server

OWN_VALUES = {
    "SERVER_SOFTWARE", "SERVER_PORT", "REMOTE_PORT",
    "wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.early_hints", "gunicorn.socket",
}  # fmt: skip

UNTRUSTED = ("--forwarded-allow-ips", "10.9.8.7")

# -- the same as gunicorn --------------------------------------------------------------------------

BOTH = [("X_One", "1"), ("X-Two", "2"), ("X-two", "3"), ("Remote_User", "r"), ("SCRIPT_NAME", ""), ("Path_Info", "/p")]
SCHEMES = [
    [("X-Forwarded-Proto", "https")],
    [("x-forwarded-protocol", "ssl")],
    [("X-Forwarded-Ssl", "on")],
    [("X-Forwarded-Proto", "HTTPS")],
    [("X-Forwarded-Proto", "http"), ("X-Forwarded-Ssl", "off")],
    [("X-Forwarded-Proto", "https"), ("X-Forwarded-Ssl", "on")],
    [("X_Forwarded_Proto", "https")],
]
CONTRADICTIONS = [
    [("X-Forwarded-Proto", "https"), ("X-Forwarded-Ssl", "off")],
    [("X-Forwarded-Proto", "http"), ("X-Forwarded-Proto", "https")],
]
MOUNT = [("SCRIPT_NAME", "/environ")]

# Arguments (and SCRIPT_NAME of the environment), then requests: target and headers.
CASES = {
    "default": (
        [],
        "",
        [
            ("/environ", BOTH),
            ("/environ", MOUNT),
            ("/mount/environ", [("SCRIPT_NAME", "/mount")]),
            ("/mount/environ?q", [("script_name", "/moun")]),
            ("/environ", [("Script-Name", "/mount")]),
            ("/environ", [("X_Dropped", "1"), ("X-Dropped", "2")]),
            *(("/environ", headers) for headers in [*SCHEMES, *CONTRADICTIONS]),
        ],
    ),
    "untrusted": (
        UNTRUSTED,
        "",
        [
            ("/environ", BOTH),
            ("/environ", [("SCRIPT_NAME", "/mount")]),
            *(("/environ", headers) for headers in [*SCHEMES, *CONTRADICTIONS]),
        ],
    ),
    "environment": (
        [],
        "/mount",
        [("/mount/environ", []), ("/mount/environ/x", BOTH[:2]), ("/own/environ", [("SCRIPT_NAME", "/own")])],
    ),
    "refuse": (
        ["--header-map", "refuse"],
        "",
        [
            ("/environ", [("X_One", "1")]),
            ("/environ", [("x_one", "1"), ("X-One", "1")]),
            ("/mount/environ", [("SCRIPT_NAME", "/mount")]),
            ("/environ", [("X-One", "1")]),
        ],
    ),
    "refuse untrusted": (
        ["--header-map", "refuse", *UNTRUSTED],
        "",
        [("/environ", [("SCRIPT_NAME", "/mount")]), ("/environ", [("Remote_User", "1")])],
    ),
    "dangerous": (
        ["--header-map", "dangerous", *UNTRUSTED],
        "",
        [
            ("/environ", [("X_One", "1"), ("X-One", "2")]),
            ("/environ", [("X-One", "1"), ("x_one", "2")]),
            ("/environ", [("Content_Length", "7"), ("Content_Type", "x")]),
        ],
    ),
    "forwarder": (
        ["--forwarder-headers", "REMOTE_USER,SCRIPT_NAME"],
        "",
        [("/environ", BOTH[1:]), ("/environ", [("REMOTE_USER", "a"), ("Remote_User", "b")])],
    ),
    "any forwarder": (["--forwarder-headers", "*"], "", [("/environ", BOTH)]),
    "lenient": (
        ["--strip-header-spaces", "--permit-obsolete-folding", "--casefold-http-method"],
        "",
        [
            ("/environ", [("X-One ", "1"), ("X-Two \t", "2")]),
            ("/environ", [("X-One", "1\r\n 2\r\n\t3")]),
            ("/environ", [("X_One ", "1"), ("X-Forwarded-Proto ", "https")]),
        ],
    ),
}


def comparable(answer):
    """Status and environ, or status and page."""
    if answer.status != 200:
        return answer.status, answer.reason, answer.body
    shown = json.loads(answer.body)
    return answer.status, {
        key: value for key, value in shown.items() if key not in OWN_VALUES and not key.startswith("ferricorn.")
    }


@pytest.fixture(scope="module", params=CASES, ids=[name.replace(" ", "-") for name in CASES])
def pair(request, tmp_path_factory):
    """gunicorn and the server under test with the settings of one case, and its requests."""
    arguments, script_name, requests = CASES[request.param]
    arguments = ["probe:raw", "--threads", "2", *arguments]
    both = []
    try:
        for command in (GUNICORN, None):
            gates = Gates(tmp_path_factory.mktemp("gates"))
            environment = gates.env | ({"SCRIPT_NAME": script_name} if script_name else {})
            both.append(Server(arguments, command=command, env=environment))
        for one in both:
            one.wait_ready()
        yield both, requests
    finally:
        assert [one.reap() for one in both] == [[]] * len(both)


def test_what_a_peer_says_means_what_it_means_to_gunicorn(pair):
    pytest.importorskip("gunicorn")
    both, requests = pair
    for target, headers in requests:
        theirs, ours = (comparable(one.get(target, headers)) for one in both)
        assert ours == theirs, (target, headers)


def test_folded_method_and_odd_versions_as_gunicorn(server):
    permit = ["--permit-unconventional-http-method", "--permit-unconventional-http-version"]
    arguments = ["--threads", "2", "--casefold-http-method", *permit]
    answers = []
    for command in (GUNICORN, None):
        one = server("probe:raw", *arguments, command=command)
        with one.connect() as client:
            client.send_request("get", "/environ", [("Connection", "close")])
            first = comparable(client.read_response())
        with one.connect() as client:
            client.send_request("gEt#it", "/environ", [("Connection", "close")], version="HTTP/1.7")
            answers.append((first, comparable(client.read_response())))
    assert answers[1] == answers[0]
    assert answers[1][0][1]["REQUEST_METHOD"] == "GET"
    assert answers[1][1][1]["SERVER_PROTOCOL"] == "HTTP/1.7"


def test_secure_scheme_headers_of_the_config_file(server, tmp_path):
    config = tmp_path / "conf.py"
    config.write_text("secure_scheme_headers = {'X-Secure': 'yes', 'X_SCHEME': 'https'}\n")
    asked = [[("X-Secure", "yes")], [("X-Forwarded-Proto", "https")], [("X_Scheme", "https")], [("X-Secure", "YES")]]
    one = server("probe:raw", "-c", str(config))
    schemes = [json.loads(one.get("/environ", headers).body)["wsgi.url_scheme"] for headers in asked]
    assert schemes == ["https", "http", "https", "http"]


# -- differences on purpose ------------------------------------------------------------------------


@pytest.mark.ours
def test_a_path_outside_the_mount_point_is_500_with_its_own_phrase(server):
    one = server("probe:raw")
    answer = one.get("/environ", [("SCRIPT_NAME", "/foo")])
    assert (answer.status, answer.reason) == (500, "Internal Server Error")
    text = "Configuration problem: Request path &#x27;/environ&#x27; does not start with SCRIPT_NAME &#x27;/foo&#x27;"
    assert text in answer.text.replace("&#39;", "&#x27;")
    one.stop()
    log = one.log.join()
    assert "does not start with SCRIPT_NAME" in log
    assert "Traceback" not in log


@pytest.mark.ours
@pytest.mark.parametrize(
    "headers",
    [
        [("REMOTE_USER", "good"), ("Remote-User", "evil")],
        [("remote-user", "evil"), ("Remote_User", "good")],
        [("SCRIPT_NAME", "/a"), ("SCRIPT_NAME", "/b")],
    ],
)
def test_what_a_proxy_vouches_for_is_said_once(server, headers):
    """gunicorn joins the values of the first two, and takes the last of the third."""
    one = server("probe:raw", "--forwarder-headers", "REMOTE_USER,SCRIPT_NAME")
    assert one.get("/environ", headers).status == 400


@pytest.mark.ours
def test_script_name_of_an_untrusted_peer_never_counts(server):
    one = server("probe:raw", "--header-map", "dangerous", *UNTRUSTED)
    environ = json.loads(one.get("/environ", [("SCRIPT_NAME", "/environ")]).body)
    assert (environ["SCRIPT_NAME"], environ["HTTP_SCRIPT_NAME"]) == ("", "/environ")


@pytest.mark.ours
def test_a_dropped_name_is_logged_once(server):
    one = server("probe:raw")
    for name in ("X_Secret", "x_secret", "X_Secret", "X_Other"):
        one.get("/environ", [(name, "1")])
    one.stop()
    lines = [line for line in one.log.join().splitlines() if "Dropping header" in line]
    assert [line.split("Dropping header ")[1].split(":")[0] for line in lines] == ["X_SECRET", "X_OTHER"]


# -- the client's address --------------------------------------------------------------------------


def address(answer):
    environ = json.loads(answer.body)
    return environ["REMOTE_ADDR"], environ.get("REMOTE_PORT")


@pytest.mark.ours
@pytest.mark.parametrize(
    ("arguments", "header", "expected"),
    [
        (["x-forwarded-for"], ("X-Forwarded-For", "6.6.6.6, 192.0.2.1"), ("192.0.2.1", None)),
        (["x-forwarded-for", "--proxy-headers-hops", "2"], ("X-Forwarded-For", "6.6.6.6:5, ::1"), ("6.6.6.6", "5")),
        (["x-forwarded-for", "--proxy-headers-hops", "3"], ("X-Forwarded-For", "6.6.6.6, 192.0.2.1"), None),
        (["x-forwarded-for"], ("X-Forwarded-For", "garbage, \xff"), None),
        (["x-forwarded-for"], ("X-Forwarded-For", ""), None),
        (["x-forwarded-for", *UNTRUSTED], ("X-Forwarded-For", "192.0.2.1"), None),
        (["X-Forwarded-For"], ("Forwarded", "for=192.0.2.1"), None),
        (["forwarded"], ("Forwarded", 'for=6.6.6.6, for="[2001:db8::1]:80";by=x'), ("2001:db8::1", "80")),
        (["forwarded"], ("Forwarded", 'for="6.6.6.6, for=192.0.2.1'), None),
        (["off"], ("X-Forwarded-For", "192.0.2.1"), None),
    ],
)
def test_remote_addr_and_the_log_are_the_clients(server, arguments, header, expected):
    one = server("probe:raw", "--access-logfile", "-", "--proxy-headers", *arguments)
    remote, port = address(one.get("/environ", [header]))
    if expected is None:
        assert remote == "127.0.0.1"
        assert port is not None
    else:
        assert (remote, port) == expected
    one.output.wait(rf"^{remote} - - ")


@pytest.mark.ours
def test_a_unix_socket_has_clients_with_addresses(server, tmp_path):
    one = server(
        "probe:raw", "--access-logfile", "-", "--proxy-headers", "x-forwarded-for", bind=[f"unix:{tmp_path}/s.sock"]
    )
    assert address(one.get("/environ", [("X-Forwarded-For", "192.0.2.1")])) == ("192.0.2.1", None)
    assert address(one.get("/environ")) == ("", None)
    one.output.wait(r"^192\.0\.2\.1 - - ")


@pytest.mark.ours
def test_an_address_that_is_not_used_is_noted_at_debug(server):
    one = server("probe:raw", "--log-level", "debug", "--proxy-headers", "x-forwarded-for")
    one.get("/environ", [("X-Forwarded-For", "nobody")])
    one.log.wait(r"\[DEBUG\] Ignoring the client's address in .*: the element is not an address")


@pytest.mark.ours
def test_running_requests_are_listed_with_their_clients(server, gates):
    """An aborted worker says what its threads are in, and for whom."""
    one = server("lifecycle", "--proxy-headers", "x-forwarded-for")
    with one.connect() as client:
        client.send_request("GET", "/block?held", [("X-Forwarded-For", "192.0.2.77")])
        gates.wait_reached("held")
        os.kill(one.workers()[0], signal.SIGABRT)
        one.log.wait(r"\[ERROR\] In flight for \d+ s: GET /block from 192\.0\.2\.77$")
    gates.open("held")
