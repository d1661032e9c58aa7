//! No file uses, by however many steps, a file that uses it: neither within a module nor across modules.
//!
//! What counts as a use: a path or an import that leads to an item another file defines. A parent's `mod child;` and
//! its `pub use child::Item;` are signposts and do not count, so a child may use its parent's items as long as the
//! parent's own code names none of the child's.

use std::collections::{BTreeMap, BTreeSet};

use super::breaches::{Breach, hold};
use super::paths::Paths;
use super::sources::Sources;

/// Which file uses which, and on what line first.
type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, usize>>;

fn graph(sources: &Sources) -> Graph<'_> {
    let paths = Paths::new(sources);
    sources
        .product()
        .map(|source| (source.path.as_str(), paths.uses(source)))
        .collect()
}

fn reachable<'a>(graph: &Graph<'a>, from: &'a str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![from];
    while let Some(file) = ahead.pop() {
        for next in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(*next) {
                ahead.push(next);
            }
        }
    }
    seen
}

/// The strongly connected components of more than one file.
fn circles<'a>(graph: &Graph<'a>) -> BTreeSet<BTreeSet<&'a str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph
        .keys()
        .map(|file| (*file, reachable(graph, file)))
        .collect();
    reached
        .iter()
        .filter(|(file, onward)| onward.contains(*file))
        .map(|(file, onward)| {
            let back = |other: &&&str| reached[**other].contains(file);
            onward.iter().filter(back).copied().collect()
        })
        .collect()
}

/// Each use within a circle.
fn breaches(sources: &Sources) -> Vec<Breach> {
    let graph = graph(sources);
    let mut breaches = Vec::new();
    for circle in circles(&graph) {
        for (file, used, line) in circle.iter().flat_map(|file| {
            let within = graph[file]
                .iter()
                .filter(|(used, _)| circle.contains(*used));
            within.map(move |(used, line)| (file, used, line))
        }) {
            let text = format!(
                "{file}:{line}: uses {used}, in a circle of {} files",
                circle.len()
            );
            breaches.push(Breach::new(format!("{file} {used}"), text));
        }
    }
    breaches
}

#[test]
fn no_file_is_used_by_what_it_uses() {
    hold(&breaches(Sources::read()), &[]);
}

#[test]
fn a_circle_is_seen_and_a_signpost_is_none() {
    let found = |parent: &str, b: &str, c: &str| {
        let sources = Sources::of([
            ("src/a/mod.rs", parent),
            ("src/a/b.rs", b),
            ("src/a/c.rs", c),
        ]);
        breaches(&sources).len()
    };
    let straight = found(
        "mod b; mod c; pub use b::B; pub struct A;",
        "use super::A; use super::c::C; pub struct B(A, C);",
        "pub struct C;",
    );
    assert_eq!(straight, 0);
    let round = found(
        "mod b; mod c;",
        "use super::c::C; struct B;",
        "struct C(super::b::B);",
    );
    assert_eq!(round, 2);
    let parent = found(
        "mod b; mod c; use b::B; pub struct A(B);",
        "use super::A; pub struct B;",
        "",
    );
    assert_eq!(parent, 2);
    let through_reexport = found(
        "mod b; mod c; pub use b::B; pub use c::C;",
        "use super::C; pub struct B;",
        "use crate::a::B; pub struct C;",
    );
    assert_eq!(through_reexport, 2);
    let in_tests = found(
        "mod b; mod c;",
        "use super::c::C;",
        "#[cfg(test)] mod tests { use super::super::b::B; }",
    );
    assert_eq!(in_tests, 0);
}

#[test]
fn a_circle_of_three_files_is_seen_across_modules() {
    let sources = Sources::of([
        ("src/a.rs", "use crate::b::B; pub struct A;"),
        ("src/b.rs", "use crate::c::C; pub struct B;"),
        ("src/c.rs", "use crate::a::A; pub struct C;"),
        ("src/d.rs", "use crate::a::A;"),
    ]);
    assert_eq!(breaches(&sources).len(), 3);
}
