"""An application that asks slow services, with the drivers that applications use. Each call takes a second there."""

import os

import greenlets
import psycopg2

if greenlets.LIBRARY == "gevent":
    import psycogreen.gevent

    psycogreen.gevent.patch_psycopg()

import psycopg  # noqa: E402
import redis  # noqa: E402
import requests  # noqa: E402
import sqlalchemy  # noqa: E402
import urllib3  # noqa: E402

DATABASE, REDIS, SLOW = (os.environ[name] for name in ("TEST_DATABASE", "TEST_REDIS", "TEST_SLOW"))
ENGINE = sqlalchemy.create_engine(
    "postgresql+psycopg2://", creator=lambda: psycopg2.connect(DATABASE), pool_size=100, max_overflow=0, pool_timeout=60
)
CLIENT = redis.Redis(unix_socket_path=REDIS, max_connections=1000)
POOL = urllib3.PoolManager(maxsize=600)


def with_psycopg2():
    connection = psycopg2.connect(DATABASE)
    cursor = connection.cursor()
    cursor.execute("SELECT pg_sleep(1), 42")
    answer = cursor.fetchone()[1]
    connection.close()
    return answer


def with_psycopg3():
    with psycopg.connect(DATABASE) as connection:
        return connection.execute("SELECT pg_sleep(1), 42").fetchone()[1]


def with_sqlalchemy():
    with ENGINE.connect() as connection:
        return connection.execute(sqlalchemy.text("SELECT pg_sleep(0.2), 42")).fetchone()[1]


def with_redis():
    CLIENT.incr("asked")
    return 42 if CLIENT.blpop(["nothing"], timeout=1) is None else 0


def with_requests():
    return requests.get(SLOW, timeout=30).text


def with_urllib3():
    return POOL.request("GET", SLOW, timeout=30).data.decode()


def app(environ, start_response):
    answer = globals()[f"with_{environ['PATH_INFO'].strip('/')}"]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer).encode()]


application = app
