"""The `ssl_context` hook: it is called once, with a factory of objects that record what a hook does to a context.

TLS is not served by Python's `ssl`, so a context of that module would be of no use. What a hook sets on the recorded
one becomes settings. What cannot be carried over is refused by its name, because a hook that is half obeyed would
leave a server less safe than its operator believes.
"""

from __future__ import annotations

import os
import ssl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Password = str | bytes | bytearray | Callable[[], str | bytes | bytearray] | None

# Why an attribute of `ssl.SSLContext` has no effect to offer, and what does instead.
REFUSED = {
    "sni_callback": "give certfile a list of files, and clients get the one for the name they ask for",
    "set_servername_callback": "give certfile a list of files, and clients get the one for the name they ask for",
    "load_default_certs": "name the authorities with ca_certs",
    "set_default_verify_paths": "name the authorities with ca_certs",
    "set_ecdh_curve": "the curves are X25519MLKEM768, X25519, P-256 and P-384",
    "set_npn_protocols": "NPN was given up for ALPN",
    "set_psk_server_callback": "every client is served with certificates",
    "set_psk_client_callback": "the server is no client",
    "keylog_filename": "secrets are never written down",
    "post_handshake_auth": "clients show their certificate in the handshake",
    "cert_store_stats": "authorities are read when the hook is over",
    "get_ca_certs": "authorities are read when the hook is over",
    "get_ciphers": "ciphers are chosen when the hook is over, and logged connections name theirs",
    "session_stats": "/metrics counts the handshakes",
    "hostname_checks_common_name": "clients have no host names",
    "security_level": "there are no weaker suites than those of level 2",
    "sslobject_class": "the server makes the connections",
    "sslsocket_class": "the server makes the connections",
    "wrap_socket": "the server makes the connections",
    "wrap_bio": "the server makes the connections",
}
# Options that describe what the server does in any case, or what no longer exists.
MOOT_OPTIONS = (
    ssl.OP_ALL
    | ssl.OP_NO_SSLv2
    | ssl.OP_NO_SSLv3
    | ssl.OP_NO_TLSv1
    | ssl.OP_NO_TLSv1_1
    | ssl.OP_NO_COMPRESSION
    | ssl.OP_NO_RENEGOTIATION
    | ssl.OP_SINGLE_DH_USE
    | ssl.OP_SINGLE_ECDH_USE
    | ssl.OP_CIPHER_SERVER_PREFERENCE
    | ssl.OP_ENABLE_MIDDLEBOX_COMPAT
    | getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    | getattr(ssl, "OP_ENABLE_KTLS", 0)
)
# Flags that describe what is done in any case: each authority of the list is trusted, also one that another has signed.
MOOT_VERIFY_FLAGS = ssl.VERIFY_X509_TRUSTED_FIRST | getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0)
# The names of protocols in ALPN, and those of http_protocols.
PROTOCOLS = {"http/1.1": "h1", "h2": "h2"}


def refuse(name: str, why: str) -> RuntimeError:
    return RuntimeError(f"ssl_context: {name} cannot be carried over: {why}")


class RecordedContext:
    """What a hook gets from the default factory. It begins as the settings have it."""

    def __init__(self, conf: Any) -> None:
        self._set("_chains", _configured_chains(conf))
        self._set("_is_default", True)
        self._set("_password", None)
        self._set("_authorities", [os.fspath(conf.ca_certs)] if conf.ca_certs else [])
        self._set("_ciphers", conf.ciphers)
        self._set("_protocols", None)
        self._set("_verify_mode", ssl.VerifyMode(conf.cert_reqs))
        is_newest = str(conf.ssl_minimum_version).endswith("3")
        self._set("_minimum", ssl.TLSVersion.TLSv1_3 if is_newest else ssl.TLSVersion.TLSv1_2)
        self._set("_options", ssl.Options(MOOT_OPTIONS))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in REFUSED:
            raise refuse(name, REFUSED[name])
        if hasattr(ssl.SSLContext, name):
            raise refuse(name, "the server's TLS has nothing like it")
        raise AttributeError(f"'SSLContext' object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        elif value or name not in ("sni_callback", "keylog_filename", "post_handshake_auth"):
            raise refuse(name, REFUSED.get(name, "the server's TLS has nothing like it"))

    @property
    def protocol(self) -> Any:
        return ssl.PROTOCOL_TLS_SERVER

    @property
    def minimum_version(self) -> ssl.TLSVersion:
        return self._minimum

    @minimum_version.setter
    def minimum_version(self, version: int) -> None:
        newest = (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.MAXIMUM_SUPPORTED)
        version = ssl.TLSVersion(version)
        # There is nothing older than 1.2, so asking for that asks for 1.2.
        self._set("_minimum", ssl.TLSVersion.TLSv1_3 if version in newest else ssl.TLSVersion.TLSv1_2)

    @property
    def maximum_version(self) -> ssl.TLSVersion:
        return ssl.TLSVersion.MAXIMUM_SUPPORTED

    @maximum_version.setter
    def maximum_version(self, version: int) -> None:
        if version not in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.MAXIMUM_SUPPORTED):
            raise refuse("maximum_version", "TLS 1.3 is always on")

    @property
    def verify_mode(self) -> ssl.VerifyMode:
        return self._verify_mode

    @verify_mode.setter
    def verify_mode(self, mode: int) -> None:
        self._set("_verify_mode", ssl.VerifyMode(mode))

    @property
    def verify_flags(self) -> ssl.VerifyFlags:
        return ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST

    @verify_flags.setter
    def verify_flags(self, flags: int) -> None:
        if flags & (ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_CRL_CHECK_CHAIN):
            raise refuse("verify_flags", "name the revocation lists with ssl_crl")
        unknown = ssl.VerifyFlags(flags) & ~MOOT_VERIFY_FLAGS
        if unknown:
            raise refuse("verify_flags", f"{unknown!r} has no counterpart")

    @property
    def check_hostname(self) -> bool:
        return False

    @check_hostname.setter
    def check_hostname(self, check: bool) -> None:
        if check:
            raise refuse("check_hostname", "clients have no host names")

    @property
    def num_tickets(self) -> int:
        return 1

    @num_tickets.setter
    def num_tickets(self, count: int) -> None:
        if count == 0:
            raise refuse("num_tickets", "sessions can always be resumed")

    @property
    def options(self) -> ssl.Options:
        return self._options

    @options.setter
    def options(self, options: int) -> None:
        options = ssl.Options(options)
        if options & ssl.OP_NO_TLSv1_3:
            raise refuse("OP_NO_TLSv1_3", "TLS 1.3 is always on")
        if options & ssl.OP_NO_TLSv1_2:
            self.minimum_version = ssl.TLSVersion.TLSv1_3
        unknown = options & ~MOOT_OPTIONS & ~ssl.OP_NO_TLSv1_2
        if unknown:
            raise refuse("options", f"{unknown!r} has no counterpart")
        self._set("_options", options)

    def load_cert_chain(self, certfile: Path, keyfile: Path | None = None, password: Password = None) -> None:
        if self._is_default:
            # A context serves the chain that was loaded last, so the settings' one would not be used.
            self._set("_chains", [])
            self._set("_is_default", False)
        self._chains.append((os.fsdecode(certfile), os.fsdecode(keyfile or certfile)))
        if password is not None:
            text = _password_text(password)
            if self._password not in (None, text):
                raise refuse("load_cert_chain", "there is one password for all keys")
            self._set("_password", text)

    def load_verify_locations(self, cafile: Path | None = None, capath: Path | None = None, cadata: Any = None) -> None:
        if capath:
            raise refuse("load_verify_locations(capath=..)", "name a file with all authorities")
        if cadata:
            raise refuse("load_verify_locations(cadata=..)", "name a file with all authorities")
        if cafile is None:
            raise TypeError("cafile, capath and cadata cannot be all omitted")
        self._authorities.append(os.fsdecode(cafile))

    def set_ciphers(self, ciphers: str) -> None:
        self._set("_ciphers", ciphers)

    def set_alpn_protocols(self, protocols: Iterable[str]) -> None:
        names = [name.decode() if isinstance(name, bytes) else name for name in protocols]
        unknown = [name for name in names if name not in PROTOCOLS]
        if unknown or not names:
            raise refuse("set_alpn_protocols", f"h2 and http/1.1 are spoken, not {', '.join(unknown) or 'nothing'}")
        self._set("_protocols", list(dict.fromkeys(PROTOCOLS[name] for name in names)))

    def load_dh_params(self, path: Path) -> None:
        """The suites that would use them are not there."""


def _password_text(password: Password) -> str:
    value = password() if callable(password) else password
    return value if isinstance(value, str) else bytes(value or b"").decode()


def _configured_chains(conf: Any) -> list[tuple[str, str]]:
    def paths(value: Any) -> list[str]:
        return list(value) if isinstance(value, (list, tuple)) else [value] if value else []

    certificates, keys = paths(conf.certfile), paths(conf.keyfile)
    if not certificates:
        return []
    if keys and len(keys) != len(certificates):
        raise RuntimeError(
            f"certfile names {len(certificates)} files and keyfile {len(keys)}; each certificate needs its key"
        )
    return list(zip(certificates, keys or certificates, strict=True))


def record(
    hook: Callable[..., Any], conf: Any
) -> tuple[list[tuple[str, str]], str | None, list[str], int, str | None, bool, list[str] | None]:
    """Calls the hook. Returns chains, password, authorities, verify mode, ciphers, whether only TLS 1.3 is left, and
    the protocols if they were set.
    """
    context = hook(conf, lambda: RecordedContext(conf))
    if isinstance(context, ssl.SSLContext):
        raise RuntimeError(
            "ssl_context returned an ssl.SSLContext of its own, whose certificate cannot be read back:"
            " change and return what the default factory makes"
        )
    if not isinstance(context, RecordedContext):
        raise RuntimeError(f"ssl_context returned {context!r}, not what the default factory makes")
    return (
        context._chains,
        context._password,
        context._authorities,
        int(context._verify_mode),
        context._ciphers,
        context._minimum == ssl.TLSVersion.TLSv1_3,
        context._protocols,
    )
