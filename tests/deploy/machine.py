"""A machine with systemd as its process 1: namespaces over a root that is written to in memory only.

It shares the network, so that clients reach 127.0.0.1, and nothing else: its processes, mounts, units and cgroups are
its own, and gone with it. It needs root, and a cgroup v2 hierarchy, with or without controllers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import program

from harness import PATIENCE_S, REPOSITORY, wait_until

# What is bound into the root at its own path, or at another: the interpreter, this package, what it needs.
PYTHON = Path(os.path.realpath(sys.executable))
BOUND = {
    Path(sys.base_prefix): Path(sys.base_prefix),
    REPOSITORY / "src": Path("/srv/app/package"),
    Path(sysconfig.get_path("purelib")): Path("/srv/app/packages"),
}
# In place of a virtual environment's command: `exec` keeps the process id that systemd has.
COMMAND = f"""#!/bin/sh
PYTHONPATH=/srv/app/package:/srv/app/packages exec {PYTHON} -m MODULE "$@"
"""
COMMANDS = {"ferricorn": "ferricorn", "ferricornc": "ferricorn.ctl"}
# Nothing changes the kernel: /sys and /proc/sys are read-only, and systemd leaves them alone then. tmpfiles would empty
# the copy of /tmp, which helps no test.
MASKED = ("systemd-tmpfiles-setup.service", "systemd-tmpfiles-clean.timer", "systemd-sysctl.service")
BOOT = """set -eu
home=$1 lower=$2 root=$1/top/root
mount --make-rprivate /
mount -t tmpfs tmpfs $home/top
mkdir $home/top/upper $home/top/work $root
mount -t overlay overlay -o lowerdir=$lower,upperdir=$home/top/upper,workdir=$home/top/work $root
mount -t proc -o nosuid,nodev,noexec proc $root/proc
mount --bind $root/proc/sys $root/proc/sys
mount -o remount,bind,ro $root/proc/sys
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs $root/sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 $root/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs $root/dev
for name in null zero full random urandom tty; do : >$root/dev/$name; mount --bind /dev/$name $root/dev/$name; done
mkdir $root/dev/pts $root/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts $root/dev/pts
ln -s pts/ptmx $root/dev/ptmx
ln -s /proc/self/fd $root/dev/fd
mount -t tmpfs tmpfs $root/dev/shm
mount -t tmpfs -o mode=755 tmpfs $root/run
: >$root/etc/fstab
rm -rf $root/var/log/journal $root/srv/app
mkdir -p $root/srv/app/venv/bin $root/old
cp $home/bin/* $root/srv/app/venv/bin
chmod 755 $root/srv/app/venv/bin/*
while read -r from to; do
  mkdir -p $root$to
  mount --bind $from $root$to
  # Another user finds the interpreter, also where its home is root's own.
  while [ "$to" != / ]; do to=$(dirname $to); chmod o+x $root$to; done
done <$home/bound
for unit in $MASKED; do ln -sf /dev/null $root/etc/systemd/system/$unit; done
cd $root
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target \
  </dev/null >/dev/null 2>&1
"""


class Machine:
    def __init__(self, init: int) -> None:
        self.init = init
        self.cursor = ""

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.init}/root")

    def run(self, *line: str, check: bool = True) -> str:
        """What a command prints that is run on the machine."""
        inside = ["nsenter", f"--target={self.init}", "--mount", "--pid", "--cgroup", "--uts", "--ipc", *line]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
        assert not check or done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout if check else f"{done.returncode} {done.stdout}{done.stderr}"

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def systemctl(self, *line: str) -> str:
        return self.run("systemctl", *line)

    def show(self, unit: str, name: str) -> str:
        return self.systemctl("show", "--value", "-p", name, unit).strip()

    def mark_journal(self) -> None:
        self.cursor = self.run("journalctl", "-n", "1", "-q", "--show-cursor").rpartition("-- cursor: ")[2].strip()

    def journal(self, unit: str) -> list[str]:
        """A unit's messages since the mark."""
        after = f"--after-cursor={self.cursor}"
        lines = self.run("journalctl", "-o", "json", "--all", "-q", "-u", unit, after).splitlines()
        return [str(json.loads(line).get("MESSAGE")) for line in lines]

    def pids(self, unit: str) -> set[int]:
        """The processes of a unit, by the ids that they have on the machine."""
        listed = self.run("cat", f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs", check=False)
        code, _, pids = listed.partition(" ")
        return {int(pid) for pid in pids.split()} if code == "0" else set()


def hierarchy() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(where)
    pytest.skip("no cgroup v2 hierarchy that can be written to")


@contextlib.contextmanager
def cgroup() -> Iterator[Path]:
    own = Path(tempfile.mkdtemp(prefix="machine-", dir=hierarchy()))
    try:
        yield own
    finally:

        def removed() -> bool:
            with contextlib.suppress(OSError):
                for folder in sorted((path for path in own.rglob("*") if path.is_dir()), reverse=True):
                    folder.rmdir()
                own.rmdir()
            return not own.exists()

        wait_until(removed, "the machine's processes are gone")


@contextlib.contextmanager
def machine(lower: Path) -> Iterator[Machine]:
    """systemd over `lower`, started up to basic.target."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    program("nsenter")
    if not (lower / "lib/systemd/systemd").exists():
        pytest.skip("systemd is not installed")
    with tempfile.TemporaryDirectory(prefix="machine-") as folder, cgroup() as own:
        home = Path(folder)
        for name in ("top", "bin"):
            (home / name).mkdir()
        for name, module in COMMANDS.items():
            (home / "bin" / name).write_text(COMMAND.replace("MODULE", module))
        (home / "bound").write_text("".join(f"{outside} {inside}\n" for outside, inside in BOUND.items()))
        (home / "boot").write_text(BOOT)
        spaces = ["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child"]
        # It does not outlive the tests, however they end.
        line = [program("setpriv"), "--pdeathsig", "KILL", program("unshare"), *spaces]
        line += ["sh", f"{home}/boot", str(home), str(lower)]
        with (home / "errors").open("w") as errors:
            outer = subprocess.Popen(
                ["sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec "$@"', str(own), *line],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env={**os.environ, "MASKED": " ".join(MASKED)},
                start_new_session=True,
            )
        try:
            yield started(outer, home / "errors")
        finally:
            # Process 1 takes all others with it.
            outer.kill()
            outer.wait()


def started(outer: subprocess.Popen, errors: Path) -> Machine:
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")

    def init() -> int | None:
        assert outer.poll() is None, errors.read_text()
        pids = children.read_text().split()
        return int(pids[0]) if pids and Path(f"/proc/{pids[0]}/comm").read_text() == "systemd\n" else None

    found = Machine(wait_until(init, "systemd is process 1", 60))
    wait_until(
        lambda: found.run("systemctl", "is-active", "basic.target", check=False).startswith("0 "), "basic.target", 60
    )
    return found


def other_release(suite: str) -> Path:
    """A minimal root of another Debian release, made once, with what the interpreter here is linked with."""
    root = REPOSITORY / f"target/roots/systemd-{suite}"
    if (root / ".complete").exists():
        return root
    make = program("mmdebstrap")
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    libraries = "libssl3t64,libffi8,zlib1g,libbz2-1.0,liblzma5,libsqlite3-0,libreadline8t64"
    line = [make, "--quiet", "--variant=essential", f"--include=systemd,{libraries}", f"--keyring={keys}"]
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="machine-", dir=root.parent) as folder:
        fresh = Path(folder) / "root"
        checked = ['--aptopt=Acquire::Check-Valid-Until "false"', suite, str(fresh)]
        made = subprocess.run([*line, *checked], capture_output=True, text=True, timeout=600, check=False)
        if made.returncode != 0:
            pytest.skip(f"no root of {suite}: {made.stderr[-300:]}")
        (fresh / ".complete").touch()
        with contextlib.suppress(OSError):
            # The other of two processes that make it at once may have been first.
            fresh.rename(root)
    return root


def kill(target: Machine, pid: str, number: signal.Signals) -> None:
    target.run("sh", "-c", f"kill -{int(number)} {pid}")
