"""`python -m ferricorn.alias`: the word `gunicorn` starts ferricorn, so that unit files and Procfiles stay as they are.

It puts a `gunicorn` command beside the `ferricorn` command, and makes `import gunicorn` work in every program of this
interpreter (see `_stand_in.py`). Where gunicorn is installed nothing is changed, unless `--over-gunicorn` asks for it.
Once made, the alias holds whatever pip installs later: gunicorn's own command imports gunicorn, and so finds ferricorn.
`--remove` takes everything away; FERRICORN_AS_GUNICORN=0 in the environment of one process passes it over.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.metadata
import os
import site
import stat
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

_MARK = "# Made by python -m ferricorn.alias, which also removes it."
_SCRIPT = """#!{python}
import sys

from ferricorn.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
"""
# One line, as these files want it; silent when ferricorn was uninstalled and this file was left behind.
_TOLERANT = r"try:\n import ferricorn._stand_in as one\nexcept ImportError:\n pass\nelse:\n one.install_alias()"
_IMPORT = f'import sys; exec("{_TOLERANT}")\n'
# They are read by name: after those that say where ferricorn is.
_IMPORT_FILE = "zz_ferricorn_alias.pth"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ferricorn.alias", description=__doc__.partition("\n")[0])
    parser.add_argument("--remove", action="store_true", help="take the command away again")
    over = "also where gunicorn is installed: its command and its modules are ferricorn's from then on"
    parser.add_argument("--over-gunicorn", action="store_true", help=over)
    chosen = parser.parse_args(arguments)
    command = _beside_ours()
    modules = _module_file()
    if chosen.remove:
        return _remove(command, modules)
    is_installed = _is_installed()
    if is_installed and not chosen.over_gunicorn:
        way = "pip uninstall gunicorn, or --over-gunicorn"
        print(f"gunicorn itself is installed here ({way}): nothing was changed.", file=sys.stderr)
        return 1
    # A command of gunicorn's own imports gunicorn, and so finds ours.
    is_theirs = command.exists() and not _is_made_by_us(command)
    if is_theirs and not is_installed:
        print(f"{command} exists already: nothing was changed.", file=sys.stderr)
        return 1
    if not is_theirs:
        _make(command)
    modules.write_text(_IMPORT)
    print(f"{command} starts ferricorn from now on, and `import gunicorn` finds its modules.")
    return 0


def _make(command: Path) -> None:
    ours = command.with_name("ferricorn")
    script = ours.read_text() if ours.exists() else _SCRIPT.format(python=sys.executable)
    command.write_text(f"{script.rstrip()}\n{_MARK}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _remove(command: Path, modules: Path) -> int:
    is_ours = _is_made_by_us(command)
    if not is_ours and not modules.exists():
        print(f"{command} is not there, or not ours: nothing was changed.", file=sys.stderr)
        return 1
    modules.unlink(missing_ok=True)
    if is_ours:
        command.unlink()
        print(f"{command} is removed.")
    else:
        print(f"{command} starts gunicorn again." if command.exists() else f"{modules} is removed.")
    return 0


def _is_installed() -> bool:
    # The finder of folders alone: with the alias in place ours would answer.
    if importlib.machinery.PathFinder.find_spec("gunicorn") is not None:
        return True
    try:
        importlib.metadata.distribution("gunicorn")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _is_made_by_us(command: Path) -> bool:
    return command.exists() and _MARK in command.read_text(errors="replace")


def _beside_ours() -> Path:
    """Where `ferricorn` is, if that belongs to this interpreter, else where its commands go."""
    roots = [Path(root).resolve() for root in (sys.prefix, site.getuserbase())]
    try:
        files = importlib.metadata.distribution("ferricorn").files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        found = Path(os.path.abspath(file.locate()))
        is_command = found.name == "ferricorn" and found.is_file() and os.access(found, os.X_OK)
        if is_command and any(found.resolve().is_relative_to(root) for root in roots):
            return found.with_name("gunicorn")
    return Path(sysconfig.get_path("scripts")) / "gunicorn"


def _module_file() -> Path:
    """Beside the command: a file that each start of the interpreter reads."""
    in_user_base = str(_beside_ours()).startswith(site.getuserbase() + os.sep)
    folder = site.getusersitepackages() if in_user_base else sysconfig.get_path("purelib")
    return Path(folder) / _IMPORT_FILE


if __name__ == "__main__":
    sys.exit(main())
