"""The documentation: its commands run, its links lead somewhere, its lists are complete. See pages.py."""

from __future__ import annotations

import ast
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
