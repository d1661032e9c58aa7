//! CONTRIBUTING.md's code map is the law: what a module may use is what its row says, no more and no less.
//!
//! The third column names modules in backticks and crates without. `std` and `log` are open to all. The fourth column
//! names kinds of things that the module never touches.

use std::collections::{BTreeMap, BTreeSet};

use super::breaches::{Breach, Excuse, hold};
use super::paths::{self, Paths};
use super::sources::{Source, Sources, text_of};

/// What the fourth column's words forbid, as the starts of paths.
const KINDS: &[(&str, &[&str])] = &[
    (
        "I/O",
        &[
            "std::net::Tcp",
            "std::net::Udp",
            "std::fs",
            "std::process",
            "std::os",
        ],
    ),
    ("network", &["std::net::Tcp", "std::net::Udp"]),
    ("clock", &["Instant::now", "SystemTime::now"]),
    (
        "threads",
        &[
            "std::thread::spawn",
            "std::thread::Builder",
            "thread::spawn",
            "thread::Builder",
        ],
    ),
];

/// Single files that use what their module may not.
const EXCEPTIONS: &[Excuse] = &[];

/// Every dependency but `log`, the facade that all may speak to.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or("");
    section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .filter(|name| name != "log")
        .collect()
}

/// A row of the code map.
#[derive(Debug, Default)]
struct Row {
    allowed: BTreeSet<String>,
    forbidden: Vec<&'static str>,
}

fn rows(page: &str) -> BTreeMap<String, Row> {
    let table = page.split("\n## Code map\n").nth(1).unwrap_or("");
    let mut rows = BTreeMap::new();
    for line in table.lines().take_while(|line| !line.starts_with("### ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &["", name, _, allowed, never, ""] = cells.as_slice() else {
            continue;
        };
        if !name.starts_with('`') {
            continue;
        }
        let names = |cell: &str| {
            let parts = cell
                .split(',')
                .map(|part| part.trim().trim_matches('`').to_owned());
            parts.filter(|part| !part.is_empty()).collect::<Vec<_>>()
        };
        let kinds = names(never);
        let forbidden = kinds.iter().flat_map(|kind| {
            let found = KINDS.iter().find(|(name, _)| name == kind);
            found
                .unwrap_or_else(|| panic!("the code map's `{kind}` is not among {KINDS:?}"))
                .1
        });
        let row = Row {
            forbidden: forbidden.copied().collect(),
            allowed: names(allowed).into_iter().collect(),
        };
        let name = name
            .trim_matches('`')
            .trim_end_matches('/')
            .trim_end_matches(".rs");
        rows.insert(name.to_owned(), row);
    }
    rows
}

/// A file's use of another module, of a crate or of a forbidden path.
struct Use {
    what: String,
    line: usize,
    is_forbidden: bool,
}

fn breaches(sources: &Sources, page: &str, crates: &BTreeSet<String>) -> Vec<Breach> {
    let rows = rows(page);
    let paths = Paths::new(sources);
    let mut breaches = Vec::new();
    let mut needed: BTreeSet<(String, String)> = BTreeSet::new();
    for source in sources.product() {
        let name = source.top_module();
        let Some(row) = rows.get(name) else {
            let text = format!(
                "{}: CONTRIBUTING.md's code map has no row for `{name}`",
                source.path
            );
            breaches.push(Breach::new(name, text));
            continue;
        };
        for used in uses(source, &paths, row, crates) {
            if used.is_forbidden || !row.allowed.contains(&used.what) {
                breaches.push(Breach::new(
                    format!("{} {}", source.path, used.what),
                    format!(
                        "{}:{}: uses {}, which CONTRIBUTING.md's code map does not allow `{name}`",
                        source.path, used.line, used.what
                    ),
                ));
            }
            needed.insert((name.to_owned(), used.what));
        }
    }
    for (name, row) in &rows {
        if !sources.product().any(|source| source.top_module() == name) {
            let text = format!("CONTRIBUTING.md: the code map's `{name}` does not exist");
            breaches.push(Breach::new(name.as_str(), text));
        }
        for allowed in &row.allowed {
            if !needed.contains(&(name.clone(), allowed.clone())) {
                let text = format!(
                    "CONTRIBUTING.md: `{name}` may use {allowed} and does not; delete it from the code map"
                );
                breaches.push(Breach::new(format!("{name} {allowed}"), text));
            }
        }
    }
    breaches
}

fn uses(source: &Source, paths: &Paths<'_>, row: &Row, crates: &BTreeSet<String>) -> Vec<Use> {
    let mut uses = Vec::new();
    let own = source.top_module();
    for path in paths::written(&source.tokens) {
        let line = path.line;
        let mut report = |what: &str, is_forbidden| {
            uses.push(Use {
                what: what.to_owned(),
                line,
                is_forbidden,
            });
        };
        let text = path.segments.join("::");
        for start in row
            .forbidden
            .iter()
            .filter(|start| text.starts_with(**start))
        {
            report(start, true);
        }
        if let Some(absolute) = paths.absolute(source, &path.segments) {
            if let Some(module) = absolute
                .first()
                .filter(|module| paths.is_top_module(module))
            {
                if module != own {
                    report(module, false);
                }
            }
        } else if crates.contains(&path.segments[0]) {
            report(&path.segments[0], false);
        }
    }
    uses
}

#[test]
fn modules_use_exactly_what_the_code_map_allows() {
    let found = breaches(
        Sources::read(),
        &text_of("CONTRIBUTING.md"),
        &dependencies(&text_of("Cargo.toml")),
    );
    hold(&found, EXCEPTIONS);
}

#[test]
fn crates_of_the_code_map_are_dependencies() {
    let crates = dependencies(&text_of("Cargo.toml"));
    assert!(crates.len() > 10, "the dependencies were not found");
    let sources = Sources::read();
    let mut breaches = Vec::new();
    for (name, row) in rows(&text_of("CONTRIBUTING.md")) {
        for allowed in row.allowed {
            let is_module = sources
                .product()
                .any(|source| source.top_module() == allowed);
            if !is_module && !crates.contains(&allowed) {
                let text = format!(
                    "CONTRIBUTING.md: `{name}` may use {allowed}, neither a module nor a dependency"
                );
                breaches.push(Breach::new(allowed, text));
            }
        }
    }
    hold(&breaches, &[]);
}

#[cfg(test)]
const SMALL_MAP: &str = "
## Code map

| module | what it is | may use | never |
| --- | --- | --- | --- |
| `a/` | first | `b`, mio | clock |
| `b.rs` | second | | I/O |

### A walk
| `c/` | no row of the map | nix | |
";

#[cfg(test)]
fn found(a: &str, b: &str) -> Vec<String> {
    let sources = Sources::of([("src/a/mod.rs", a), ("src/b.rs", b)]);
    let crates = ["mio", "nix"].map(str::to_owned).into();
    let mut found: Vec<String> = breaches(&sources, SMALL_MAP, &crates)
        .into_iter()
        .map(|breach| breach.subject)
        .collect();
    found.sort();
    found
}

#[test]
fn what_the_map_allows_passes() {
    assert_eq!(
        found("use crate::b::B; use mio::Poll;", "use std::fmt;"),
        Vec::<String>::new()
    );
}

#[test]
fn an_import_that_the_map_does_not_allow_fails() {
    assert_eq!(
        found(
            "use crate::b::B; use mio::Poll;",
            "fn f() { crate::a::x(); nix::y(); }"
        ),
        ["src/b.rs a", "src/b.rs nix"]
    );
}

#[test]
fn what_a_module_never_touches_fails() {
    assert_eq!(
        found(
            "use crate::b::B; use mio::Poll; fn f() { Instant::now(); }",
            "use std::{fs::File};"
        ),
        ["src/a/mod.rs Instant::now", "src/b.rs std::fs"]
    );
}

#[test]
fn a_permission_that_nothing_uses_fails() {
    assert_eq!(
        found("use crate::b::B;", "#[cfg(test)] use crate::a::A;"),
        ["a mio"]
    );
}

#[test]
fn a_module_without_a_row_and_a_row_without_a_module_fail() {
    let sources = Sources::of([("src/d.rs", "")]);
    let found = breaches(&sources, SMALL_MAP, &BTreeSet::new());
    let subjects: Vec<&str> = found.iter().map(|breach| breach.subject.as_str()).collect();
    assert_eq!(subjects[0], "d");
    assert!(subjects.contains(&"a") && subjects.contains(&"b"));
}
