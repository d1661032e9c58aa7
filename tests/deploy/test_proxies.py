"""Deploys behind real proxies, under load: nothing that a client has sent may be lost."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import signal

import pytest
from fronts import SITE, apache, directory, envoy, haproxy, nginx, reload, traefik, upgrade
from websocket import create_connection

from harness import PATIENCE_S, Server, session_members, wait_until
from load import Load
from wire import Client

APP = ("served:app", "--threads", "4", "--proxy-headers", "x-forwarded-for")
SENT = 20_000


def note(record_property, counters) -> None:
    assert counters.lost == 0, counters.details
    record_property("requests", f"{counters.sent} sent, {counters.lost} lost")


@pytest.fixture(params=[nginx, apache], ids=["nginx", "apache"])
def deployed(request, server):
    with directory() as home:
        one = server(*APP, "--umask", "0", bind=(f"unix:{home}/app.sock",), workers=2, **SITE)
        (home / "files").mkdir()
        (home / "files/report.txt").write_text("of the proxy")
        with request.param(home) as front:
            yield request.node.callspec.id, one, front


def test_three_deploys_lose_nothing(deployed, record_property):
    _, one, front = deployed
    generations = [one.workers()]
    with Load(front) as load:
        for number in range(1, 4):
            reload(one)
            generations.append(one.workers())
            load.wait_answered(number * 2000)
    note(record_property, load.counters)
    for generation in generations:
        assert any(load.counters.workers[str(pid)] for pid in generation), "each deploy's workers have answered"


def end(one: Server, master: int) -> None:
    """The server whose master came by an upgrade."""
    os.kill(master, signal.SIGTERM)
    one.log.wait("Shutting down: Master", 3)
    wait_until(lambda: not session_members(one.pid), "the last master is gone")


def test_two_upgrades_lose_nothing(deployed, record_property):
    """SIGUSR2 starts another server beside the first, on the same socket."""
    _, one, front = deployed
    with Load(front) as load:
        load.wait_answered(1000)
        for number in (1, 2):
            master = upgrade(one, 2)
            load.wait_answered(load.counters.answered + 2000)
            new = one.booted()[number * 2 :]
            assert any(load.counters.workers[str(pid)] for pid in new), "the new server answers"
    note(record_property, load.counters)
    assert one.wait_exit() == 0
    end(one, master)


BALANCERS = pytest.mark.parametrize("balancer", [haproxy, envoy, traefik], ids=["haproxy", "envoy", "traefik"])


@BALANCERS
def test_two_upgrades_behind_a_balancer_lose_nothing(balancer, server, record_property):
    servers = [server(*APP, "--health-path", "/-/health", workers=2, **SITE) for _ in range(2)]
    masters = [one.pid for one in servers]
    with directory() as home, balancer(home, [one.address for one in servers]) as front, Load(front) as load:
        for _ in range(2):
            for index, one in enumerate(servers):
                masters[index] = upgrade(one, 2)
                load.wait_answered(load.counters.answered + 2000)
    note(record_property, load.counters)
    for one, master in zip(servers, masters, strict=True):
        assert one.wait_exit() == 0
        end(one, master)


def test_the_application_sees_the_client(deployed):
    _, _, front = deployed
    with Client(front, PATIENCE_S) as client:
        host, peer, scheme = client.request("GET", "/seen", [("Host", "example.com")]).text.split()
    assert (host, scheme) == ("example.com", "http")
    assert peer == "127.0.0.1"


@pytest.mark.parametrize("prefix", ["", "/stream"])
def test_a_large_upload_is_whole(deployed, prefix):
    _, _, front = deployed
    body = os.urandom(24_000_000)
    with Client(front, PATIENCE_S) as client:
        answer = client.request("POST", f"{prefix}/upload", [("Content-Length", str(len(body)))], body)
    assert answer.text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


def test_pieces_come_when_they_are_made(deployed, gates):
    """Without buffering in nginx; Apache passes on what it has."""
    name, _, front = deployed
    if name == "apache":
        pytest.skip("mod_proxy_http flushes when it has nothing more, which is a matter of time")
    with Client(front, PATIENCE_S) as client:
        client.send_request("GET", "/stream/pieces")
        seen = b""
        while b"first " not in seen:
            seen += client.socket.recv(65536)
        assert b"second" not in seen
        gates.open("second")
        while b"second" not in seen:
            more = client.socket.recv(65536)
            assert more, seen
            seen += more


def test_clients_that_leave_in_an_upload_harm_no_other(deployed):
    _, one, front = deployed
    for _ in range(10):
        with Client(front, PATIENCE_S) as gone:
            gone.send(b"POST /stream/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(70_000))
            gone.reset()
    with Client(front, PATIENCE_S) as client:
        assert client.request("GET", "/echo?after").text.startswith("after ")
    assert "Traceback" not in one.log.text
    assert "panicked" not in one.log.text


def test_nginx_sends_the_file_that_is_named(deployed):
    name, _, front = deployed
    if name != "nginx":
        pytest.skip("X-Accel-Redirect is nginx's")
    with Client(front, PATIENCE_S) as client:
        assert client.request("GET", "/file").text == "of the proxy"
        assert client.request("GET", "/protected/report.txt").status == 404


def test_a_websocket_passes_nginx(deployed):
    name, _, front = deployed
    if name != "nginx":
        pytest.skip("the example for Apache does not load mod_proxy_wstunnel")
    with Client(front, PATIENCE_S) as client:
        socket = create_connection("ws://x/echo", socket=client.socket, timeout=PATIENCE_S)
        for word in ("one", "two"):
            socket.send(word)
            assert socket.recv() == word
        socket.close()


@BALANCERS
def test_reloads_behind_a_balancer_lose_nothing(balancer, server, record_property):
    servers = [server(*APP, "--health-path", "/-/health", workers=2, **SITE) for _ in range(2)]
    with directory() as home, balancer(home, [one.address for one in servers]) as front, Load(front) as load:
        for one in (*servers, *servers):
            reload(one)
            answered = load.counters.answered
            load.wait_answered(answered + 1000)
            assert any(load.counters.workers[str(pid)] for pid in one.workers()), "the new workers answer"
    note(record_property, load.counters)


@BALANCERS
def test_a_balancer_names_the_client_and_passes_websockets(balancer, server):
    one = server(*APP, "--health-path", "/-/health", workers=1, **SITE)
    with directory() as home, balancer(home, [one.address, one.address]) as front:
        with Client(front, PATIENCE_S) as client:
            host, peer, scheme = client.request("GET", "/seen", [("Host", "example.com")]).text.split()
        assert (host, scheme) == ("example.com", "http")
        # Envoy names a peer on the loopback interface by the machine's own address.
        assert ipaddress.ip_address(peer).is_loopback == (balancer is not envoy)
        with Client(front, PATIENCE_S) as client:
            socket = create_connection("ws://x/echo", socket=client.socket, timeout=PATIENCE_S)
            socket.send("word")
            assert socket.recv() == "word"
            socket.close()


@BALANCERS
def test_a_rolling_deploy_of_two_servers_behind_a_balancer(balancer, server, record_property):
    """Each server is stopped and started again; the balancer finds out by `health_path` while `stop_delay` lasts."""
    options = (*APP, "--health-path", "/-/health", "--stop-delay", "3")

    def start(*bind: str) -> Server:
        return server(*options, bind=bind, workers=2, **SITE)

    servers = [start("127.0.0.1:0"), start("127.0.0.1:0")]
    addresses = [one.address for one in servers]
    with directory() as home, balancer(home, addresses) as front, Load(front) as load:
        for index, old in enumerate(servers):
            old.send_signal(signal.SIGTERM)
            assert old.wait_exit() == 0
            host, port = addresses[index]
            new = start(f"{host}:{port}")
            served = load.counters.workers

            def is_back(new=new, served=served) -> bool:
                return any(served[str(pid)] for pid in new.workers())

            wait_until(is_back, f"the balancer sends requests to server {index} again")
            servers[index] = new
        while load.counters.answered < SENT:
            load.wait_answered(load.counters.answered + 1000)
    assert load.counters.sent >= SENT
    note(record_property, load.counters)
