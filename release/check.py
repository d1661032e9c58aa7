"""What a release must fulfil: `python release/check.py wheels|sdist|changelog|version`, one finding per line.

`make wheels`, `make sdist`, `make changelog` and `make release` run these; each exits with 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
# A tag per target; the compatibility that `make wheels` asks maturin for.
TAGS = {
    "x86_64-unknown-linux-gnu": "manylinux_2_17_x86_64",
    "aarch64-unknown-linux-gnu": "manylinux_2_17_aarch64",
    "x86_64-unknown-linux-musl": "musllinux_1_2_x86_64",
    "aarch64-unknown-linux-musl": "musllinux_1_2_aarch64",
}
# A pip that installs for the first time downloads this much. The TLS library is more than half of it: ring, the smaller
# one, comes to 2.6 MB and has no post-quantum key exchange.
WHEEL_BYTES_MAX = 3_500_000
PAGE = 4096
# What zig's musl has and the one of the tag has not.
AFTER_MUSL_1_2_0 = {"_Fork", "gettid", "reallocarray", "qsort_r", "preadv2", "pwritev2", "statx"}
# In the repository and not in the source archive; Cargo.toml's `exclude` has the same.
NOT_IN_SDIST = (".ci/", ".github/", ".gitignore")
WHEEL_NEEDS = ("ferricorn/py.typed", "ferricorn/_core.pyi", "ferricorn/_stand_in.py", "ferricorn/alias.py")


def wheels(folder: Path, targets: list[str], pythons: list[str]) -> Iterator[str]:
    """Findings on the wheels of a folder."""
    for target in targets:
        for python in pythons:
            abi = "cp" + python.replace(".", "")
            found = list(folder.glob(f"ferricorn-{_version()}-{abi.rstrip('t')}-{abi}-*{TAGS[target]}*.whl"))
            if len(found) != 1:
                yield f"{len(found)} wheels for CPython {python} on {target} in {folder}, not 1"
    for wheel in sorted(folder.glob("*.whl")):
        size = wheel.stat().st_size
        print(f"{size:>9,} {wheel.name}")
        if size > WHEEL_BYTES_MAX:
            yield f"{wheel.name}: {size:,} bytes, more than {WHEEL_BYTES_MAX:,}"
        yield from (f"{wheel.name}: {finding}" for finding in _contents(wheel))
        audit = _audit_musl if "musllinux" in wheel.name else _audit
        yield from (f"{wheel.name}: {finding}" for finding in audit(wheel))


def _contents(wheel: Path) -> Iterator[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        strangers = [name for name in names if not re.match(r"ferricorn(-[^/]+\.dist-info)?/", name)]
        if strangers:
            yield f"has {strangers[:3]}"
        yield from (f"lacks {name}" for name in WHEEL_NEEDS if name not in names)
        modules = [name for name in names if name.endswith(".so")]
        if len(modules) != 1:
            yield f"{len(modules)} shared objects, not 1"
        for module in modules:
            yield from _segments(archive.open(module))
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    # On an index a relative link leads nowhere.
    for link in re.findall(r"\]\(([^)]*)\)", metadata):
        if not re.match(r"https?://|#", link):
            yield f"the page for the index has the relative link {link}"


def _segments(module: IO[bytes]) -> Iterator[str]:
    """pyproject.toml's option for the linker arrived: profilers find the unwind tables."""
    from elftools.elf.elffile import ELFFile

    segments = [segment.header for segment in ELFFile(module).iter_segments("PT_LOAD")]
    for one, next_one in pairwise(segments):
        if next_one.p_offset // PAGE <= (one.p_offset + one.p_filesz - 1) // PAGE:
            yield f"segments share the page of the file at {next_one.p_offset:#x}"


def _audit(wheel: Path) -> Iterator[str]:
    tool = Path(sys.executable).with_name("auditwheel")
    done = subprocess.run([tool, "show", wheel], capture_output=True, text=True, check=False)
    wanted = next((tag for tag in TAGS.values() if tag in wheel.name), "a tag of a release")
    consistent = " ".join(done.stdout.split())
    if f'platform tag: "{wanted}"' not in consistent:
        yield f"auditwheel does not find it consistent with {wanted}: {consistent or done.stderr.strip()}"


def _audit_musl(wheel: Path) -> Iterator[str]:
    """auditwheel asks for the name that Alpine's own builds have for the library; musl's loader answers to both."""
    from elftools.elf.elffile import ELFFile

    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".so"))
        module = ELFFile(archive.open(name))
        needed = [tag.needed for tag in module.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
        if needed != ["libc.so"]:
            yield f"needs {needed}, not libc.so alone"
        for symbol in module.get_section_by_name(".dynsym").iter_symbols():
            is_needed = symbol["st_shndx"] == "SHN_UNDEF" and symbol["st_info"]["bind"] == "STB_GLOBAL"
            if is_needed and symbol.name in AFTER_MUSL_1_2_0:
                yield f"calls {symbol.name}, which musl 1.2.0 does not have"


def sdist(archive: Path) -> Iterator[str]:
    """Findings on the source archive: the repository's files without those of `NOT_IN_SDIST`, and nothing else."""
    with tarfile.open(archive) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    wanted = {name for name in tracked if not name.startswith(NOT_IN_SDIST)}
    yield from (f"{archive.name} lacks {name}" for name in sorted(wanted - packed))
    yield from (f"{archive.name} has {name}" for name in sorted(packed - wanted - {"PKG-INFO"}))


def changelog(base: str) -> Iterator[str]:
    """A change of what users run has a line in the changelog, or a commit says `Changelog: none`."""
    changed = _git("diff", "--name-only", f"{base}...HEAD").splitlines()
    is_visible = any(name.startswith("src/") and not name.endswith("tests.rs") for name in changed)
    messages = _git("log", "--format=%B", f"{base}..HEAD")
    if is_visible and "CHANGELOG.md" not in changed and not re.search(r"(?m)^Changelog: none$", messages):
        yield f"src/ has changed since {base}, CHANGELOG.md has not, and no commit says `Changelog: none`"


def version(wanted: str) -> Iterator[str]:
    """What stands between this commit and the tag of a version."""
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", wanted):
        yield f"VERSION={wanted} is not a version: 1.2.3 or 1.2.3rc1"
    if _version() != wanted:
        yield f"Cargo.toml has version {_version()}, not {wanted}"
    lock = re.search(r'name = "ferricorn"\nversion = "([^"]+)"', (ROOT / "Cargo.lock").read_text())
    if lock is None or lock[1] != wanted:
        yield f"Cargo.lock has not version {wanted}: cargo check"
    sections = re.split(r"(?m)^## ", (ROOT / "CHANGELOG.md").read_text())[1:]
    titled = {section.partition("\n")[0].split(" ")[0]: section.partition("\n")[2].strip() for section in sections}
    if not titled.get(wanted):
        yield f"CHANGELOG.md has no section {wanted}, or an empty one"
    if titled.get("Unreleased"):
        yield "CHANGELOG.md has entries under Unreleased"
    reserved = re.findall(r"[\w.@]*example\.org[\w/.]*", (ROOT / "pyproject.toml").read_text())
    if reserved:
        yield f"pyproject.toml has reserved addresses: {', '.join(reserved)}"
    if _git("status", "--porcelain"):
        yield "the work tree has changes that are not committed"
    if _git("tag", "--list", f"v{wanted}"):
        yield f"the tag v{wanted} exists"


def _version() -> str:
    found = re.search(r'(?m)^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text())
    assert found, "Cargo.toml has a version"
    return found[1]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_wheels = kinds.add_parser("wheels")
    of_wheels.add_argument("folder", type=Path)
    of_wheels.add_argument("--targets", nargs="*", default=[], choices=TAGS)
    of_wheels.add_argument("--pythons", nargs="*", default=[])
    kinds.add_parser("sdist").add_argument("archive", type=Path)
    kinds.add_parser("changelog").add_argument("base")
    kinds.add_parser("version").add_argument("wanted")
    chosen = parser.parse_args()
    if chosen.kind != "wheels" and shutil.which("git") is None:
        parser.error("git is needed")
    if chosen.kind == "wheels":
        findings = list(wheels(chosen.folder, chosen.targets, chosen.pythons))
    elif chosen.kind == "sdist":
        findings = list(sdist(chosen.archive))
    elif chosen.kind == "changelog":
        findings = list(changelog(chosen.base))
    else:
        findings = list(version(chosen.wanted))
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
