"""The `Server` header, and how it is changed or hidden."""

from __future__ import annotations

import json

import pytest

from harness import Finished

pytestmark = pytest.mark.ours


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "ferricorn"),
        (("--server-header", "Apache/1.3 (Unix)"), "Apache/1.3 (Unix)"),
        (("--server-header", ""), None),
    ],
)
def test_the_header_is_chosen(server, arguments, expected):
    one = server("hello:app", *arguments)
    with one.connect() as client:
        assert client.request("GET", "/").header("Server") == expected
        client.send(b"BAD\r\n\r\n")
        assert client.read_response().header("Server") == expected, "a refusal has it too"


def test_the_configuration_file_chooses_it(server, tmp_path):
    path = tmp_path / "conf.py"
    path.write_text("server_header = 'from the file'\n")
    assert server("hello:app", "-c", str(path)).get("/").header("Server") == "from the file"


def test_the_trick_with_gunicorns_module_goes_on_to_work(server, tmp_path):
    path = tmp_path / "conf.py"
    path.write_text("import gunicorn\ngunicorn.SERVER = 'undisclosed'\ngunicorn.SERVER_SOFTWARE = 'mine/1'\n")
    one = server("probe:application", "-c", str(path))
    answer = one.get("/environ")
    assert answer.header("Server") == "undisclosed"
    assert json.loads(answer.body)["SERVER_SOFTWARE"] == "mine/1"


def test_an_import_of_gunicorn_alone_changes_nothing(server, tmp_path):
    path = tmp_path / "conf.py"
    path.write_text("import gunicorn\n")
    answer = server("probe:application", "-c", str(path)).get("/environ")
    assert answer.header("Server") == "ferricorn"
    assert json.loads(answer.body)["SERVER_SOFTWARE"].startswith("ferricorn/")


def test_what_cannot_stand_in_a_header_is_refused():
    ended = Finished(["--server-header", "a\r\nX-Injected: 1", "hello:app"])
    assert ended.code == 1
    assert "server_header" in ended.error
