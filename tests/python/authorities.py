"""Certificates for tests: an authority, what it signs, and handshakes by Python's `ssl`."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
from pathlib import Path

import pytest

# Not to be had everywhere: cryptography has no builds for some CPythons.
trustme = pytest.importorskip("trustme")
x509 = pytest.importorskip("cryptography.x509")
hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")


class Authority:
    """Signs certificates into a directory."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self.directory = directory
        self.ca = trustme.CA(organization_name=name)
        self.file = directory / f"{name}.pem"
        self.ca.cert_pem.write_to_path(str(self.file))

    def sign(self, stem: str, *names: str, **options) -> tuple[Path, Path]:
        """The files of a certificate for `names` and of its key; existing ones are replaced whole."""
        signed = self.ca.issue_cert(*(names or ("localhost", "127.0.0.1")), **options)
        certificate = b"".join(blob.bytes() for blob in signed.cert_chain_pems)
        return (
            self.write(f"{stem}.pem", certificate),
            self.write(f"{stem}.key", signed.private_key_pem.bytes()),
        )

    def write(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        new = path.with_name(f".{name}.new")
        new.write_bytes(content)
        return new.replace(path)

    def revoke(self, *certificates: Path, days: int = 1) -> Path:
        """A revocation list with these certificates, which is to be renewed after so many days."""
        key = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        issuer = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=issuer.subject,
            last_update=now - datetime.timedelta(days=9),
            next_update=now + datetime.timedelta(days=days),
        )
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        ).add_extension(x509.CRLNumber(1), critical=False)
        for certificate in certificates:
            serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=now)
            builder = builder.add_revoked_certificate(revoked.build())
        content = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return self.write("list.crl", content)

    def client(self, certificate: tuple[Path, Path] | None = None, **attributes) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.file))
        if certificate:
            context.load_cert_chain(*map(str, certificate))
        for name, value in attributes.items():
            setattr(context, name, value)
        return context


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


@contextlib.contextmanager
def tls(address, context: ssl.SSLContext, name: str = "localhost", session: ssl.SSLSession | None = None):
    """A connection after its handshake."""
    with (
        socket.create_connection(address, timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=name, session=session) as connection,
    ):
        yield connection


def get(connection: ssl.SSLSocket, path: str = "/") -> bytes:
    """The whole answer to a request after which the connection ends."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while block := connection.recv(65536):
        answer += block
    return answer


def served(address, context: ssl.SSLContext, name: str = "localhost") -> int:
    """The serial number of the certificate that clients get."""
    with tls(address, context, name) as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(True)).serial_number
