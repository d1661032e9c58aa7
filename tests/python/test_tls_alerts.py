"""Which alert a handshake ends with: RFC 8446 section 6, and RFC 5246 for clients of before."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

import pytest
from authorities import Authority, tls

from harness import PATIENCE_S, Server

pytestmark = pytest.mark.ours

UNEXPECTED_MESSAGE, RECORD_OVERFLOW, HANDSHAKE_FAILURE, DECODE_ERROR, PROTOCOL_VERSION = 10, 22, 40, 50, 70


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def one(server, authority) -> Server:
    certificate, key = authority.sign("server")
    return server("streams:application", "--certfile", str(certificate), "--keyfile", str(key))


def hello(**attributes) -> bytes:
    """What a client of Python's `ssl` sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    for name, value in attributes.items():
        setattr(context, name, value)
    sent = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return sent.read()


def answer(one: Server, data: bytes) -> bytes:
    """Everything that comes of it, until the server closes."""
    with socket.create_connection(one.address, PATIENCE_S) as client:
        client.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while block := client.recv(65536):
                received += block
        return received


def record(kind: int, content: bytes) -> bytes:
    return struct.pack(">BHH", kind, 0x0301, len(content)) + content


REFUSED = {
    "application data": (record(23, b"hello"), UNEXPECTED_MESSAGE),
    "a change of cipher": (record(20, b"\1"), UNEXPECTED_MESSAGE),
    "another message than the first": (record(22, b"\x02\0\0\0"), DECODE_ERROR),
    "no type of record": (record(24, b"\1\x40\0"), DECODE_ERROR),
    "a record that is too long": (b"\x16\x03\x01\xff\xff" + bytes(100), RECORD_OVERFLOW),
    "a message that is too long": (record(22, b"\x01\xff\xff\xff"), DECODE_ERROR),
    "an empty record": (record(22, b""), DECODE_ERROR),
    "a message that ends early": (record(22, b"\x01\0\0\x04\x03\x03ab"), DECODE_ERROR),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_first_message_that_is_none_is_refused_with_an_alert(one, what):
    data, code = REFUSED[what]
    received = answer(one, data)
    assert received[:1] + received[3:] == b"\x15" + b"\0\2\2" + bytes([code]), received
    one.log.wait(r"TLS handshake failed with ip=127\.0\.0\.1: ")


# OpenSSL may be built without TLS 1.0 and 1.1. The message of such a client lacks the extensions of later ones.
OLD = b"\x01\0\0\x2d\x03%c" + bytes(32) + b"\0\0\x06\xc0\x09\xc0\x13\0\x2f\x01\0"


@pytest.mark.parametrize("minor", [0, 1, 2])
def test_a_client_of_an_old_version_learns_that_it_is_the_version(one, minor):
    received = answer(one, record(22, OLD % minor))
    assert received == b"\x15\x03\x03\0\2\2" + bytes([PROTOCOL_VERSION])


def test_a_client_without_a_common_suite_is_refused(one):
    data = hello(maximum_version=ssl.TLSVersion.TLSv1_2)
    # The suites that are spoken here become older ones of the same length.
    for ours in (b"\xc0\x2b", b"\xc0\x2c", b"\xcc\xa9"):
        assert ours in data
        data = data.replace(ours, b"\xc0\x09")
    received = answer(one, data)
    assert received[-2:] == bytes([2, HANDSHAKE_FAILURE])


def test_a_record_that_was_changed_on_its_way_ends_the_connection_with_an_alert(one, authority):
    with tls(one.address, authority.client()) as connection:
        raw = socket.socket(fileno=connection.detach())
    with raw:
        raw.settimeout(PATIENCE_S)
        raw.sendall(b"\x17\x03\x03\0\x20" + bytes(32))
        received = b""
        while block := raw.recv(65536):
            received += block
    # Encrypted: an alert is two bytes, its type and the tag.
    assert received.endswith(b"\x17\x03\x03\0\x13" + received[-19:]), received


@pytest.mark.parametrize(("version", "reason"), [("TLSv1_2", "HANDSHAKE_FAILURE"), ("TLSv1_3", "CERTIFICATE_REQUIRED")])
def test_a_client_without_a_certificate_gets_the_alert_of_its_version(server, authority, version, reason):
    certificate, key = authority.sign("server")
    arguments = ("--certfile", str(certificate), "--keyfile", str(key), "--ca-certs", str(authority.file))
    one = server("streams:application", *arguments, "--cert-reqs", "2")
    number = getattr(ssl.TLSVersion, version)
    context = authority.client(maximum_version=number, minimum_version=number)
    with pytest.raises(ssl.SSLError) as failure, tls(one.address, context) as connection:
        # In TLS 1.3 the client learns of it behind its own last message.
        connection.recv(1)
    assert reason in str(failure.value), failure.value
    one.log.wait(r"TLS handshake failed with ip=127\.0\.0\.1: peer sent no certificates")
