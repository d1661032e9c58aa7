"""Greenlets that wait for PostgreSQL, Redis and another web server: 500 requests at a time on one worker.

`make test-services` runs them. The servers are Debian's, started here in directories of their own.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from harness import wait_until

for module in ("psycogreen", "psycopg", "psycopg2", "redis", "sqlalchemy"):
    pytest.importorskip(module)

AT_ONCE = 500
pytestmark = [pytest.mark.ours, pytest.mark.timeout(300)]


def ended(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def directory():
    # The path of a unix socket must be short, and PostgreSQL's user has to get there.
    made = Path(tempfile.mkdtemp(prefix="services-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def database(directory):
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    programs = found[-1].parent
    # It refuses to run as root.
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    home = directory / "database"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    options = {"user": user.pw_name} if os.geteuid() == 0 else {}
    options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": home}
    made = [str(programs / "initdb"), "-D", str(home / "data"), "-U", "test", "-A", "trust", "--no-sync"]
    subprocess.run(made, check=True, **options)
    line = [str(programs / "postgres"), "-D", str(home / "data"), "-k", str(home)]
    for setting in ("listen_addresses=", f"max_connections={AT_ONCE + 150}", "fsync=off", "shared_buffers=32MB"):
        line += ["-c", setting]
    process = subprocess.Popen(line, **options)
    import psycopg2

    address = f"host={home} user=test dbname=postgres"

    def is_up() -> bool:
        try:
            psycopg2.connect(address).close()
        except psycopg2.OperationalError:
            return False
        return True

    try:
        wait_until(is_up, "PostgreSQL answers", 60)
        yield address
    finally:
        ended(process)


@pytest.fixture(scope="module")
def store(directory):
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("Redis is not installed (Debian: redis-server)")
    address = directory / "redis"
    line = [program, "--port", "0", "--unixsocket", str(address), "--save", "", "--dir", str(directory)]
    process = subprocess.Popen([*line, "--maxclients", "2000"], stdout=subprocess.DEVNULL)
    try:
        wait_until(address.exists, "Redis listens")
        yield str(address)
    finally:
        ended(process)


@pytest.fixture(scope="module")
def slow():
    """A web server that answers after a second."""

    async def answer(reader, writer):
        while (await reader.readline()).strip():
            pass
        await asyncio.sleep(1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n42")
        await writer.drain()
        writer.close()

    ports, loop = [], asyncio.new_event_loop()

    async def listen():
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=AT_ONCE)
        ports.append(server.sockets[0].getsockname()[1])

    def serve():
        loop.run_until_complete(listen())
        loop.run_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    wait_until(lambda: ports, "it listens")
    yield f"http://127.0.0.1:{ports[0]}/"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg3", "sqlalchemy", "redis", "requests", "urllib3"])
def test_500_requests_wait_for_a_service_at_once(server, database, store, slow, library, driver):
    if (library, driver) == ("eventlet", "psycopg3"):
        pytest.skip("psycopg 3 knows gevent, not eventlet")
    env = {"GREEN": library, "TEST_DATABASE": database, "TEST_REDIS": store, "TEST_SLOW": slow}
    one = server("services", "-k", library, "--timeout", "60", env=env)
    begun = time.monotonic()
    clients = []
    for _ in range(AT_ONCE):
        client = one.connect(120)
        client.send_request("GET", f"/{driver}")
        clients.append(client)
    for client in clients:
        with client:
            response = client.read_response()
            assert (response.status, response.text) == (200, "42")
    took = time.monotonic() - begun
    print(f"{library} {driver}: {AT_ONCE} requests in {took:.2f} s")
    # One after another they would take 500 s; 100 s with the pool of SQLAlchemy, whose calls are shorter.
    assert took < 60
    assert one.stop() == 0
    assert "Traceback" not in one.log.text
