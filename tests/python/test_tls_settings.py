"""The settings of TLS and HTTP/2: gunicorn's words for wrong ones, and what right ones lead to."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest
from authorities import Authority, get, tls
from frames import PREFACE, Frames
from hyperframe.frame import SettingsFrame

from harness import APPS, COMMAND, PATIENCE_S, clean_environment

pytestmark = pytest.mark.ours

H2C = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


def files(authority: Authority) -> tuple[str, ...]:
    certificate, key = authority.sign("server")
    return ("--certfile", str(certificate), "--keyfile", str(key))


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "hello:app", "--check-config", *map(str, arguments)],
        cwd=APPS,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--http-protocols", "h3"), "Invalid protocol 'h3'. Valid protocols: h1, h2"),
        (("--http-protocols", "h1,h1"), "Duplicate protocols specified"),
        (("--http2-cleartext", "sometimes"), "Invalid http2_cleartext: sometimes"),
        (("--http2-max-concurrent-streams", "0"), "HTTP/2 max concurrent streams must be at least 1: 0"),
        (("--http2-initial-window-size", "2147483648"), "HTTP/2 window size must be at most 2147483647: 2147483648"),
        (("--http2-initial-window-size", "0"), "HTTP/2 window size must be at least 1: 0"),
        (("--http2-max-frame-size", "16383"), "http2_max_frame_size must be between 16384 and 16777215, got 16383"),
        (("--http2-max-frame-size", "16777216"), "http2_max_frame_size must be between 16384 and 16777215, got"),
        (("--http2-max-header-list-size", "-1"), "Value must be positive: -1"),
        (("--cert-reqs", "-1"), "Value must be positive: -1"),
    ],
)
def test_a_wrong_value_has_gunicorns_words(arguments, words):
    checked = check(*arguments)
    assert checked.returncode == 1
    assert words in checked.stderr and "Traceback" not in checked.stderr, checked.stderr


def test_http_2_that_nobody_can_negotiate_is_warned_of(authority):
    words = "http_protocols includes h2 but there is no TLS and http2_cleartext is off"
    assert words in check("--http-protocols", "h1,h2").stderr
    assert words not in check("--http-protocols", "h1,h2", *files(authority)).stderr
    assert words not in check(*H2C).stderr


def test_options_without_an_effect_are_taken_and_explained(server, authority):
    options = ("--suppress-ragged-eofs", "--do-handshake-on-connect", "--ssl-version", "2")
    checked = check(*options, *files(authority))
    assert checked.returncode == 0, checked.stderr
    one = server("hello:app", *options, *files(authority))
    with tls(one.address, authority.client()) as connection:
        assert b" 200 " in get(connection)


def test_configuration_files_may_use_the_words_of_python(server, tmp_path):
    """gunicorn takes True for prior knowledge, and no list of protocols."""
    config = tmp_path / "conf.py"
    config.write_text("http_protocols = 'h1,h2'\nhttp2_cleartext = True\n")
    one = server("streams:application", "-c", str(config))
    with Frames(one.address, PATIENCE_S) as client:
        assert client.reply(client.ask()).body == b"hello"
    config.write_text("http_protocols = 'h1,h2'\nhttp2_cleartext = False\n")
    assert check("-c", config).returncode == 0
    config.write_text("http_protocols = ['h1', 'h2']\n")
    assert "http_protocols must be a string" in check("-c", config).stderr


def settings_of(one) -> dict[int, int]:
    with socket.create_connection(one.address, PATIENCE_S) as raw:
        raw.sendall(PREFACE + SettingsFrame(0).serialize())
        head = raw.recv(9, socket.MSG_WAITALL)
        assert head[3] == 4, "SETTINGS come first"
        payload = raw.recv(int.from_bytes(head[:3], "big"), socket.MSG_WAITALL)
    pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
    return {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}


def test_what_is_set_is_what_clients_are_told_first(server):
    """gunicorn tells its defaults first, and cuts clients off that believe them."""
    told = settings_of(server("streams:application", *H2C))
    assert told == {3: 100, 4: 65_535, 5: 16_384, 6: 65_536}
    words = ("--http2-max-concurrent-streams", "7", "--http2-initial-window-size", "100000")
    more = ("--http2-max-frame-size", "32768", "--http2-max-header-list-size", "0")
    assert settings_of(server("streams:application", *H2C, *words, *more)) == {3: 7, 4: 100_000, 5: 32_768}


def test_hooks_see_tls_as_gunicorn_shows_it(server, authority, tmp_path):
    shown = tmp_path / "shown"
    config = tmp_path / "conf.py"
    config.write_text(
        "import json\n\n\ndef when_ready(server):\n"
        f"    with open({str(shown)!r}, 'w') as out:\n"
        "        json.dump([server.cfg.is_ssl, sorted(server.cfg.ssl_options)], out)\n"
    )
    one = server("hello:app", "-c", str(config), *files(authority))
    assert one.booted()
    is_ssl, options = json.loads(shown.read_text())
    assert is_ssl is True
    assert {"certfile", "keyfile", "cert_reqs", "ca_certs", "ciphers", "do_handshake_on_connect"} <= set(options)


def test_tls_is_for_all_addresses(server, authority, tmp_path):
    path = tmp_path / "s"
    one = server("tls:shown", "-b", f"unix:{path}", *files(authority))
    assert one.log.wait(r"Listening at: https://127\.0\.0\.1:\d+,unix:\S+ \(\d+\)$")
    context = authority.client()
    for address in one.addresses():
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as raw:
            raw.settimeout(PATIENCE_S)
            raw.connect(address)
            with context.wrap_socket(raw, server_hostname="localhost") as connection:
                environ = get(connection).decode()
                assert re.search(r'"wsgi.url_scheme": "https"', environ)
    assert Path(path).is_socket()
