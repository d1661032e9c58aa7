//! How much memory a process may still take: what `ferricornc advise` holds more workers against.
//!
//! The least of what the machine has available and of what each cgroup above the process has left, in both versions.

use std::fs;
use std::path::{Path, PathBuf};

/// In bytes. `None` where there is no `/proc`.
#[must_use]
pub fn memory_left(pid: u32) -> Option<u64> {
    let machine = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let left = left_of_groups(&groups, Path::new("/sys/fs/cgroup"));
    Some(left.map_or(machine, |left| left.min(machine)))
}

fn available(meminfo: &str) -> Option<u64> {
    let kilobytes = number_after(meminfo, "MemAvailable:")?;
    kilobytes.checked_mul(1024)
}

/// The least that a cgroup with a limit has left; `None` where none has one.
fn left_of_groups(groups: &str, mount: &Path) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| hierarchy(line, mount))
        .flat_map(|(files, top, path)| {
            // A container sees its own group as the root of the mount, whatever the path says.
            let folders: Vec<PathBuf> = Path::new(path.trim_start_matches('/'))
                .ancestors()
                .map(|path| top.join(path))
                .collect();
            folders
                .into_iter()
                .filter_map(move |folder| left_of_group(&folder, files))
        })
        .min()
}

/// The names of a version's files: limit, use, and the row of `memory.stat` with the cache that the kernel gives up.
type Files = (&'static str, &'static str, &'static str);

const V1: Files = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
);
const V2: Files = ("memory.max", "memory.current", "inactive_file");

/// A line of `/proc/PID/cgroup`: `ID:CONTROLLERS:PATH`, where version 2 has no controllers.
fn hierarchy<'a>(line: &'a str, mount: &Path) -> Option<(Files, PathBuf, &'a str)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    if controllers.is_empty() {
        return Some((V2, mount.to_owned(), path));
    }
    let is_memory = controllers.split(',').any(|name| name == "memory");
    is_memory.then(|| (V1, mount.join("memory"), path))
}

/// `None` without a limit, which version 2 calls `max`; version 1 has a number beyond any memory.
fn left_of_group(folder: &Path, (limit, used, cache): Files) -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(folder.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let limit = number(limit)?;
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let given_up = number_after(&statistics, cache).unwrap_or(0);
    Some(limit.saturating_sub(number(used)?.saturating_sub(given_up)))
}

/// The number in the line that begins with this word.
fn number_after(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(word)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn group(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
    }

    #[test]
    fn the_tightest_cgroup_above_the_process_decides() {
        let mount = tempfile::tempdir().unwrap();
        let slice = mount.path().join("web.slice");
        let stat = "anon 5\ninactive_file 300\n";
        let limited = [
            ("memory.max", "1000\n"),
            ("memory.current", "900\n"),
            ("memory.stat", stat),
        ];
        group(&slice, &limited);
        group(
            &slice.join("one.service"),
            &[("memory.max", "max\n"), ("memory.current", "7\n")],
        );
        let left = left_of_groups("0::/web.slice/one.service\n", mount.path());
        assert_eq!(left, Some(400));
        group(&slice.join("one.service"), &[("memory.max", "100\n")]);
        assert_eq!(
            left_of_groups("0::/web.slice/one.service\n", mount.path()),
            Some(93)
        );
        assert_eq!(left_of_groups("0::/other\n", mount.path()), None);
    }

    #[test]
    fn a_container_sees_its_group_as_the_root_of_version_1_too() {
        let mount = tempfile::tempdir().unwrap();
        let files = [
            ("memory.limit_in_bytes", "5000\n"),
            ("memory.usage_in_bytes", "6000\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 2500\n"),
        ];
        group(&mount.path().join("memory"), &files);
        let groups = "5:cpu:/x\n4:hugetlb,memory:/docker/0123\n0::/\nnonsense\n";
        assert_eq!(left_of_groups(groups, mount.path()), Some(1500));
    }

    #[test]
    fn this_process_may_take_some() {
        assert!(memory_left(std::process::id()).unwrap() > 0);
        assert_eq!(
            available("MemTotal: 9 kB\nMemAvailable:    2 kB\n"),
            Some(2048)
        );
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
