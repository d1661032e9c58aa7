"""Certificates and keys: what is refused before anything is bound, and how they are renewed while the server serves."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import types
from functools import partial
from pathlib import Path

import pytest
from authorities import Authority, get, serial, served, tls

from harness import APPS, COMMAND, clean_environment, session_members, wait_until

pytestmark = pytest.mark.ours
NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up privileges")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A server that ends by itself."""
    return subprocess.run(
        [*COMMAND, "hello:app", "-b", "127.0.0.1:0", *map(str, arguments)],
        cwd=APPS,
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=30,
    )


def pair(files: tuple[Path, Path]) -> tuple[str, ...]:
    return ("--certfile", str(files[0]), "--keyfile", str(files[1]))


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)


# -- what is refused -----------------------------------------------------------------------------


def wrong_settings(authority: Authority) -> dict[str, tuple[list[object], str]]:
    directory = authority.directory
    certificate, key = authority.sign("server")
    other = authority.sign("other")[1]
    text, gone = authority.write("text", b"no PEM\n"), directory / "gone.pem"
    der = directory / "server.der"
    openssl("x509", "-in", certificate, "-outform", "der", "-out", der)
    encrypted = directory / "encrypted.key"
    openssl("pkcs8", "-topk8", "-in", key, "-v2", "aes256", "-passout", "pass:secret", "-out", encrypted)
    begin, end = certificate.read_bytes().split(b"-----END CERTIFICATE-----")[0], b"-----END CERTIFICATE-----\n"
    cut, garbled = authority.write("cut.pem", begin), authority.write("garbled.pem", begin + b"@@\n" + end)
    headless = authority.write("headless.pem", b"-----BEGIN CERTIFICATE\n" + begin + end)
    no_chain = authority.write("chain.pem", begin + end + b"-----BEGIN CERTIFICATE-----\nAAAA\n" + end)
    small = directory / "small.key"
    openssl("genrsa", "-traditional", "-out", small, "1024")
    good: list[object] = ["--certfile", certificate, "--keyfile", key]
    wrong: list[object] = ["--keyfile-password", "wrong"]
    return {
        "mismatch": (
            ["--certfile", certificate, "--keyfile", other],
            f'keyfile "{other}" does not belong to certfile "{certificate}"',
        ),
        "missing key": (["--certfile", certificate, "--keyfile", gone], f'keyfile "{gone}" does not exist'),
        "missing certificate": (["--certfile", gone], f'certfile "{gone}" does not exist'),
        "key alone": (["--keyfile", key], "keyfile is set and certfile is not"),
        "no key": (["--certfile", authority.file], f'certfile "{authority.file}" holds no private key'),
        "not PEM": (["--certfile", der, "--keyfile", key], f'certfile "{der}" is not PEM; '),
        "key not PEM": (["--certfile", certificate, "--keyfile", text], f'keyfile "{text}" is not PEM; '),
        "cut": (
            ["--certfile", cut, "--keyfile", key],
            f'certfile "{cut}" is broken PEM: "-----END CERTIFICATE-----" is missing\n',
        ),
        "garbled": (
            ["--certfile", garbled, "--keyfile", key],
            f'certfile "{garbled}" is broken PEM: a section is not base64\n',
        ),
        "headless": (
            ["--certfile", headless, "--keyfile", key],
            f'certfile "{headless}" is broken PEM: a line "-----BEGIN ..." does not end with "-----"\n',
        ),
        "chain": (
            ["--certfile", no_chain, "--keyfile", key],
            f'certfile "{no_chain}" holds a certificate that cannot be read: ',
        ),
        "small key": (
            ["--certfile", certificate, "--keyfile", small],
            f'keyfile "{small}" holds a private key that cannot be used: RSA of 2048 to 8192 bits, ECDSA on P-256, '
            "P-384 and P-521, and Ed25519 can\n",
        ),
        "encrypted": (
            ["--certfile", certificate, "--keyfile", encrypted],
            f'keyfile "{encrypted}" is encrypted: set keyfile_password',
        ),
        "wrong password": (
            ["--certfile", certificate, "--keyfile", encrypted, *wrong],
            f'keyfile "{encrypted}" is encrypted, and keyfile_password is not its password',
        ),
        "bad authority": ([*good, "--ca-certs", text], f'ca_certs "{text}" is not PEM; '),
        "no authorities": ([*good, "--cert-reqs", "2"], "cert_reqs needs ca_certs, "),
        "bad ciphers": ([*good, "--ciphers", "RC4"], "ciphers 'RC4' selects none of the suites that ferricorn has: "),
        "old version": ([*good, "--ssl-minimum-version", "TLSv1"], "Invalid value for ssl_minimum_version: TLSv1 "),
        "bad cert_reqs": ([*good, "--cert-reqs", "7"], "Invalid value for cert_reqs: 7 "),
    }


CASES = (
    "mismatch",
    "missing key",
    "missing certificate",
    "key alone",
    "no key",
    "not PEM",
    "key not PEM",
    "cut",
    "garbled",
    "headless",
    "chain",
    "small key",
    "encrypted",
    "wrong password",
    "bad authority",
    "no authorities",
    "bad ciphers",
    "old version",
    "bad cert_reqs",
)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_served_is_refused_before_binding(authority, case):
    arguments, complaint = wrong_settings(authority)[case]
    for mode in ([], ["--check-config"]):
        ended = run(*mode, *arguments)
        assert ended.returncode == 1
        assert ended.stderr.count("\n") == 2 and ended.stderr.startswith(f"\nError: {complaint}"), ended.stderr
        assert "Traceback" not in ended.stderr


def test_the_password_is_shown_nowhere(authority):
    certificate, key = authority.sign("server")
    encrypted = authority.directory / "encrypted.key"
    openssl("pkcs8", "-topk8", "-in", key, "-v2", "aes128", "-passout", "pass:hunter2", "-out", encrypted)
    arguments = [*pair((certificate, encrypted)), "--keyfile-password", "hunter2"]
    printed = run("--print-config", *arguments)
    assert printed.returncode == 0, printed.stderr
    assert "hunter2" not in printed.stdout + printed.stderr
    assert "keyfile_password" in printed.stdout
    where = [*pair((certificate, encrypted)), "--keyfile-password", "env:KEY_PASSWORD", "--check-config"]
    assert run(*where, env={"KEY_PASSWORD": "hunter2"}).returncode == 0
    refused = run(*where)
    assert refused.returncode == 1 and "the variable KEY_PASSWORD is not set" in refused.stderr


@pytest.mark.parametrize("mode", [["--check-config"], []], ids=["check", "serve"])
def test_a_password_of_a_key_that_is_not_encrypted_is_ignored_with_a_warning(authority, mode, server):
    """As in Python's ssl, whose load_cert_chain ignores it; but the key may have been meant to be encrypted."""
    certificate, key = authority.sign("server")
    arguments = [*pair((certificate, key)), "--keyfile-password", "hunter2"]
    warning = f'keyfile_password has no effect: keyfile "{key}" is not encrypted'
    if mode:
        checked = run(*mode, *arguments)
        said, ok = checked.stdout + checked.stderr, checked.returncode == 0
    else:
        one = server("hello:app", *arguments)
        said, ok = one.log.wait(r"\[WARNING\].*")[0].group(), True
    assert ok and warning in said and "hunter2" not in said


def test_a_password_that_one_of_several_keys_needs_is_no_mistake(authority):
    first, second = authority.sign("first"), authority.sign("second")
    encrypted = authority.directory / "second.encrypted.key"
    openssl("pkcs8", "-topk8", "-in", second[1], "-v2", "aes128", "-passout", "pass:hunter2", "-out", encrypted)
    settings = authority.write(
        "conf.py",
        f"certfile = [{str(first[0])!r}, {str(second[0])!r}]\n"
        f"keyfile = [{str(first[1])!r}, {str(encrypted)!r}]\nkeyfile_password = 'hunter2'\n".encode(),
    )
    checked = run("--check-config", "-c", settings)
    assert checked.returncode == 0 and "keyfile_password" not in checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("form", "is_read"),
    [
        (("-scrypt",), True),
        (("-v2", "des3"), True),
        (("-v2", "aes192", "-v2prf", "hmacWithSHA1"), True),
        (("-v1", "PBE-SHA1-3DES"), False),
    ],
)
def test_encrypted_keys_of_all_forms_are_read_or_refused(authority, form, is_read):
    certificate, key = authority.sign("server")
    encrypted = authority.directory / "encrypted.key"
    openssl("pkcs8", "-topk8", "-in", key, *form, "-passout", "pass:secret", "-out", encrypted)
    checked = run("--check-config", *pair((certificate, encrypted)), "--keyfile-password", "secret")
    assert (checked.returncode == 0) is is_read, checked.stderr
    refusal = "is encrypted with an algorithm that is not supported (AES and triple DES are); `openssl pkey "
    assert (refusal in checked.stderr) is not is_read


def test_an_expired_certificate_is_warned_of(authority):
    files = authority.sign("server", not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc))
    checked = run("--check-config", *pair(files))
    assert checked.returncode == 0
    assert f'Warning: certfile "{files[0]}" has expired\n' in checked.stderr
    # And where it is one behind the server's own, which clients refuse as well.
    good = authority.sign("good")
    chain = authority.write("chain.pem", good[0].read_bytes() + files[0].read_bytes())
    checked = run("--check-config", *pair((chain, good[1])))
    assert checked.returncode == 0
    assert f'Warning: certfile "{chain}" has an expired certificate in its chain\n' in checked.stderr


def test_ssl_version_has_gunicorns_warning(authority):
    checked = run("--check-config", "--ssl-version", "5", *pair(authority.sign("server")))
    line = "Warning: option `ssl_version` is deprecated and it is ignored. Use ssl_context instead."
    assert checked.returncode == 0 and line in checked.stderr


# -- what is served ------------------------------------------------------------------------------


def test_the_address_is_announced_as_https(server, authority):
    one = server("hello:app", *pair(authority.sign("server")))
    assert one.log.wait(r"Listening at: https://127.0.0.1:\d+ \(\d+\)$")
    assert one.log.wait(r"TLS certificate: localhost, 127.0.0.1, valid until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    with tls(one.address, authority.client()) as connection:
        assert connection.version() == "TLSv1.3" and b"200 OK" in get(connection)


@ROOT
def test_a_key_that_only_root_can_read_is_served_by_another_user(server):
    place = Path(tempfile.mkdtemp(prefix="ferricorn-place-"))
    try:
        place.chmod(0o755)
        authority = Authority(place)
        files = authority.sign("server")
        files[1].chmod(0o600)
        # Preloaded, because the other user may not be able to import what root has installed.
        one = server("hello:app", "--user", str(NOBODY), "--group", str(NOBODY), "--preload", *pair(files))
        pid = one.booted()[0]
        wait_until(lambda: Path(f"/proc/{pid}").stat().st_uid == NOBODY, "the worker is the other user's")
        client = authority.client()
        assert served(one.address, client) == serial(files[0])
        files = authority.sign("server")
        files[1].chmod(0o600)
        wait_until(lambda: served(one.address, client) == serial(files[0]), "the new certificate")
    finally:
        shutil.rmtree(place)


def test_the_certificate_is_that_of_the_name(server, authority, tmp_path):
    first, second = authority.sign("first", "first.example"), authority.sign("second", "*.second.example")
    config = tmp_path / "conf.py"
    config.write_text(f"certfile = {[str(first[0]), str(second[0])]}\nkeyfile = {[str(first[1]), str(second[1])]}\n")
    one = server("hello:app", "-c", str(config))
    client = authority.client(check_hostname=False)
    for name, files in (("first.example", first), ("a.second.example", second), ("other.example", first)):
        assert served(one.address, client, name) == serial(files[0]), name


def test_a_directory_of_certificates(server, authority, tmp_path):
    directory = tmp_path / "certificates"
    directory.mkdir()
    inside = Authority(directory, "signer")
    inside.file.unlink()
    first, second = inside.sign("a", "first.example"), inside.sign("b", "second.example")
    both = first[0].read_bytes() + first[1].read_bytes()
    first[1].unlink()
    inside.write("a.pem", both)
    context = ssl.create_default_context()
    context.check_hostname = False
    inside.ca.configure_trust(context)
    one = server("hello:app", "--certfile", str(directory))
    for name, files in (("first.example", first), ("second.example", second), ("other.example", first)):
        assert served(one.address, context, name) == serial(files[0]), name
    # One that is put there is served without a signal.
    staged = Authority(tmp_path, "staged")
    staged.ca.configure_trust(context)
    third = staged.sign("c", "third.example")
    for file in reversed(third):
        shutil.copy(file, directory / f".{file.name}")
        (directory / f".{file.name}").rename(directory / file.name)
    wait_until(lambda: served(one.address, context, "third.example") == serial(third[0]), "the new certificate")
    both_set = run("--check-config", "--certfile", directory, "--keyfile", third[1])
    assert both_set.returncode == 1 and "certfile is a directory, so keyfile cannot be set" in both_set.stderr
    (tmp_path / "empty").mkdir()
    empty = run("--check-config", "--certfile", tmp_path / "empty")
    assert empty.returncode == 1 and "is a directory without a file that ends with .pem or .crt" in empty.stderr


def test_client_certificates_are_checked(server, authority, tmp_path):
    trusted, other = Authority(tmp_path, "trusted"), Authority(tmp_path, "other")
    good, revoked, strange = trusted.sign("good"), trusted.sign("revoked"), other.sign("strange")
    arguments = ["--ca-certs", str(trusted.file), "--ssl-crl", str(trusted.revoke(revoked[0]))]
    for mode, without in (("1", True), ("2", False)):
        one = server("hello:app", *pair(authority.sign("server")), *arguments, "--cert-reqs", mode)
        for certificate, accepted in ((None, without), (good, True), (revoked, False), (strange, False)):
            assert is_accepted(one.address, authority.client(certificate)) is accepted, (mode, certificate)


def test_who_may_be_revoked_is_refused(server, authority, tmp_path):
    """As OpenSSL has it: an authority's list has expired, or it has none."""
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    both = first.write("both.pem", first.file.read_bytes() + second.file.read_bytes())
    clients = first.sign("one"), second.sign("other")
    for days, accepted in ((1, (True, False)), (-1, (False, False))):
        lists = ["--ca-certs", str(both), "--ssl-crl", str(first.revoke(days=days)), "--cert-reqs", "2"]
        one = server("hello:app", *pair(authority.sign("server")), *lists)
        got = tuple(is_accepted(one.address, authority.client(client)) for client in clients)
        assert got == accepted, f"a list with {days} days left"


def is_accepted(address, context: ssl.SSLContext) -> bool:
    try:
        with tls(address, context) as connection:
            return b"200 OK" in get(connection)
    except (ssl.SSLError, ConnectionError):
        return False


def test_ciphers_and_the_oldest_version_are_obeyed(server, authority):
    files = pair(authority.sign("server"))
    one = server("hello:app", *files, "--ciphers", "ECDHE+CHACHA20:!aNULL")
    with tls(one.address, authority.client(maximum_version=ssl.TLSVersion.TLSv1_2)) as connection:
        assert connection.cipher()[0].endswith("-CHACHA20-POLY1305")
    one = server("hello:app", *files, "--ssl-minimum-version", "TLSv1.3")
    with pytest.raises(ssl.SSLError), tls(one.address, authority.client(maximum_version=ssl.TLSVersion.TLSv1_2)):
        pass


def test_a_client_cannot_write_lines_into_the_log(server, authority):
    one = server("hello:app", *pair(authority.sign("server")))
    host, port = one.address
    # An address in the place of a name, and a name that is none.
    for name in ("127.0.0.1", "a..b"):
        command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-servername", name]
        ended = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
        assert b"CONNECTED" in ended.stdout
    one.stop()
    assert "Illegal SNI" not in one.log.join()


# -- sessions ------------------------------------------------------------------------------------


def session_of(address, context: ssl.SSLContext) -> ssl.SSLSession:
    with tls(address, context) as connection:
        assert b"200 OK" in get(connection)
        return connection.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_by_every_worker_and_after_reload_and_upgrade(server, authority, version):
    one = server("hello:app", *pair(authority.sign("server")), workers=2)
    client = authority.client(minimum_version=version, maximum_version=version)
    session = session_of(one.address, client)

    def all_are_resumed(times: int = 20) -> None:
        for _ in range(times):
            with tls(one.address, client, session=session) as connection:
                assert connection.session_reused

    all_are_resumed()
    before = one.booted()
    one.send_signal(signal.SIGHUP)
    one.log.wait(r"Booting worker with pid: (\d+)", 4)
    wait_until(lambda: not set(before) & set(one.workers()), "new workers only")
    all_are_resumed()
    one.send_signal(signal.SIGUSR2)
    one.log.wait(r"Booting worker with pid: (\d+)", 6)
    os.kill(one.pid, signal.SIGTERM)
    assert one.wait_exit() == 0
    one.log.wait("Master has been promoted.")
    all_are_resumed()
    new = int(one.log.wait(r"Listening at: .+ \((\d+)\)$", 2)[-1].group(1))
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not session_members(one.pid), "the new master is gone")


def test_other_authorities_for_clients_end_their_sessions(server, authority, tmp_path):
    trusted = Authority(tmp_path, "trusted")
    certificate = trusted.sign("client")
    arguments = ["--ca-certs", str(trusted.file), "--cert-reqs", "2"]
    one = server("hello:app", *pair(authority.sign("server")), *arguments)
    client = authority.client(certificate)
    session = session_of(one.address, client)
    with tls(one.address, client, session=session) as connection:
        assert connection.session_reused
    other = Authority(tmp_path, "other")
    trusted.write("trusted.pem", other.ca.cert_pem.bytes())

    def is_shut_out() -> bool:
        try:
            with tls(one.address, client, session=session) as connection:
                return b"200 OK" not in get(connection)
        except (ssl.SSLError, ConnectionError):
            return True

    wait_until(is_shut_out, "the client of the old authority is refused")


# -- renewal -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_renewed_certificate_is_served_without_a_signal(server, authority):
    one = server("hello:app", *pair(authority.sign("server")), workers=2)
    client, workers = authority.client(), one.workers()
    for _ in range(2):
        expected = {serial(authority.sign("server")[0])}
        # No handshake fails while the certificate changes.
        seen = partial(serials, one.address, client)
        wait_until(lambda seen=seen, expected=expected: seen() == expected, "the new certificate in both workers")
    assert one.workers() == workers
    assert len(one.log.wait("TLS certificate: localhost")) == 3


def serials(address, client: ssl.SSLContext) -> set[int]:
    return {served(address, client) for _ in range(20)}


@pytest.mark.slow
def test_a_half_replaced_pair_keeps_the_old_one_and_is_logged_once(server, authority):
    files = authority.sign("server")
    one = server("hello:app", *pair(files))
    client, before = authority.client(), serial(files[0])
    new = authority.sign("new")
    authority.write("server.pem", new[0].read_bytes())
    complaint = r'keyfile ".*server.key" does not belong to certfile ".*server.pem"; keeping the previous certificate'
    one.log.wait(complaint)
    assert served(one.address, client) == before
    authority.write("server.key", new[1].read_bytes())
    wait_until(lambda: served(one.address, client) == serial(new[0]), "the whole new pair")
    assert len(one.log.wait(complaint)) == 1


def test_a_reload_takes_new_files_and_refuses_broken_ones(server, authority, tmp_path):
    first, second = authority.sign("first"), authority.sign("second")
    config = tmp_path / "conf.py"

    def configure(certificate: Path, key: Path) -> None:
        config.write_text(f"certfile = {str(certificate)!r}\nkeyfile = {str(key)!r}\n")

    configure(*first)
    one = server("hello:app", "-c", str(config))
    client = authority.client()
    assert served(one.address, client) == serial(first[0])
    configure(*second)
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: served(one.address, client) == serial(second[0]), "the other certificate")
    configure(second[0], first[1])
    one.send_signal(signal.SIGHUP)
    one.log.wait("Reload failed: .*does not belong to certfile")
    assert served(one.address, client) == serial(second[0])


# -- the ssl_context hook ------------------------------------------------------------------------


def with_hook(tmp_path: Path, body: str) -> Path:
    config = tmp_path / "conf.py"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    config.write_text(f"import ssl\n\n\ndef ssl_context(conf, factory):\n{lines}")
    return config


def test_the_ssl_context_hook_is_called_once_and_obeyed(server, authority, tmp_path):
    calls = tmp_path / "calls"
    trusted = Authority(tmp_path, "trusted")
    body = f"""\
open({str(calls)!r}, "a").write("called\\n")
context = factory()
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.options |= ssl.OP_NO_COMPRESSION
context.verify_mode = ssl.CERT_REQUIRED
context.load_verify_locations({str(trusted.file)!r})
return context"""
    one = server("hello:app", "-c", str(with_hook(tmp_path, body)), *pair(authority.sign("server")), workers=2)
    for certificate, accepted in ((None, False), (trusted.sign("client"), True)):
        assert is_accepted(one.address, authority.client(certificate)) is accepted
        old = authority.client(certificate, maximum_version=ssl.TLSVersion.TLSv1_2)
        assert not is_accepted(one.address, old)
    assert calls.read_text() == "called\n"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("c = factory()\nc.sni_callback = print\nreturn c", "ssl_context: sni_callback cannot be carried over: give"),
        ("c = factory()\nc.set_ecdh_curve('prime256v1')\nreturn c", "ssl_context: set_ecdh_curve cannot be carried"),
        ("c = factory()\nc.options |= ssl.OP_NO_TICKET\nreturn c", "ssl_context: options cannot be carried over: "),
        ("c = factory()\nc.set_alpn_protocols(['h3'])\nreturn c", "ssl_context: set_alpn_protocols cannot be carried"),
        ("c = factory()\nc.maximum_version = ssl.TLSVersion.TLSv1_2\nreturn c", "ssl_context: maximum_version cannot"),
        ("c = factory()\nc.num_tickets = 0\nreturn c", "ssl_context: num_tickets cannot be carried over: "),
        ("c = factory()\nc.check_hostname = True\nreturn c", "ssl_context: check_hostname cannot be carried over: "),
        ("c = factory()\nc.verify_flags |= ssl.VERIFY_X509_STRICT\nreturn c", "ssl_context: verify_flags cannot be"),
        ("c = factory()\nc.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF\nreturn c", "ssl_context: verify_flags cannot be"),
        ("c = factory()\nc.load_verify_locations(capath='/x')\nreturn c", "ssl_context: load_verify_locations(capath"),
        ("c = factory()\nc.load_verify_locations(cadata='x')\nreturn c", "ssl_context: load_verify_locations(cadata"),
        ("c = factory()\nc.options |= ssl.OP_NO_TLSv1_3\nreturn c", "ssl_context: OP_NO_TLSv1_3 cannot be carried"),
        ("return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)", "ssl_context returned an ssl.SSLContext of its own, "),
        ("return None", "ssl_context returned None, not what the default factory makes"),
        ("c = factory()\nc.set_ciphers('RC4')\nreturn c", "ciphers 'RC4' selects none of the suites"),
    ],
)
def test_what_a_context_cannot_carry_over_is_refused_by_name(authority, tmp_path, body, complaint):
    config = with_hook(tmp_path, body)
    ended = run("-c", config, *pair(authority.sign("server")), "--check-config")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"\nError: {complaint}") and ended.stderr.count("\n") == 2, ended.stderr


# What is read or obeyed. Everything else is refused with a reason of its own.
CARRIED = {
    "check_hostname",
    "load_cert_chain",
    "load_dh_params",
    "load_verify_locations",
    "maximum_version",
    "minimum_version",
    "num_tickets",
    "options",
    "protocol",
    "set_alpn_protocols",
    "set_ciphers",
    "verify_flags",
    "verify_mode",
}


def test_every_attribute_of_a_context_is_carried_or_refused_by_name():
    from ferricorn._ssl_context import REFUSED, RecordedContext

    conf = types.SimpleNamespace(
        certfile=None, keyfile=None, ca_certs=None, ciphers=None, cert_reqs=0, ssl_minimum_version="TLSv1.2"
    )
    context = RecordedContext(conf)
    for name in (name for name in dir(ssl.SSLContext) if not name.startswith("_")):
        if name in CARRIED:
            getattr(context, name)
            continue
        assert name in REFUSED, name
        with pytest.raises(RuntimeError, match=f"ssl_context: {name} cannot be carried over: "):
            getattr(context, name)
        with pytest.raises(RuntimeError, match=f"ssl_context: {name} cannot be carried over: "):
            setattr(context, name, object())
    # As Python's own does.
    with pytest.raises(ValueError, match="is not a valid"):
        context.minimum_version = 7
    with pytest.raises(AttributeError):
        context.nothing_like_it  # noqa: B018


def test_a_context_chooses_the_protocols(server, authority, tmp_path):
    body = "context = factory()\ncontext.set_alpn_protocols(['h2', 'http/1.1'])\nreturn context"
    one = server("hello:app", "-c", str(with_hook(tmp_path, body)), *pair(authority.sign("server")))
    client = authority.client()
    client.set_alpn_protocols(["http/1.1", "h2"])
    with tls(one.address, client) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        # The preface and empty settings are answered with settings.
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        assert connection.recv(9)[3] == 4


def test_a_context_brings_its_own_chain_and_password(server, authority, tmp_path):
    certificate, key = authority.sign("inner")
    encrypted = tmp_path / "encrypted.key"
    openssl("pkcs8", "-topk8", "-in", key, "-v2", "aes256", "-passout", "pass:secret", "-out", encrypted)
    body = f"""\
context = factory()
context.load_cert_chain({str(certificate)!r}, {str(encrypted)!r}, lambda: "secret")
return context"""
    one = server("hello:app", "-c", str(with_hook(tmp_path, body)), *pair(authority.sign("server")))
    assert served(one.address, authority.client()) == serial(certificate)
