"""Draws docs/performance.svg from the newest results of benches/peers: `python docs/_site/plot.py`."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
RESULTS = DOCS.parent / "benches/peers/results/2026-11-21-171839.md"
SCENARIOS = {
    "hello_headers": "A raw WSGI hello, a browser's 20 header fields",
    "flask": "One Flask route",
    "flask_t16": "The same, 16 threads on two cores",
    "django": "A Django view with a template",
    "body_1m": "1 MiB of response",
    "upload_64k": "64 KiB uploaded",
}
LEFT, BAR, LINE, WIDTH = 110, 12, 16, 430
STYLE = """text { fill: #1f2937; font: 12px sans-serif } .server { text-anchor: end } .scenario { font-weight: bold }
rect { fill: #9ca3af } .ours { fill: #c2410c } .paper { fill: white }"""


def table(text: str, heading: str) -> dict[str, dict[str, float]]:
    """The rows of the table below a heading: scenario, then server, to its number."""
    lines = text.partition(f"## {heading}\n\n")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    servers = [name.split()[0] for name in cells[0][1:]]
    return {
        row[0]: {server: float(cell) for server, cell in zip(servers, row[1:], strict=True) if cell != "–"}
        for row in cells[2:]
    }


def drawing(results: Path = RESULTS) -> str:
    numbers = table(results.read_text(), "Server CPU per request, µs")
    shapes, y = [], 20
    shapes.append(f'<text x="10" y="{y}">Server CPU per request, µs: shorter is better</text>')
    for scenario, title in SCENARIOS.items():
        row = numbers[scenario]
        y += 26
        shapes.append(f'<text class="scenario" x="10" y="{y}">{title}</text>')
        for server, number in row.items():
            y += LINE
            length = WIDTH * number / max(row.values())
            ours = ' class="ours"' if server == "ferricorn" else ""
            shapes.append(f'<text class="server" x="{LEFT - 8}" y="{y}">{server}</text>')
            shapes.append(f'<rect{ours} x="{LEFT}" y="{y - BAR + 2}" width="{length:.1f}" height="{BAR}"/>')
            shapes.append(f'<text x="{LEFT + length + 6:.1f}" y="{y}">{number:g}</text>')
    date = re.search(r"# (\d+-\d+-\d+)", results.read_text()).group(1)
    label = f'role="img" aria-label="Server CPU per request of five servers, measured on {date}"'
    size = f'viewBox="0 0 600 {y + 12}" width="600" height="{y + 12}"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>'
    # Readers have light pages and dark ones.
    paper = '<rect class="paper" width="100%" height="100%"/>'
    return "\n".join([start, f"<style>{STYLE}</style>", paper, *shapes, "</svg>\n"])


if __name__ == "__main__":
    (DOCS / "performance.svg").write_text(drawing())
