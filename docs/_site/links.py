"""A hook of MkDocs: links to files of the repository outside docs/ are checked, and shown as names or as links there.

Pages link to `../src/lib.rs` so that they work where the repository is browsed. On the site such a file does not exist.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

# A warning, and with `--strict` the end of the build.
log = logging.getLogger("mkdocs.hooks.links")

LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#\s]*)(#[^)]*)?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown, page, config, **_):
    root = Path(config.docs_dir).parent

    def outside(link: re.Match[str]) -> str:
        text, target = link.group(1), link.group(2)
        path = (Path(page.file.abs_src_path).parent / target).resolve()
        if not path.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_path, target)
            return text
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path.relative_to(root.resolve())})"
        return text if "`" in text else f"`{text}`"

    # Text between fences only: code keeps what it says.
    parts, position = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(outside, markdown[position : fence.start()]), fence.group()]
        position = fence.end()
    return "".join([*parts, LINK.sub(outside, markdown[position:])])
