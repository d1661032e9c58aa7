//! A state changes in one file: a field whose type is an enum is assigned where that enum is defined.
//!
//! The other files call the enum's methods, which name the event. A struct's literal may begin with any state. Three
//! ways to assign are found: `x.field = `, `mem::replace`, `take` or `swap` of `&mut x.field`, and `*x = ` with a variant.
//! Where a field of another struct has the same name and another type, the first two count when they name the enum.

use std::collections::{BTreeMap, BTreeSet};

use super::breaches::{Breach, Excuse, hold};
use super::paths::Paths;
use super::sources::{Source, Sources};
use super::structs::structs;
use super::tokens::Token;

/// Where states are held to this.
const STATEFUL: &[&str] = &["arbiter", "pool", "worker"];

const ASSIGNED_ELSEWHERE: &[Excuse] = &[
    (
        "src/arbiter/supervision.rs Stage",
        "the pure rules name the stages; the worker's handle alone moves one on",
    ),
    (
        "src/pool/job.rs Peer",
        "an address, which is written down when it is known, and no state",
    ),
];

/// An enum: the file that defines it, and its name.
type Enum<'a> = (&'a str, String);

fn texts(tokens: &[Token]) -> Vec<&str> {
    tokens.iter().map(|token| token.text.as_str()).collect()
}

fn stateful(sources: &Sources) -> impl Iterator<Item = &Source> {
    sources
        .product()
        .filter(|source| STATEFUL.contains(&source.top_module()))
}

/// The enums that are the type of a field, with the names of those fields, and whether no other
/// field of that name has another type.
fn state_enums<'a>(
    sources: &'a Sources,
    paths: &Paths<'a>,
) -> BTreeMap<Enum<'a>, BTreeMap<String, bool>> {
    let mut enums = BTreeSet::new();
    for source in stateful(sources) {
        for pair in texts(&source.tokens).windows(2) {
            if pair[0] == "enum" {
                enums.insert((source.path.as_str(), pair[1].to_owned()));
            }
        }
    }
    let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in stateful(sources) {
        for field in structs(&source.tokens).into_iter().flat_map(|s| s.fields) {
            let home = paths.home_of_type(source, &field.kind);
            kinds
                .entry(field.name.clone())
                .or_default()
                .insert(field.kind.clone());
            let key = (home.path.as_str(), field.kind);
            if enums.contains(&key) {
                found.entry(key).or_default().insert(field.name);
            }
        }
    }
    let with_uniqueness = |names: BTreeSet<String>| {
        let with = |name: String| (name.clone(), kinds[&name].len() == 1);
        names.into_iter().map(with).collect()
    };
    found
        .into_iter()
        .map(|(key, names)| (key, with_uniqueness(names)))
        .collect()
}

/// Where `tokens` assign a field of `fields`, or through a reference a variant of `name`.
fn assignments(tokens: &[Token], name: &str, fields: &BTreeMap<String, bool>) -> Vec<usize> {
    let text = texts(tokens);
    let is = |at: usize, wanted: &str| text.get(at) == Some(&wanted);
    let is_assigned = |at: usize| is(at, "=") && !is(at + 1, "=");
    let names_it = |at: usize| {
        let mut rest = text[at..].iter().take_while(|part| **part != ";");
        rest.any(|part| *part == name)
    };
    let is_state = |at: usize| {
        let is_alone = text.get(at).and_then(|field| fields.get(*field));
        is_alone.is_some_and(|is_alone| *is_alone || names_it(at))
    };
    (0..text.len())
        .filter(|&at| match text[at] {
            "." => is_assigned(at + 2) && is_state(at + 1),
            "replace" | "take" | "swap" if is(at + 2, "&") && is(at + 3, "mut") => {
                let end = (at + 4..text.len()).find(|&end| matches!(text[end], "," | ")"));
                end.is_some_and(|end| is(end - 2, ".") && is_state(end - 1))
            }
            "*" => is_assigned(at + 2) && names_it(at + 3),
            _ => false,
        })
        .map(|at| tokens[at].line)
        .collect()
}

fn breaches(sources: &Sources) -> Vec<Breach> {
    let paths = Paths::new(sources);
    let mut breaches = Vec::new();
    for ((home, name), fields) in state_enums(sources, &paths) {
        for source in stateful(sources) {
            let names_it = texts(&source.tokens).contains(&name.as_str());
            if source.path == home || !names_it || paths.home_of_type(source, &name).path != home {
                continue;
            }
            for line in assignments(&source.tokens, &name, &fields) {
                breaches.push(Breach::new(
                    format!("{home} {name}"),
                    format!(
                        "{}:{line}: assigns a `{name}`, which only {home} does",
                        source.path
                    ),
                ));
            }
        }
    }
    breaches
}

#[test]
fn a_state_is_assigned_in_the_file_of_its_enum() {
    hold(&breaches(Sources::read()), ASSIGNED_ELSEWHERE);
}

#[test]
fn an_assignment_elsewhere_fails_and_a_call_or_a_literal_passes() {
    let found = |function: &str| {
        let sources = Sources::of([
            ("src/worker/mod.rs", "mod a; mod b; mod c;".to_owned()),
            (
                "src/worker/a.rs",
                "pub enum E { X, Y } impl E { pub fn f(&mut self) { *self = Self::Y } }".to_owned(),
            ),
            (
                "src/worker/b.rs",
                "use super::a::E; pub struct S { pub e: E }".to_owned(),
            ),
            (
                "src/worker/c.rs",
                format!("use super::a::E; use super::b::S; {function}"),
            ),
        ]);
        breaches(&sources).len()
    };
    assert_eq!(found("fn g(s: &mut S) { s.e = E::X; }"), 1);
    assert_eq!(
        found("fn g(s: &mut S) { mem::replace(&mut s.e, E::X); }"),
        1
    );
    assert_eq!(found("fn g(s: &mut E) { *s = match *s { _ => E::X }; }"), 1);
    assert_eq!(found("fn g(s: &mut S) { s.e.f(); }"), 0);
    assert_eq!(found("fn g() -> S { S { e: E::X } }"), 0);
    assert_eq!(found("fn g(s: &S) -> bool { s.e == E::X }"), 0);
}
