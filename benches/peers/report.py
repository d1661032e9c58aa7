"""What a run leaves: JSON with every round, a Markdown table of medians, and a plot of CPU per request."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

from scenarios import LOADS, Bench

OURS = "ferricorn"
COLUMNS = {
    "requests_per_s": ("req/s", "{:,.0f}"),
    "p50_ms": ("p50 ms", "{:.2f}"),
    "p90_ms": ("p90 ms", "{:.2f}"),
    "p99_ms": ("p99 ms", "{:.2f}"),
    "cpu_us_per_request": ("CPU µs/req", "{:.1f}"),
    "memory_mib": ("PSS MiB", "{:.1f}"),
    "memory_preload_mib": ("PSS MiB, preloaded", "{:.1f}"),
    "errors": ("errors", "{:.0f}"),
    "resumed_percent": ("resumed %", "{:.1f}"),
    "p99_alone_ms": ("p99 alone", "{:.2f}"),
    "p99_ratio": ("p99 ratio", "{:.2f}"),
    "least_p99_ms": ("least p99", "{:.2f}"),
    "bytes_per_connection": ("bytes/conn", "{:,.0f}"),
    "cpu_alone_us": ("CPU alone", "{:.1f}"),
    "cpu_ratio": ("CPU ratio", "{:.2f}"),
    "start_ms": ("start ms", "{:.0f}"),
    "stop_ms": ("stop ms", "{:.0f}"),
}


def machine() -> dict[str, object]:
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def median(rounds: list[dict], key: str) -> float | None:
    values = [figures[key] for figures in rounds if figures.get(key) is not None]
    return statistics.median(values) if values else None


def about(scenario: str) -> str:
    return LOADS[scenario].about if scenario in LOADS else getattr(Bench, scenario).__doc__ or ""


def ratio(ours: list[dict], theirs: list[dict], key: str) -> float | None:
    """The median of the rounds' ratios: what a round has in common, such as a noisy neighbour, cancels out."""
    rounds = [(one.get(key), other.get(key)) for one, other in zip(ours, theirs, strict=True)]
    ratios = [one / other for one, other in rounds if one is not None and other]
    return statistics.median(ratios) if ratios else None


def table(report: dict, title: str, cell: Callable[[dict[str, list[dict]], str], str | None]) -> list[str]:
    """A line per scenario, a column per server; scenarios for which no server has a figure are left out."""
    names = list(report["versions"])
    lines = ["", f"## {title}", ""]
    lines.append("| scenario | " + " | ".join(f"{name} {report['versions'][name]}" for name in names) + " |")
    lines.append("| --- |" + " ---: |" * len(names))
    for scenario, by_server in report["results"].items():
        cells = [cell(by_server, name) for name in names]
        if any(cells):
            lines.append(f"| {scenario} | " + " | ".join(each or "–" for each in cells) + " |")
    return lines


def overview(report: dict) -> list[str]:
    """CPU per request of every server, and ours against each."""

    def cost(by_server: dict[str, list[dict]], name: str) -> str | None:
        value = median(by_server[name], "cpu_us_per_request")
        return None if value is None else f"{value:.1f}"

    def against(by_server: dict[str, list[dict]], name: str) -> str | None:
        value = None if name == OURS else ratio(by_server[OURS], by_server[name], "cpu_us_per_request")
        return None if value is None else f"{value:.2f}"

    lines = table(report, "Server CPU per request, µs", cost)
    if OURS in report["versions"] and len(report["versions"]) > 1:
        lines += table(report, f"CPU per request: {OURS} / the other, median of the rounds", against)
    return lines


def markdown(report: dict) -> str:
    """Medians of all rounds, one table per scenario; the JSON file has every round."""
    where = report["machine"]
    lines = [
        f"# {where['date']}",
        "",
        f"{where['cpu']}, {where['cores']} cores, Linux {where['kernel']}, Python {where['python']}. "
        f"One worker and two threads where nothing else is said; median of {report['rounds']} interleaved rounds of "
        f"{report['seconds']:g} s{'; server and client on a core each' if report['pinned'] else ''}.",
        *overview(report),
    ]
    for scenario, by_server in report["results"].items():
        shown = [key for key in COLUMNS if any(key in figures for rounds in by_server.values() for figures in rounds)]
        lines += ["", f"## {scenario}", "", about(scenario), ""]
        lines.append("| server | " + " | ".join(COLUMNS[key][0] for key in shown) + " |")
        lines.append("| --- |" + " ---: |" * len(shown))
        for name, rounds in by_server.items():
            cells = []
            for key in shown:
                value = median(rounds, key)
                cells.append("none" if value is None else COLUMNS[key][1].format(value))
            failed = [figures["failed"] for figures in rounds if "failed" in figures]
            label = f"{name} {report['versions'][name]}" + (f" (failed: {failed[0]})" if failed else "")
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


COLOURS = ["#c2410c", "#4b5563", "#0369a1", "#65a30d", "#7c3aed", "#b45309", "#0f766e"]


def plot(report: dict) -> str:
    """Bars of CPU per request, each scenario against its own longest bar."""
    names = list(report["versions"])
    rows: list[str] = []
    y = 10
    for scenario, by_server in report["results"].items():
        costs = {name: median(by_server[name], "cpu_us_per_request") for name in names}
        known = [cost for cost in costs.values() if cost is not None]
        if not known:
            continue
        y += 20
        rows.append(f'<text x="10" y="{y}" font-weight="bold">{escape(about(scenario))}</text>')
        for number, name in enumerate(names):
            cost = costs[name]
            if cost is None:
                continue
            y += 16
            width = max(1.0, 420 * cost / max(known))
            colour = COLOURS[number % len(COLOURS)]
            rows.append(f'<text x="84" y="{y}" text-anchor="end">{escape(name)}</text>')
            rows.append(f'<rect x="90" y="{y - 10}" width="{width:.1f}" height="12" fill="{colour}"/>')
            rows.append(f'<text x="{96 + width:.1f}" y="{y}">{cost:.1f}</text>')
        y += 6
    body = "\n".join(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="600" height="{y + 20}" font-family="sans-serif"'
        f' font-size="11">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="10" y="16" font-size="13">Server CPU per request, µs: shorter is better</text>\n{body}\n</svg>\n'
    )


def write(report: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d-%H%M%S")
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(report))
    stem.with_suffix(".svg").write_text(plot(report))
    print("\n" + markdown(report))
