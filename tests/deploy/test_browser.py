"""The dashboard in a real browser, headless: its numbers, its texts, its actions, for every eye and for none.

With UPDATE_DOCS=1 the pictures of the documentation are made anew.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal

import pytest
from axe_playwright_python.sync_playwright import Axe
from fronts import SITE
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from harness import PATIENCE_S, REPOSITORY, wait_until
from load import Load
from wire import Client

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TOKEN = "0123456789abcdef-of-the-browser"
PATIENCE_MS = 20_000
PICTURES = REPOSITORY / "docs" / "pictures"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt-get install chromium)")
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens a server's dashboard. Afterwards nothing was complained about, and nothing was asked of others."""
    complaints, asked, contexts = [], [], []

    def open_page(one, **options) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 1000}, "locale": "en-GB", **options})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://{admin(one)}/")
        expect(page.locator("#state")).to_contain_text("workers serve")
        page.admin = admin(one)
        page.complaints = complaints
        return page

    yield open_page
    # A page that is closed cannot complain.
    pages = [page for context in contexts for page in context.pages]
    for page in pages:
        assert page.evaluate("window.pwned") is None
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.split("/")[2] for url in asked} <= {page.admin for page in pages} | {""}
    assert not any("?" in url for url in asked), "no request has a query"


def admin(one) -> str:
    return one.log.wait(r"Health and figures at: http://(\S+)")[0].group(1)


def watched(server, *options, env=None, **more):
    options = ("--admin-bind", "127.0.0.1:0", "--threads", "4", *options)
    return server("watched:app", *options, **{**SITE, "env": {**SITE.get("env", {}), **(env or {})}, **more})


def metrics(one) -> dict[str, float]:
    with Client(("127.0.0.1", int(admin(one).rpartition(":")[2])), PATIENCE_S) as client:
        families = text_string_to_metric_families(client.request("GET", "/metrics").text)
        return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


def shown(page: Page, chart: str) -> list[float]:
    """The values above a chart, in the order of its lines."""
    text = page.locator(".card", has=page.get_by_role("heading", name=chart, exact=True)).locator(".now").inner_text()
    return [float(re.match(r"[\d.]+", part)[0]) for part in text.split(" · ")]


def rows(page: Page, table: str) -> list[list[str]]:
    return page.locator(f"#{table} tr").evaluate_all("rows => rows.map(r => [...r.cells].map(c => c.textContent))")


def total(page: Page, what: str) -> int:
    found = re.search(rf"([\d.]+)(k?) {what}", page.locator("#facts").inner_text())
    assert not found[2], "the test compares numbers that are not rounded"
    return int(found[1])


# -- numbers and events ----------------------------------------------------------------------------


def test_numbers_equal_those_of_metrics_under_load_and_after(server, visit):
    one = watched(server, "-w", "2", workers=2)
    page = visit(one)
    with Load(one.address, keep_alive=3, one_shot=1, pause=0.02) as load:
        for _ in range(3):
            least = metrics(one)["ferricorn_requests_total"]
            value = wait_until(lambda least=least: (now := total(page, "requests")) >= least and now, "it catches up")
            assert value <= metrics(one)["ferricorn_requests_total"]
        wait_until(lambda: shown(page, "Requests per second")[0] > 0, "the rate")
        wait_until(lambda: shown(page, "Time of a request")[0] > 0, "the time")
    counters = load.stop()
    expect(page.locator("#advice")).to_contain_text("Leave it: requests wait ")
    for _ in range(3):
        assert one.get("/fail").status == 500
    sent = counters.sent + 3
    wait_until(lambda: metrics(one)["ferricorn_requests_total"] == sent, "all are counted")
    wait_until(lambda: total(page, "requests") == sent, "the page has all")
    wait_until(lambda: total(page, "errors") == 3, "and the errors")
    figures = metrics(one)
    assert sum(int(row[6]) for row in rows(page, "workers")) == sent
    wait_until(lambda: shown(page, "Threads")[:2] == [0, figures["ferricorn_threads"]] == [0, 8], "threads")
    wait_until(lambda: shown(page, "Connections") == [metrics(one)["ferricorn_connections_open"]], "connections")
    paths = page.locator("svg path").evaluate_all("paths => paths.map(path => path.getAttribute('d'))")
    assert all(re.fullmatch(r"M\d+ [\d.]+(L\d+ [\d.]+)*", path) for path in paths), paths


def test_a_reload_shows(server, visit):
    one = watched(server)
    page = visit(one)
    (before,) = one.workers()
    expect(page.locator("#workers tr")).to_contain_text(str(before))
    one.send_signal(signal.SIGHUP)
    expect(page.locator("#events")).to_contain_text("Reloaded")
    expect(page.locator("#workers")).not_to_contain_text(str(before))
    expect(page.locator("#facts")).to_contain_text("reloads: 1")


def test_a_broken_worker_shows(server, visit, tmp_path):
    (tmp_path / "broken.py").write_text(
        "import os, signal\n"
        "if os.path.exists('broken'): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n"
        "    return []\n"
    )
    one = server("broken:app", "--admin-bind", "127.0.0.1:0", cwd=tmp_path)
    page = visit(one)
    expect(page.locator("#state")).to_have_text("1 of 1 workers serve")
    expect(page.locator("#state")).to_have_class("good")
    (pid,) = one.workers()
    (tmp_path / "broken").touch()
    os.kill(pid, signal.SIGSEGV)
    expect(page.locator("#state")).to_have_text("0 of 1 workers serve")
    expect(page.locator("#state")).to_have_class("bad")
    crash = page.locator("#events tr", has_text=f"(pid:{pid}) ended: ")
    expect(crash.locator("td").nth(1)).to_have_text("crash")
    expect(crash.locator("td").nth(1)).to_have_class(re.compile("bad"))
    (tmp_path / "broken").unlink()
    expect(page.locator("#state")).to_have_text("1 of 1 workers serve")


def test_a_server_that_goes_and_comes_back(server, visit):
    one = watched(server)
    page = visit(one)
    os.kill(one.pid, signal.SIGSTOP)
    try:
        expect(page.locator("#state")).to_have_text("No answer from the server")
    finally:
        os.kill(one.pid, signal.SIGCONT)
    expect(page.locator("#state")).to_contain_text("workers serve")
    # The browser itself says that a request was given up.
    page.complaints.clear()


def test_a_late_page_shows_the_past(server, visit):
    one = watched(server)
    with Load(one.address, keep_alive=2, one_shot=0):
        first = visit(one)
        wait_until(lambda: shown(first, "Requests per second")[0] > 0, "a second under load is over")
    late = visit(one)
    drawn = late.locator("svg path").first.get_attribute("d")
    heights = [float(point.split()[1]) for point in drawn[1:].split("L")]
    assert min(heights) < 10, "the load was before the page was opened"


# -- texts of strangers ----------------------------------------------------------------------------

MARKUP = "<img/src=x/onerror=window.pwned=1>"


def test_what_strangers_write_stays_text(server, visit, gates, tmp_path):
    config = tmp_path / "conf.py"
    config.write_text(f"proc_name = '{MARKUP}'\n")
    one = watched(server, "-c", str(config), "--admin-token", "env:TOKEN", env={**gates.env, "TOKEN": TOKEN})
    page = visit(one)
    assert MARKUP in page.title()
    expect(page.locator("#name")).to_contain_text(MARKUP)
    with one.connect() as client:
        client.send(f"GET /block/{MARKUP}?go HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        expect(page.locator("#running tr td").nth(3)).to_have_text(f"/block/{MARKUP}")
        page.get_by_label("admin_token").fill(TOKEN)
        page.get_by_role("button", name=re.compile("^Stack of thread")).click()
        expect(page.locator("#stack")).to_contain_text(f"GET /block/{MARKUP}")
        gates.open("go")
        assert client.read_response().status == 200
    config.write_text(f"raise RuntimeError('{MARKUP}')\n")
    one.send_signal(signal.SIGHUP)
    expect(page.locator("#events")).to_contain_text(MARKUP)
    assert page.locator("img, script:not(:only-of-type), iframe").count() == 0
    assert page.evaluate("document.scripts.length") == 1


# -- actions ---------------------------------------------------------------------------------------


def acting(server, *options, env=None):
    return watched(server, "--admin-token", "env:TOKEN", *options, env={**(env or {}), "TOKEN": TOKEN})


def test_without_a_token_the_page_only_shows(server, visit):
    page = visit(watched(server))
    expect(page.locator("#readonly")).to_be_visible()
    assert page.get_by_role("button").count() == 0
    assert page.locator("#actions").is_hidden()


def test_actions_are_done_by_hand_and_by_keyboard(server, visit):
    one = acting(server)
    page = visit(one)
    (before,) = one.workers()
    page.get_by_role("button", name="Reload").click()
    expect(page.locator("#outcome")).to_have_text("Type the admin_token first")
    expect(page.get_by_label("admin_token")).to_be_focused()
    page.keyboard.type("0123456789abcdef-a-wrong-one")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Reload")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#outcome")).to_have_text("The token is wrong")
    # The browser says that it was answered with 401.
    assert all("401" in said for said in page.complaints)
    page.complaints.clear()
    page.get_by_label("admin_token").fill(TOKEN)
    page.get_by_role("button", name="Reload").click()
    expect(page.locator("#outcome")).to_have_text("reloading")
    expect(page.locator("#workers")).not_to_contain_text(str(before))
    page.get_by_role("button", name="Add a worker").click()
    expect(page.locator("#state")).to_have_text("2 of 2 workers serve")
    page.get_by_role("button", name="Remove a worker").click()
    expect(page.locator("#state")).to_have_text("1 of 1 workers serve")
    assert page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0
    assert page.evaluate("document.cookie") == ""
    assert TOKEN not in page.url + page.content()
    assert TOKEN not in one.log.text


def test_a_button_keeps_the_focus_while_its_table_is_filled_anew(server, visit, gates):
    one = acting(server, env=gates.env)
    page = visit(one)
    page.get_by_label("admin_token").fill(TOKEN)
    button = page.get_by_role("button", name=re.compile("^Stacks of worker"))
    button.focus()
    age = page.locator("#workers td").nth(2)
    before = age.inner_text()
    expect(age).not_to_have_text(before)
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name=re.compile("Stacks of worker"))).to_contain_text("ferricorn-thread_0")


# -- for every eye, and for none -------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(server, visit, scheme, gates):
    one = acting(server, env=gates.env)
    page = visit(one, color_scheme=scheme)
    with one.connect() as client:
        client.send(b"GET /block/a?go HTTP/1.1\r\nHost: a\r\n\r\n")
        expect(page.locator("#running")).to_contain_text("/block/a")
        found = Axe().run(page).response["violations"]
        gates.open("go")
        assert client.read_response().status == 200
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []


def test_everything_has_a_name(server, visit):
    page = visit(acting(server))
    wait_until(lambda: "now requests" in page.locator("svg").first.get_attribute("aria-label"), "the first values")
    tree = page.locator("body").aria_snapshot()
    for role in ("button", "textbox", "img", "region", "table"):
        nameless = [line for line in tree.splitlines() if re.match(rf" *- {role}(:|$)", line)]
        assert role == "table" or not nameless, nameless
    for name in ("The last ten minutes", "Workers", "Advice", "Running requests", "Events", "Actions"):
        assert page.get_by_role("heading", name=name, level=2).count() == 1
    assert page.locator("html").get_attribute("lang") == "en"
    headers = page.locator("th")
    assert headers.count() == page.locator("th[scope=col]").count() > 10


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(server, visit, width):
    page = visit(acting(server), viewport={"width": width, "height": 800}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def picture(page: Page, name: str, height: int) -> None:
    """A small PNG: 128 colours are enough for it."""
    image = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, height)))
    assert len(set(image.resize((64, 64)).get_flattened_data())) > 20, "there is something on it"
    small = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    assert len(small.getvalue()) < 150_000, f"{name}: {len(small.getvalue())} bytes"
    if os.environ.get("UPDATE_DOCS"):
        PICTURES.mkdir(exist_ok=True)
        (PICTURES / f"{name}.png").write_bytes(small.getvalue())


@pytest.mark.timeout(180)
def test_pictures_for_the_documentation(server, visit, gates):
    seconds = 45 if os.environ.get("UPDATE_DOCS") else 2
    one = watched(server, "-w", "2", "--name", "shop", env=gates.env, workers=2)
    light, dark = visit(one), visit(one, color_scheme="dark")
    phone = visit(one, viewport={"width": 390, "height": 800}, is_mobile=True, device_scale_factor=1)
    with one.connect() as waiting, Load(one.address, keep_alive=6, one_shot=2, pause=0.01):
        samples = (
            "Math.max(...[...document.querySelectorAll('svg path')].map(p => p.getAttribute('d').split('L').length))"
        )
        wait_until(lambda: light.evaluate(samples) >= seconds, "enough is drawn", seconds + 20)
        waiting.send(b"GET /block/basket?go HTTP/1.1\r\nHost: a\r\n\r\n")
        for page, name, height in ((light, "dashboard", 1100), (dark, "dashboard-dark", 1100)):
            expect(page.locator("#running")).to_contain_text("/block/basket")
            picture(page, name, height)
        picture(phone, "dashboard-phone", 1400)
        os.kill(one.workers()[0], signal.SIGSEGV)
        expect(light.locator("#events")).to_contain_text("crash")
        picture(light, "dashboard-crash", 1400)
        gates.open("go")
