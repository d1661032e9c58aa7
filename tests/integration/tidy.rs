//! Repository law, read from the files: who may import whom, where `unsafe` may stand, how long a file may be.
//!
//! A failing test lists every breach as `file:line: what`, so one run is enough to mend them all.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room of `src/`, the rooms it may use, and the external crates it may see. `std` is open to all, `log` too.
struct Room {
    name: &'static str,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
    /// Paths that would bring I/O, time or threads into a pure room.
    banned: &'static [&'static str],
}

const IMPURE: &[&str] = &[
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime::now",
];

/// The table of CONTRIBUTING.md, "Who may import whom".
const ROOMS: &[Room] = &[
    Room {
        name: "http",
        rooms: &[],
        crates: &["httparse", "memchr", "itoa", "thiserror"],
        banned: IMPURE,
    },
    Room {
        name: "config",
        rooms: &[],
        // nix for the names of users and groups.
        crates: &["clap", "nix", "thiserror"],
        banned: &["std::net::Tcp", "std::thread", "Instant::now"],
    },
    Room {
        name: "net",
        rooms: &["config"],
        // libc's numbers only, as nix re-exports them: for an option that nix does not name.
        crates: &["libc", "nix", "thiserror"],
        banned: &["Instant::now"],
    },
    Room {
        name: "scoreboard",
        rooms: &[],
        crates: &["nix"],
        banned: &["std::thread", "Instant::now"],
    },
    Room {
        name: "logging",
        rooms: &["config", "http"],
        crates: &["chrono", "itoa", "nix", "thiserror"],
        banned: &[],
    },
    Room {
        name: "pool",
        rooms: &["http", "scoreboard"],
        // nix to ask how often a thread has waited.
        crates: &["crossbeam", "loom", "memchr", "nix", "thiserror"],
        banned: &["std::net::Tcp", "std::net::Udp"],
    },
    Room {
        name: "worker",
        rooms: &["config", "http", "logging", "net", "pool", "scoreboard"],
        crates: &[
            "crossbeam",
            "itoa",
            "memchr",
            "mio",
            "nix",
            "rustix",
            "slab",
            "tempfile",
            "thiserror",
        ],
        banned: &[],
    },
    Room {
        name: "control",
        rooms: &["config", "net", "scoreboard"],
        crates: &["nix", "serde_json", "thiserror"],
        banned: &["std::thread", "Instant::now"],
    },
    Room {
        name: "reloader",
        rooms: &["config"],
        crates: &["nix"],
        banned: &["std::thread"],
    },
    Room {
        name: "arbiter",
        // http for the answers of `admin_bind`.
        rooms: &["config", "control", "http", "net", "scoreboard"],
        crates: &["nix", "serde_json", "thiserror"],
        banned: &["std::thread::spawn", "thread::Builder"],
    },
    Room {
        name: "python",
        rooms: &["config", "http", "pool", "scoreboard"],
        crates: &["crossbeam", "itoa", "memchr", "pyo3", "thiserror"],
        banned: &["std::net::Tcp"],
    },
    // These two join the parts.
    Room {
        name: "launcher",
        rooms: &[
            "arbiter",
            "config",
            "http",
            "logging",
            "net",
            "pool",
            "python",
            "reloader",
            "scoreboard",
            "worker",
        ],
        crates: &["nix", "pyo3", "thiserror"],
        banned: &[],
    },
    Room {
        name: "lib",
        rooms: &["config", "launcher", "python"],
        crates: &["pyo3"],
        banned: &[],
    },
];

/// Every dependency of Cargo.toml, so that a name in a path can be told from a module of ours.
const CRATES: &[&str] = &[
    "chrono",
    "clap",
    "crossbeam",
    "httparse",
    "itoa",
    "libc",
    "loom",
    "memchr",
    "mio",
    "nix",
    "pyo3",
    "rustix",
    "serde_json",
    "slab",
    "tempfile",
    "thiserror",
];

/// Single files that may see one thing more than their room, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    // (file, what it may use, why)
    (
        "src/config/host.rs",
        "nix",
        "users and groups are checked by asking the system for them",
    ),
    (
        "src/python/serve.rs",
        "worker",
        "joins pool, loop and application in the child, on behalf of the launcher",
    ),
    (
        "src/python/serve.rs",
        "arbiter",
        "takes the seat that the arbiter hands to a new worker",
    ),
    (
        "src/python/serve.rs",
        "logging",
        "opens the worker's access log",
    ),
    (
        "src/python/serve.rs",
        "nix",
        "the wake-up pipe of Python's signal handlers",
    ),
];

/// The only places where `unsafe` may stand; each opens with the lint lifted and says why.
const UNSAFE_ALLOWED: &[&str] = &[
    "src/scoreboard.rs",
    "src/arbiter/fork.rs",
    "src/arbiter/signals.rs",
    "src/net/backlog.rs",
    "src/net/inherit.rs",
    "src/net/channel.rs",
    "src/python/",
];

const CODE_LINES_MAX: usize = 400;
/// Files that may be longer, each with its reason. Empty is the aim.
const LONG_FILES: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` with one of `extensions`, relative to the root, sorted.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    const SKIPPED: &[&str] = &[
        "target",
        ".git",
        ".venv",
        "__pycache__",
        ".pytest_cache",
        ".ruff_cache",
    ];
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|e| extensions.iter().any(|wanted| e == *wanted))
            {
                found.push(path.strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn is_test_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
        || path.iter().any(|part| part == "tests")
}

/// A line without its comment. String literals are kept: no rule below can be broken inside one by accident
/// without looking strange to a reader too.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

/// The lines of a file that are not tests: everything before the first `#[cfg(test)] mod`.
fn code_lines(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let tests_start = (0..lines.len()).find(|&at| {
        let following = lines[at + 1..]
            .iter()
            .map(|line| line.trim())
            .find(|line| !line.starts_with("#["));
        lines[at].trim() == "#[cfg(test)]"
            && following.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    lines[..tests_start.unwrap_or(lines.len())].to_vec()
}

/// `src/http/head.rs` belongs to "http", `src/launcher.rs` to "launcher".
fn room_of(path: &Path) -> String {
    let part = path.iter().nth(1).unwrap().to_string_lossy().into_owned();
    part.trim_end_matches(".rs").to_owned()
}

fn is_word_at(line: &str, at: usize, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    !line[..at].ends_with(is_name) && !line[at + word.len()..].starts_with(is_name)
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| is_word_at(line, at, word))
}

/// Rooms named by `crate::room` on this line, also inside `crate::{a::.., b::..}` on one line.
fn rooms_used(line: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, prefix) in line.match_indices("crate::") {
        if !is_word_at(line, at, "crate") {
            continue;
        }
        let rest = &line[at + prefix.len()..];
        let heads: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group
                .split('}')
                .next()
                .unwrap_or("")
                .split(',')
                .map(str::trim)
                .collect(),
            None => vec![rest],
        };
        for head in heads {
            let name: String = head
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            used.insert(name);
        }
    }
    used
}

/// External crates named by `name::` on this line.
fn crates_used(line: &str) -> impl Iterator<Item = &'static str> {
    CRATES.iter().copied().filter(move |name| {
        let path = format!("{name}::");
        line.match_indices(&path).any(|(at, _)| {
            let before = &line[..at];
            // `::name::` and `crate::x::name::` are paths of something else.
            is_word_at(line, at, name) && !before.ends_with("::")
        })
    })
}

fn is_excepted(path: &Path, what: &str) -> bool {
    EXCEPTIONS
        .iter()
        .any(|(file, allowed, _)| path == Path::new(file) && *allowed == what)
}

fn breaches_of_imports(path: &Path, text: &str) -> Vec<String> {
    let name = room_of(path);
    let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
        return vec![format!(
            "{}: a room that the table in tests/integration/tidy.rs does not know",
            path.display()
        )];
    };
    let mut breaches = Vec::new();
    for (number, line) in code_lines(text).into_iter().enumerate() {
        let line = code_of(line);
        let mut report = |what: &str| {
            if !is_excepted(path, what) {
                breaches.push(format!(
                    "{}:{}: {name} must not see {what}",
                    path.display(),
                    number + 1
                ));
            }
        };
        for used in rooms_used(line) {
            let is_room = ROOMS.iter().any(|room| room.name == used);
            if is_room && used != name && !room.rooms.contains(&used.as_str()) {
                report(&used);
            }
        }
        for used in crates_used(line) {
            if !room.crates.contains(&used) {
                report(used);
            }
        }
        for banned in room.banned.iter().filter(|banned| line.contains(**banned)) {
            report(banned);
        }
    }
    breaches
}

fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is() {
    let mut breaches = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for path in files(folder, &["rs"]) {
            // Module files of tests may carry attributes only after the sentence, never before it.
            if !read(&path).starts_with("//! ") {
                breaches.push(format!(
                    "{}:1: the first line is not a `//!` sentence",
                    path.display()
                ));
            }
        }
    }
    assert_none(&breaches);
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let sources = files("src", &["rs"]);
    assert!(sources.len() >= 11, "the sources were not found");
    let breaches: Vec<String> = sources
        .iter()
        .filter(|path| !is_test_file(path))
        .flat_map(|path| breaches_of_imports(path, &read(path)))
        .collect();
    assert_none(&breaches);
}

#[test]
fn unsafe_stands_only_where_it_is_audited() {
    let mut breaches = Vec::new();
    for path in files("src", &["rs"]) {
        let shown = path.to_string_lossy().into_owned();
        let is_allowed = UNSAFE_ALLOWED
            .iter()
            .any(|allowed| shown.starts_with(allowed));
        let text = read(&path);
        let mut is_used = false;
        for (number, line) in text.lines().enumerate() {
            if has_word(code_of(line), "unsafe") {
                is_used = true;
                if !is_allowed {
                    breaches.push(format!(
                        "{shown}:{}: unsafe outside the audited files",
                        number + 1
                    ));
                }
            }
        }
        if is_used && !text.contains("unsafe_code") {
            breaches.push(format!(
                "{shown}:1: uses unsafe without lifting `unsafe_code` with a reason"
            ));
        }
    }
    assert_none(&breaches);
}

#[test]
fn files_stay_short() {
    let mut breaches = Vec::new();
    for path in files("src", &["rs"])
        .into_iter()
        .chain(files("benches", &["rs", "py"]))
    {
        let lines = code_lines(&read(&path)).len();
        let is_listed = LONG_FILES.iter().any(|(file, _)| path == Path::new(file));
        if lines > CODE_LINES_MAX && !is_test_file(&path) && !is_listed {
            breaches.push(format!(
                "{}: {lines} lines of code, {CODE_LINES_MAX} are allowed",
                path.display()
            ));
        }
    }
    assert_none(&breaches);
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    // Assembled, so that this file does not accuse itself.
    let homes: Vec<String> = ["root", "home", "Users", "work"]
        .iter()
        .map(|name| format!("/{name}/"))
        .collect();
    let mut breaches = Vec::new();
    let mut all = vec![
        PathBuf::from("Makefile"),
        PathBuf::from(".ci/run"),
        PathBuf::from("Cargo.toml"),
    ];
    for folder in ["src", "tests", "benches", "examples"] {
        all.extend(files(
            folder,
            &["rs", "py", "pyi", "toml", "md", "txt", "html"],
        ));
    }
    all.extend(fs::read_dir(root()).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let is_document = path.extension().is_some_and(|e| e == "md" || e == "toml");
        is_document.then(|| path.strip_prefix(root()).unwrap().to_path_buf())
    }));
    for path in all.into_iter().filter(|path| root().join(path).exists()) {
        for (number, line) in read(&path).lines().enumerate() {
            for home in homes.iter().filter(|home| {
                line.match_indices(home.as_str()).any(|(at, _)| {
                    // The start of a path, not a piece of one: `a/work/b` and `x.test/home/` are no business of ours.
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || ".-_~}/".contains(c))
                })
            }) {
                breaches.push(format!(
                    "{}:{}: {home} exists on one machine only",
                    path.display(),
                    number + 1
                ));
            }
        }
    }
    assert_none(&breaches);
}

#[test]
fn dependencies_are_known_to_the_table() {
    let manifest = read(Path::new("Cargo.toml"));
    let section = manifest
        .split("[dependencies]")
        .nth(1)
        .and_then(|rest| rest.split("\n[").next())
        .unwrap_or("");
    let mut breaches = Vec::new();
    for line in section.lines().filter(|line| line.contains('=')) {
        let name = line
            .split(['=', '.'])
            .next()
            .unwrap_or("")
            .trim()
            .replace('-', "_");
        // `log` is the facade that anyone may speak to.
        if name != "log" && !CRATES.contains(&name.as_str()) {
            breaches.push(format!(
                "Cargo.toml: `{name}` is missing in tests/integration/tidy.rs, CRATES and ROOMS"
            ));
        }
    }
    assert_none(&breaches);
}

#[test]
fn the_reader_of_imports_reads_what_is_written() {
    let used = |line: &str| rooms_used(line).into_iter().collect::<Vec<_>>();
    assert_eq!(used("use crate::http::Exchange;"), ["http"]);
    assert_eq!(
        used("use crate::{config::Config, net::Listener};"),
        ["config", "net"]
    );
    assert_eq!(used("let x = mycrate::http::y();"), Vec::<String>::new());
    assert_eq!(
        crates_used("use mio::net::TcpStream;").collect::<Vec<_>>(),
        ["mio"]
    );
    assert_eq!(crates_used("crate::net::mio::x").count(), 0);
    assert!(has_word("unsafe { x }", "unsafe"));
    assert!(!has_word("#![deny(unsafe_code)]", "unsafe"));
    assert_eq!(code_lines("a\n#[cfg(test)]\nmod tests {\nb\n}").len(), 1);
    assert_eq!(code_lines("a\n#[cfg(test)]\nmod tests;\nb").len(), 4);
}
