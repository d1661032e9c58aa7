"""Pages of the documentation whose programs only these tests install."""

from __future__ import annotations

import pytest
from test_docs import DOCS, app

from pages import Run, blocks


def test_pyramid_and_dash_are_served_as_the_page_says():
    pytest.importorskip("pyramid")
    pytest.importorskip("dash")
    page = DOCS / "frameworks.md"
    needed = [block for block in blocks(page) if "needs" in block.marks]
    assert len(needed) == 3
    with Run(page, app()) as run:
        for block in blocks(page):
            if block.title or block in needed:
                run.do(block)
