"""TLS, with the clients that people have: curl, openssl, Python's ssl and requests, websocket-client, nginx."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import statistics
import subprocess
import threading
import time
from pathlib import Path

import pytest
import requests
import websocket
from programs import nginx

from harness import PATIENCE_S, wait_until
from load import Load
from wire import Client

pytestmark = pytest.mark.ours

HELLO = "hello:app"


class Authority:
    """Certificates for servers and clients, made with openssl."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._openssl(
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "30",
            "-subj",
            "/O=Test/CN=test authority",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        )
        self.issue("server", "/CN=localhost", "DNS:localhost,IP:127.0.0.1")
        self.issue("client", "/C=DE/O=Some People/CN=client one", "DNS:client.test,email:one@client.test")

    def issue(self, name: str, subject: str, names: str) -> None:
        self._openssl(
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            subject,
        )
        (self.home / f"{name}.ext").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
        self._openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            f"{name}.pem",
            "-days",
            "30",
            "-extfile",
            f"{name}.ext",
        )

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.home, check=True, capture_output=True)

    def __getitem__(self, name: str) -> str:
        return str(self.home / name)

    @property
    def server(self) -> tuple[str, ...]:
        return ("--certfile", self["server.pem"], "--keyfile", self["server.key"])

    @property
    def mutual(self) -> tuple[str, ...]:
        return (*self.server, "--ca-certs", self["ca.pem"], "--cert-reqs")

    def context(self, client: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self["ca.pem"])
        if client:
            context.load_cert_chain(self[f"{client}.pem"], self[f"{client}.key"])
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def connect(one, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(one.address, timeout=PATIENCE_S)
    return context.wrap_socket(raw, server_hostname="localhost")


def ask(client: ssl.SSLSocket, target: str = "/") -> bytes:
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return answer(client)


def answer(client: ssl.SSLSocket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
    while len(body) < length:
        body += client.recv(65536)
    return body


def curl(one, authority: Authority, *words: str, path: str = "/") -> str:
    line = [
        "curl",
        "-sS",
        "--max-time",
        "20",
        "--cacert",
        authority["ca.pem"],
        *words,
        f"https://127.0.0.1:{one.port}{path}",
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(one, authority: Authority, *words: str) -> dict:
    return json.loads(curl(one, authority, *words))


def test_curl_speaks_both_versions_and_the_application_sees_which(server, authority):
    one = server("tls:shown", *authority.server)
    for version, name in (("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")):
        seen = shown(one, authority, f"--tlsv{version}", "--tls-max", version)
        environ = seen["environ"]
        assert (environ["wsgi.url_scheme"], environ["HTTPS"], environ["SSL_PROTOCOL"]) == ("https", "on", name)
        assert seen["cipher"] == [
            environ["SSL_CIPHER"],
            name,
            256 if "256_GCM" in environ["SSL_CIPHER"] or "AES256" in environ["SSL_CIPHER"] else 128,
        ]
        assert (seen["version"], seen["alpn"], seen["certificate"]) == (name, "http/1.1", None)
        assert "SSL_CLIENT_VERIFY" not in environ


def test_fields_cannot_forge_what_tls_says(server, authority):
    one = server("tls:shown", *authority.mutual, "1")
    forged = (
        "-H",
        "HTTPS: off",
        "-H",
        "SSL_CLIENT_VERIFY: SUCCESS",
        "-H",
        "SSL-CLIENT-S-DN: CN=root",
        "-H",
        "SSL-PROTOCOL: x",
    )
    environ = shown(one, authority, *forged)["environ"]
    assert (environ["HTTPS"], environ["SSL_CLIENT_VERIFY"]) == ("on", "NONE")
    assert "SSL_CLIENT_S_DN" not in environ
    assert environ["SSL_PROTOCOL"].startswith("TLSv1.")
    # A trusted proxy's word about the scheme counts, as in gunicorn.
    assert shown(one, authority, "-H", "X-Forwarded-Proto: http")["environ"]["wsgi.url_scheme"] == "http"


def test_a_client_certificate_reaches_the_application(server, authority):
    one = server("tls:shown", *authority.mutual, "2")
    seen = shown(one, authority, "--cert", authority["client.pem"], "--key", authority["client.key"])
    environ = seen["environ"]
    assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert environ["SSL_CLIENT_S_DN"] == "CN=client one,O=Some People,C=DE"
    assert environ["SSL_CLIENT_S_DN_CN"] == "client one"
    assert environ["SSL_CLIENT_I_DN"] == "CN=test authority,O=Test"
    assert environ["SSL_CLIENT_SAN_DNS_0"] == "client.test"
    assert environ["SSL_CLIENT_SAN_Email_0"] == "one@client.test"
    assert environ["SSL_CLIENT_CERT"].split() == Path(authority["client.pem"]).read_text().split()
    # What Python's own ssl module says of the same file.
    expected = ssl._ssl._test_decode_cert(authority["client.pem"])
    assert seen["certificate"] == json.loads(json.dumps(expected))
    assert seen["binary"] == len(ssl.PEM_cert_to_DER_cert(Path(authority["client.pem"]).read_text()))
    assert environ["SSL_CLIENT_M_SERIAL"] == expected["serialNumber"]
    assert (environ["SSL_CLIENT_V_START"], environ["SSL_CLIENT_V_END"]) == (expected["notBefore"], expected["notAfter"])


def test_requests_with_and_without_a_client_certificate(server, authority):
    one = server(HELLO, *authority.mutual, "2")
    url = f"https://localhost:{one.port}/"
    with requests.Session() as session:
        # The environment may name other authorities.
        session.trust_env = False
        session.verify = authority["ca.pem"]
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(url, timeout=PATIENCE_S)
        session.cert = (authority["client.pem"], authority["client.key"])
        for _ in range(3):
            assert session.get(url, timeout=PATIENCE_S).status_code == 200
    one.log.wait(r"TLS handshake failed with ip=127.0.0.1: ")
    assert "Traceback" not in one.log.text


def test_openssl_resumes_sessions_in_every_worker(server, authority):
    one = server(HELLO, *authority.server, workers=2)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = authority.context()
        context.minimum_version = context.maximum_version = version
        session = None
        for _ in range(10):
            raw = socket.create_connection(one.address, timeout=PATIENCE_S)
            with context.wrap_socket(raw, server_hostname="localhost", session=session) as client:
                assert client.session_reused == (session is not None), version
                ask(client)
                # A ticket of TLS 1.3 comes after the handshake.
                session = client.session


@pytest.mark.slow
def test_handshakes_that_fail_are_one_line_each_series_and_disturb_nobody(server, authority):
    one = server(HELLO, *authority.server, "--access-logfile", "-")
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(ssl.SSLError):
            connect(one, ssl.create_default_context())
    assert curl(one, authority)
    took = time.monotonic() - began

    def firsts() -> int:
        return len(re.findall("TLS handshake failed with", one.log.text))

    def others() -> int:
        more = r"(\d+) more TLS handshakes failed within \d+ s, the last with ip=127.0.0.1: "
        return sum(int(count) for count in re.findall(more, one.log.text))

    wait_until(lambda: firsts() + others() == 20, "every failed handshake is counted")
    # On a busy machine they take more than the five seconds of a series.
    assert firsts() <= 1 + took // 5
    assert "Traceback" not in one.log.text and "[ERROR]" not in one.log.text
    assert len(one.output.wait(r"GET / HTTP/1.1")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_handshakes_that_failed_just_before_the_worker_ends_are_logged(server, authority, number):
    one = server(HELLO, *authority.server)
    for _ in range(3):
        with pytest.raises(ssl.SSLError):
            connect(one, ssl.create_default_context())
    # That the other end has refused the certificate comes after the exception here.
    with connect(one, authority.context()) as client:
        ask(client)
    one.send_signal(number)
    one.log.wait(r"\[INFO\] 2 more TLS handshakes failed within 5 s, the last with ip=127\.0\.0\.1: ", patience=4)


def test_plain_http_gets_a_page_and_a_handshake_on_a_plain_port_is_refused_at_once(server, authority):
    one = server(HELLO, *authority.server)
    answer = one.get("/")
    assert answer.status == 400
    assert "HTTPS" in answer.text
    one.log.wait(r"\[WARNING\] Invalid request from ip=127\.0\.0\.1: The plain HTTP request was sent to an HTTPS port$")
    plain = server(HELLO)
    began = time.monotonic()
    with pytest.raises(ssl.SSLError):
        connect(plain, authority.context())
    assert time.monotonic() - began < 5


def test_every_end_is_announced(server, authority):
    one = server(HELLO, *authority.server, "--keep-alive", "1")
    context = authority.context()
    for request in (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"BAD\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        raw = socket.create_connection(one.address, timeout=PATIENCE_S)
        # An end without close_notify raises.
        with context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as client:
            client.sendall(request)
            while client.recv(65536):
                pass


def test_the_access_log_names_version_and_cipher(server, authority):
    form = "%({SSL_PROTOCOL}e)s %({ssl_protocol}x)s %({SSL_CIPHER}x)s %({scheme}x)s"
    one = server(HELLO, *authority.server, "--access-logfile", "-", "--access-logformat", form)
    curl(one, authority, "--tlsv1.3")
    one.output.wait(r"^TLSv1\.3 TLSv1\.3 TLS_\w+ https$")


@pytest.mark.slow
def test_a_websocket_over_tls(server, authority, gates):
    one = server("sockets:application", *authority.server, "--threads", "2", "--access-logfile", "-")
    client = websocket.create_connection(
        f"wss://127.0.0.1:{one.port}/echo", timeout=PATIENCE_S, sslopt={"ca_certs": authority["ca.pem"]}
    )
    for number in range(2000):
        client.send(f"message {number}")
        assert client.recv() == f"message {number}"
    client.send_binary(b"\x00" * 300_000)
    assert client.recv() == b"\x00" * 300_000
    # Other connections are served meanwhile.
    assert curl(one, authority) == "plain"
    client.close()
    gates.wait_notes("echo")
    one.output.wait(r'"GET /echo HTTP/1.1" 101 0')
    client = websocket.create_connection(
        f"wss://127.0.0.1:{one.port}/bye", timeout=PATIENCE_S, sslopt={"ca_certs": authority["ca.pem"]}
    )
    assert client.recv() == "bye"
    assert client.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
    assert one.stop() == 0
    assert "Traceback" not in one.log.text, one.log.text


@pytest.mark.parametrize("worker_class", ["gthread", "gevent", "eventlet"])
def test_the_socket_of_an_upgraded_connection_is_asked_about_tls(server, authority, worker_class):
    if worker_class != "gthread":
        pytest.importorskip(worker_class)
    one = server("tls:upgraded", *authority.mutual, "2", "-k", worker_class)
    context = authority.context("client")
    context.set_alpn_protocols(["http/1.1"])
    with connect(one, context) as client:

        def request(path: str) -> None:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n".encode())

        request("/declined")
        declined = json.loads(answer(client))
        # It was only asked, so the connection is still the server's.
        request("/")
        received = b""
        while block := client.recv(65536):
            received += block
        expected = [
            json.loads(json.dumps(ssl._ssl._test_decode_cert(authority["client.pem"]))),
            [client.cipher()[0], "TLSv1.3", client.cipher()[2]],
            "TLSv1.3",
            "http/1.1",
        ]
    assert declined == expected
    head, _, body = received.partition(b"\r\n\r\n")
    assert b" 101 " in head
    before, after, length, has_descriptor = json.loads(body)
    assert before == after == expected
    assert length == len(ssl.PEM_cert_to_DER_cert(Path(authority["client.pem"]).read_text()))
    assert has_descriptor


NGINX_LOCATION = """
location / {{
    proxy_pass https://app;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_name localhost;
    proxy_ssl_server_name on;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate {certificates}/ca.pem;
    proxy_ssl_certificate {certificates}/client.pem;
    proxy_ssl_certificate_key {certificates}/client.key;
}}
"""


def test_nginx_speaks_tls_to_its_upstream(server, authority):
    one = server("tls:shown", *authority.mutual, "2")
    location = NGINX_LOCATION.format(certificates=authority.home)
    with nginx(f"127.0.0.1:{one.port}", location) as front, Client(front, PATIENCE_S) as client:
        for _ in range(20):
            seen = json.loads(client.request("GET", "/").body)
            assert seen["environ"]["SSL_CLIENT_S_DN_CN"] == "client one"


def resident_kib(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))


def test_an_idle_connection_holds_little_memory(server, authority):
    one = server(HELLO, *authority.server, "--keep-alive", "60")
    worker = one.workers()[0]
    context = authority.context()

    def idle() -> ssl.SSLSocket:
        client = connect(one, context)
        ask(client)
        return client

    warm = [idle() for _ in range(50)]
    before = resident_kib(worker)
    clients = [idle() for _ in range(400)]
    each = (resident_kib(worker) - before) / len(clients)
    assert each <= 12, f"{each:.1f} KiB per idle connection"
    for client in (*warm, *clients):
        client.close()


def test_half_open_handshakes_and_slow_bodies_delay_nobody(server, authority):
    one = server(HELLO, *authority.server, "--threads", "2")
    context = authority.context()
    client = connect(one, context)

    def slowest() -> float:
        times = []
        for _ in range(300):
            began = time.monotonic()
            ask(client)
            times.append(time.monotonic() - began)
        return statistics.quantiles(times, n=100)[98]

    alone = slowest()
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    first = hello.read()
    half = []
    for number in range(200):
        raw = socket.create_connection(one.address, timeout=PATIENCE_S)
        raw.sendall(first[: len(first) - number % 2 * 7])
        half.append(raw)
    bodies = []
    for _ in range(200):
        slow = connect(one, context)
        slow.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        bodies.append(slow)
    # The machine has other work: the best of three.
    beside = min(slowest() for _ in range(3))
    # Twice, and some for a machine that does other things too.
    assert beside <= 2 * alone + 0.01, f"{beside:.4f} s beside them, {alone:.4f} s alone"
    for one_client in (*half, *bodies):
        one_client.close()


CALM = {"keep_alive": 3, "one_shot": 3, "pause": 0.003}


@pytest.mark.parametrize("what", ["HUP", "TERM", "max_requests", "USR2"])
def test_nothing_is_lost_under_load(server, authority, what):
    limits = ("--max-requests", "300") if what == "max_requests" else ()
    one = server("echo", *authority.server, *limits, "--threads", "2", workers=2)
    one.log.wait("Booting worker", 2)
    with Load(one.address, context=authority.context(), until_refused=what == "TERM", **CALM) as load:
        if what == "HUP":
            for count in (4, 6):
                one.send_signal(signal.SIGHUP)
                one.log.wait("Booting worker", count)
        elif what == "max_requests":
            one.log.wait("Booting worker", 6)
        elif what == "USR2":
            one.send_signal(signal.SIGUSR2)
            one.log.wait("Booting worker", 4)
            successor = int(one.log.wait(r"Listening at: .+ \((\d+)\)$", 2)[1].group(1))
            one.send_signal(signal.SIGTERM)
            assert one.wait_exit() == 0
        else:
            one.send_signal(signal.SIGTERM)
            load.join()
        if what != "TERM":
            load.wait_answered(load.counters.answered + 100)
    counters = load.counters
    assert counters.lost == 0, counters.details
    if what == "USR2":
        os.kill(successor, signal.SIGTERM)
        one.wait_gone()


def test_certificates_are_exchanged_without_a_failed_handshake(server, authority, tmp_path):
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_bytes(Path(authority[name]).read_bytes())
    authority.issue("next", "/CN=localhost", "DNS:localhost,IP:127.0.0.1")
    one = server(HELLO, "--certfile", str(tmp_path / "server.pem"), "--keyfile", str(tmp_path / "server.key"))
    context = authority.context()
    failed, leave = [], threading.Event()

    def serial() -> str:
        with connect(one, context) as client:
            ask(client)
            return client.getpeercert()["serialNumber"]

    def handshakes() -> None:
        while not leave.is_set():
            try:
                serial()
            except OSError as error:
                failed.append(repr(error))

    old = serial()
    thread = threading.Thread(target=handshakes)
    thread.start()
    try:
        for source, target in (("next.key", "server.key"), ("next.pem", "server.pem")):
            (tmp_path / f"{target}.new").write_bytes(Path(authority[source]).read_bytes())
            (tmp_path / f"{target}.new").rename(tmp_path / target)
        wait_until(lambda: serial() != old, "the new certificate is served")
    finally:
        leave.set()
        thread.join()
    assert not failed, failed[:5]
