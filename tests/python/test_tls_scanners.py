"""What the scanners that operators point at a server say of TLS: sslscan and testssl.sh."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from authorities import Authority
from programs import program

pytestmark = pytest.mark.ours

TLS_1_3 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
# The suites of TLS 1.2, for each kind of key.
TLS_1_2 = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
VERSIONS = {"ssl 2": "0", "ssl 3": "0", "tls 1.0": "0", "tls 1.1": "0", "tls 1.2": "1", "tls 1.3": "1"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def pair(authority: Authority, kind: str) -> tuple[str, ...]:
    from trustme import KeyType

    certificate, key = authority.sign(kind, key_type=KeyType[kind])
    return ("--certfile", str(certificate), "--keyfile", str(key))


def sslscan(one) -> ElementTree.Element:
    words = ("--xml=-", "--no-colour", f"127.0.0.1:{one.port}")
    done = subprocess.run([program("sslscan"), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return ElementTree.fromstring(done.stdout)


@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
def test_sslscan_sees_two_versions_and_their_strong_ciphers(server, authority, kind):
    program("sslscan")
    seen = sslscan(server("hello:app", *pair(authority, kind)))
    versions = {f"{one.get('type')} {one.get('version')}": one.get("enabled") for one in seen.iter("protocol")}
    assert versions == VERSIONS
    ciphers = {(one.get("sslversion"), one.get("cipher")) for one in seen.iter("cipher")}
    assert ciphers == {("TLSv1.3", name) for name in TLS_1_3} | {
        ("TLSv1.2", f"ECDHE-{kind}-{name}") for name in TLS_1_2
    }
    assert {one.get("strength") for one in seen.iter("cipher")} <= {"strong", "acceptable"}
    assert all(one.get("vulnerable") == "0" for one in seen.iter("heartbleed"))
    assert [one.get("supported") for one in seen.iter("renegotiation")] == ["0"]
    assert all(one.get("supported") == "0" for one in seen.iter("compression"))
    assert len(list(seen.iter("group"))) >= 3


def test_sslscan_sees_what_the_settings_leave(server, authority):
    program("sslscan")
    arguments = ("--ssl-minimum-version", "TLSv1.3", "--ciphers", "TLS_AES_256_GCM_SHA384")
    seen = sslscan(server("hello:app", *pair(authority, "ECDSA"), *arguments))
    ciphers = {(one.get("sslversion"), one.get("cipher")) for one in seen.iter("cipher")}
    assert ciphers == {("TLSv1.3", "TLS_AES_256_GCM_SHA384")}


# What testssl.sh says of the certificate is about the tests' authority, and CAA records are the name's owner's.
NOT_OURS = ("cert_", "DNS_CAArecord")
# Its word for a server that lets the client choose between suites that are all strong, as servers do today.
CLIENT_CHOOSES = "cipher_order"
COULD_NOT_LOOK = "check failed because of connect problem"


# It takes half a minute of a quiet machine.
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ciphers", [None, "ECDHE+AESGCM:ECDHE+CHACHA20"])
def test_testssl_finds_nothing_weak(server, authority, tmp_path, ciphers):
    path = program("testssl")
    order = ("--ciphers", ciphers) if ciphers else ()
    one = server("hello:app", *pair(authority, "RSA"), *order, "--http-protocols", "h2,h1")
    report = Path(tmp_path, "report.json")
    looks = ("--protocols", "--std", "--pfs", "--server-preference", "--server-defaults", "--vulnerable")
    words = (path, "--quiet", "--color", "0", "--warnings", "off", *looks, "--jsonfile", str(report))
    done = subprocess.run([*words, f"127.0.0.1:{one.port}"], capture_output=True, text=True, timeout=500)
    found = json.loads(report.read_text())
    said = {entry["id"]: entry["finding"] for entry in found}
    for version, state in {"SSLv2": False, "SSLv3": False, "TLS1": False, "TLS1_1": False, "TLS1_2": True}.items():
        assert said[version].startswith("offered" if state else "not offered"), done.stdout
    assert said["TLS1_3"] == "offered with final"
    assert (said["ALPN_HTTP2"], said["ALPN"]) == ("h2", "http/1.1")
    assert said["heartbleed"].startswith("not vulnerable") and said["secure_client_renego"] == "not vulnerable"
    assert said["PFS"] == "offered"
    # Its client leaves at once: on a busy machine before the ticket has come, and it says that it could not look.
    assert said["sessionresumption_ticket"] in ("supported", COULD_NOT_LOOK)
    weak = {
        entry["id"]: entry["finding"]
        for entry in found
        if entry["severity"] not in ("OK", "INFO")
        and not entry["id"].startswith(NOT_OURS)
        and entry["finding"] != COULD_NOT_LOOK
    }
    assert not weak if ciphers else set(weak) <= {CLIENT_CHOOSES}, weak
