"""Flask and Django through a client that people use, on one worker with two threads."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import requests

from harness import APPS, REPOSITORY, wait_until

DJANGO_PROJECT = REPOSITORY / "examples" / "django_project"


class Browser(requests.Session):
    """requests.Session with a base address."""

    def __init__(self, address):
        super().__init__()
        self.trust_env = False
        self.base = f"http://{address[0]}:{address[1]}"

    def request(self, method, url, **options):
        options.setdefault("timeout", 20)
        return super().request(method, self.base + url, **options)


# -- Flask -----------------------------------------------------------------------------------------


@pytest.fixture
def flask(server):
    one = server("flask_site:app", "--threads", "2")
    with Browser(one.address) as browser:
        browser.server = one
        yield browser


def test_flask_page(flask):
    answer = flask.get("/")
    assert (answer.status_code, answer.text) == (200, "<p>Grüße, 世界</p>")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_flask_methods_and_arguments(flask, method):
    answer = flask.request(method, "/echo?a=1&b=ü", headers={"User-Agent": "browser/1"}, cookies={"c": "d"}).json()
    assert answer["method"] == method
    assert answer["args"] == {"a": "1", "b": "ü"}
    assert (answer["agent"], answer["cookies"], answer["remote"]) == ("browser/1", {"c": "d"}, "127.0.0.1")
    assert answer["url"].startswith(flask.base + "/echo?")


def test_flask_forms_and_json(flask):
    assert flask.post("/echo", data={"x": "ü", "y": "2"}).json()["form"] == {"x": "ü", "y": "2"}
    assert flask.post("/echo", json={"x": [1, None]}).json()["json"] == {"x": [1, None]}
    chunked = flask.post(
        "/echo", data=iter([b"x=", b"1"]), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert chunked.json()["form"] == {"x": "1"}


@pytest.mark.parametrize("size", [0, 1000, 5_000_000])
def test_flask_upload(flask, size):
    answer = flask.post("/upload", files={"file": ("näme.bin", b"x" * size)}, data={"field": "value"})
    assert answer.json() == {"file": ["näme.bin", size], "field": "value"}


def test_flask_stream(flask, gates):
    with flask.get("/stream", stream=True) as answer:
        parts = answer.iter_content(None)
        assert next(parts) == b"first"
        gates.wait_reached("second")
        gates.open("second")
        assert b"".join(parts) == b"second of /stream"


def test_flask_session_survives_between_requests(flask):
    assert [flask.get("/visits").text for _ in range(3)] == ["1", "2", "3"]


def test_flask_download_with_conditions(flask):
    whole = flask.get("/download")
    assert whole.content == (APPS / "flask_site.py").read_bytes()
    assert flask.get("/download", headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    part = flask.get("/download", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    head = flask.head("/download")
    assert (head.headers["Content-Length"], head.content) == (str(len(whole.content)), b"")


def test_flask_redirects_and_errors(flask):
    assert flask.get("/away", allow_redirects=False).headers["Location"] == flask.base + "/"
    assert flask.get("/missing").status_code == 404
    assert flask.get("/broken").status_code == 500
    flask.server.log.wait("RuntimeError: broken view")
    assert flask.options("/echo").headers["Allow"]
    assert flask.get("/").status_code == 200


def test_flask_factory(server):
    one = server("flask_site:create_app('shop')", "--threads", "2")
    assert one.get().text == "made by shop"


# -- Django ----------------------------------------------------------------------------------------


@pytest.fixture
def django(server):
    one = server("project.wsgi:application", "--threads", "2", cwd=DJANGO_PROJECT)
    with Browser(one.address) as browser:
        yield browser


def test_django_view(django):
    answer = django.get("/about/?a=1&b=ü", headers={"User-Agent": "browser/1", "X-Forwarded-Proto": "https"}).json()
    assert answer == {
        "path": "/about/",
        "scheme": "https",
        "host": django.base.removeprefix("http://"),
        "agent": "browser/1",
        "query": {"a": "1", "b": "ü"},
    }


def test_django_template_and_form(django):
    page = django.get("/")
    assert "<title>Django on ferricorn</title>" in page.text
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text).group(1)
    assert django.post("/", data={"name": "Zoë"}).status_code == 403, "no token, no entry"
    greeted = django.post("/", data={"name": "Zoë <b>", "csrfmiddlewaretoken": token})
    assert greeted.status_code == 200
    assert "<p>Hello, Zoë &lt;b&gt;!</p>" in greeted.text


def test_django_appends_slashes(django):
    answer = django.get("/about", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (301, "/about/")


def test_django_stream(django):
    assert django.get("/stream/").text == "".join(f"line {number}\n" for number in range(1, 6))


# -- a load generator, if there is one -------------------------------------------------------------


@pytest.mark.parametrize("application", ["hello:app", "flask_site:app"])
def test_a_short_burst_of_load_has_no_errors(server, application):
    wrk = shutil.which("wrk")
    if not wrk:
        pytest.skip("wrk is not installed")
    one = server(application, "--threads", "2", workers=2)
    assert one.get("/").status == 200, "a worker has imported the application"
    shown = subprocess.run(
        [wrk, "-t1", "-c16", "-d1s", f"http://127.0.0.1:{one.port}/"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    assert int(re.search(r"(\d+) requests in", shown).group(1)) > 50
    assert "Non-2xx" not in shown
    assert "Socket errors" not in shown
    assert one.stop() == 0


# -- behind a proxy, if there is one ---------------------------------------------------------------

NGINX = """
daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream app {{ server unix:{dir}/app.sock; keepalive 8; }}
  server {{
    listen unix:{dir}/front.sock;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https; client_max_body_size 20m;
    }}
  }}
}}
"""


def test_flask_behind_nginx_over_a_unix_socket(server, tmp_path):
    nginx = shutil.which("nginx")
    if not nginx:
        pytest.skip("nginx is not installed")
    from wire import Client

    server("flask_site:app", "--threads", "2", bind=(f"unix:{tmp_path}/app.sock",))
    (tmp_path / "nginx.conf").write_text(NGINX.format(dir=tmp_path))
    proxy = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"])
    try:
        wait_until((tmp_path / "front.sock").exists, "nginx listens")
        with Client(str(tmp_path / "front.sock"), 20) as client:
            for _ in range(20):
                answer = client.request(
                    "POST", "/echo", [("Content-Type", "application/x-www-form-urlencoded")], b"x=1"
                )
                assert answer.status == 200
                assert '"url":"https://example.test/echo"' in answer.text
                assert '"form":{"x":"1"}' in answer.text
            upload = client.request("POST", "/echo", [("Content-Type", "text/plain")], b"x" * 5_000_000)
            assert upload.status == 200
    finally:
        proxy.terminate()
        proxy.wait(20)
