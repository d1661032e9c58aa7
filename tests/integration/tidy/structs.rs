//! A struct is read in one place: its methods stand in few files, its fields are its file's, its states are enums.

use std::collections::{BTreeMap, BTreeSet};

use super::breaches::{Breach, Excuse, hold};
use super::paths::Paths;
use super::sources::{Source, Sources};
use super::tokens::{self, Token};

/// Files that may hold inherent methods of one struct.
const IMPL_FILES_MAX: usize = 3;
/// Booleans in a struct that has states: with more of them most combinations mean nothing.
const BOOLS_MAX: usize = 3;
/// Where structs have states.
const STATEFUL: &[&str] = &["http", "pool", "worker"];

const MANY_BOOLS: &[Excuse] = &[
    (
        "src/http/limits.rs Rules",
        "settings: each is a leniency that the operator may switch on alone",
    ),
    (
        "src/pool/policy.rs LoopView",
        "facts for one decision, read at one moment and thrown away",
    ),
];
const VISIBLE_FIELDS: &[Excuse] = &[
    (
        "src/arbiter/control_channel.rs WorkerChannel",
        "the worker's ends of its control channel, taken out one by one by the worker",
    ),
    (
        "src/arbiter/exit_report.rs RequestCounters",
        "three sums without a relation to each other",
    ),
    (
        "src/arbiter/fork_server/context.rs ForkServerContext",
        "what a fork server was given: two shared pointers that it never replaces",
    ),
    (
        "src/pool/job.rs Job",
        "a message: the loop fills it, a thread takes it apart, and no one else has it meanwhile",
    ),
    (
        "src/scoreboard/histogram.rs HistogramSnapshot",
        "a copy of numbers; sums of copies are all that changes",
    ),
];

/// A struct with named fields.
#[derive(Debug)]
pub(super) struct Struct {
    pub(super) name: String,
    line: usize,
    pub(super) fields: Vec<Field>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    line: usize,
    is_visible: bool,
    pub(super) kind: String,
}

pub(super) fn structs(tokens: &[Token]) -> Vec<Struct> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        if tokens[at].text != "struct" {
            continue;
        }
        let Some(name) = tokens.get(at + 1) else {
            continue;
        };
        let mut body = at + 2;
        while let Some(token) = tokens.get(body) {
            match token.text.as_str() {
                "<" => body = tokens::behind_angles(tokens, body),
                "{" | ";" | "(" => break,
                _ => body += 1,
            }
        }
        if let Some(close) = tokens
            .get(body)
            .filter(|token| token.text == "{")
            .and_then(|token| token.close)
        {
            found.push(Struct {
                name: name.text.clone(),
                line: name.line,
                fields: fields(tokens, body + 1, close),
            });
        }
    }
    found
}

fn fields(tokens: &[Token], mut at: usize, end: usize) -> Vec<Field> {
    let mut fields = Vec::new();
    while at < end {
        while tokens[at].text == "#" {
            at = tokens[at + 1].close.map_or(end, |close| close + 1);
        }
        let is_visible = tokens[at].text == "pub";
        if is_visible {
            at += 1;
            if tokens[at].text == "(" {
                at = tokens[at].close.map_or(end, |close| close + 1);
            }
        }
        let (name, line) = (tokens[at].text.clone(), tokens[at].line);
        // The name and its colon.
        at += 2;
        let start = at;
        while at < end && tokens[at].text != "," {
            at = match tokens[at].text.as_str() {
                "<" => tokens::behind_angles(tokens, at),
                _ => tokens[at].close.unwrap_or(at) + 1,
            };
        }
        let kind = tokens[start..at]
            .iter()
            .map(|token| token.text.as_str())
            .collect();
        fields.push(Field {
            name,
            line,
            is_visible,
            kind,
        });
        at += 1;
    }
    fields
}

/// An `impl` block without a trait.
#[derive(Debug)]
struct Inherent {
    pub(super) name: String,
    line: usize,
    /// Whether a method of it takes `&mut self`.
    mutates: bool,
}

fn inherent_impls(tokens: &[Token]) -> Vec<Inherent> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let starts_item = at == 0
            || matches!(
                tokens[at - 1].text.as_str(),
                "}" | ";" | "{" | "]" | "unsafe"
            );
        if tokens[at].text != "impl" || !starts_item {
            continue;
        }
        let mut head = at + 1;
        let mut name = String::new();
        let mut is_inherent = true;
        while let Some(token) = tokens.get(head) {
            match token.text.as_str() {
                "{" | "where" => break,
                "for" => is_inherent = false,
                "<" => {
                    head = tokens::behind_angles(tokens, head);
                    continue;
                }
                text if text.starts_with(char::is_alphabetic) => text.clone_into(&mut name),
                _ => {}
            }
            head += 1;
        }
        while tokens.get(head).is_some_and(|token| token.text != "{") {
            head += 1;
        }
        let Some(close) = tokens
            .get(head)
            .and_then(|token| token.close)
            .filter(|_| is_inherent)
        else {
            continue;
        };
        let body: Vec<&str> = tokens[head..close]
            .iter()
            .map(|token| token.text.as_str())
            .collect();
        let mutates = body
            .windows(4)
            .any(|four| four == ["(", "&", "mut", "self"]);
        found.push(Inherent {
            name,
            line: tokens[at].line,
            mutates,
        });
    }
    found
}

/// Per type (its file and name): the files with inherent `impl`s of it, and whether one of them mutates.
fn impls(sources: &Sources) -> BTreeMap<(&str, String), (BTreeSet<String>, bool)> {
    let paths = Paths::new(sources);
    let mut all: BTreeMap<_, (BTreeSet<String>, bool)> = BTreeMap::new();
    for source in sources.product() {
        for block in inherent_impls(&source.tokens) {
            let home = paths.home_of_type(source, &block.name);
            let entry = all.entry((home.path.as_str(), block.name)).or_default();
            entry.0.insert(format!("{}:{}", source.path, block.line));
            entry.1 |= block.mutates;
        }
    }
    all
}

fn files_of(places: &BTreeSet<String>) -> BTreeSet<&str> {
    places
        .iter()
        .filter_map(|place| place.split(':').next())
        .collect()
}

fn breaches_of_scattering(sources: &Sources) -> Vec<Breach> {
    impls(sources)
        .into_iter()
        .filter(|(_, (places, _))| files_of(places).len() > IMPL_FILES_MAX)
        .map(|((home, name), (places, _))| {
            let files = files_of(&places).into_iter().collect::<Vec<_>>().join(", ");
            Breach::new(
                format!("{home} {name}"),
                format!(
                    "{home}: the methods of `{name}` stand in {} files: {files}",
                    files_of(&places).len()
                ),
            )
        })
        .collect()
}

fn breaches_of_bools(sources: &Sources) -> Vec<Breach> {
    stateful(sources)
        .filter_map(|(source, found)| {
            let bools: Vec<&str> = found
                .fields
                .iter()
                .filter(|field| field.kind == "bool")
                .map(|field| field.name.as_str())
                .collect();
            (bools.len() > BOOLS_MAX).then(|| {
                Breach::new(
                    format!("{} {}", source.path, found.name),
                    format!(
                        "{}:{}: `{}` has {} booleans ({}); make its states an enum",
                        source.path,
                        found.line,
                        found.name,
                        bools.len(),
                        bools.join(", ")
                    ),
                )
            })
        })
        .collect()
}

fn stateful(sources: &Sources) -> impl Iterator<Item = (&Source, Struct)> {
    sources
        .product()
        .filter(|source| STATEFUL.contains(&source.top_module()))
        .flat_map(|source| {
            structs(&source.tokens)
                .into_iter()
                .map(move |found| (source, found))
        })
}

/// A struct with a method that takes `&mut self` keeps invariants, which a field written elsewhere would break.
fn breaches_of_privacy(sources: &Sources) -> Vec<Breach> {
    let impls = impls(sources);
    let mut breaches = Vec::new();
    for source in sources.product() {
        for found in structs(&source.tokens) {
            let key = (source.path.as_str(), found.name.clone());
            if !impls.get(&key).is_some_and(|(_, mutates)| *mutates) {
                continue;
            }
            for field in found.fields.iter().filter(|field| field.is_visible) {
                breaches.push(Breach::new(
                    format!("{} {}", source.path, found.name),
                    format!(
                        "{}:{}: `{}.{}` is visible outside its file, and `{}` has methods that mutate it",
                        source.path, field.line, found.name, field.name, found.name
                    ),
                ));
            }
        }
    }
    breaches
}

#[test]
fn the_methods_of_a_struct_stand_in_few_files() {
    hold(&breaches_of_scattering(Sources::read()), &[]);
}

#[test]
fn a_struct_with_states_has_few_booleans() {
    hold(&breaches_of_bools(Sources::read()), MANY_BOOLS);
}

#[test]
fn the_fields_of_a_struct_that_changes_are_private_to_its_file() {
    hold(&breaches_of_privacy(Sources::read()), VISIBLE_FIELDS);
}

#[test]
fn four_files_with_methods_of_one_struct_fail_and_three_pass() {
    let found = |last: &str| {
        let sources = Sources::of([
            (
                "src/a/mod.rs",
                "mod b; mod c; mod d; pub struct A<T>(T); impl<T> A<T> {}",
            ),
            ("src/a/b.rs", "use super::A; impl A<u8> { fn b() {} }"),
            (
                "src/a/c.rs",
                "use super::A; impl A<u8> { fn c() {} } impl Clone for A<u8> {}",
            ),
            ("src/a/d.rs", last),
        ]);
        breaches_of_scattering(&sources)
            .into_iter()
            .map(|breach| breach.subject)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found("use super::A; impl A<u8> { fn d() {} }"),
        ["src/a/mod.rs A"]
    );
    assert_eq!(
        found("use super::A; impl Drop for A<u8> {}"),
        Vec::<String>::new()
    );
    assert_eq!(
        found("struct A; impl A {}"),
        Vec::<String>::new(),
        "another struct of that name"
    );
}

#[test]
fn four_booleans_fail_and_three_pass() {
    let found = |path: &str, more: &str| {
        let text = format!(
            "struct A {{ pub a: bool, b: Vec<(bool, u8)>, c: bool, #[x] d: bool, {more} }}"
        );
        breaches_of_bools(&Sources::of([(path, text)])).len()
    };
    assert_eq!(found("src/worker/a.rs", "e: bool"), 1);
    assert_eq!(found("src/worker/a.rs", "e: Option<bool>"), 0);
    assert_eq!(found("src/config/a.rs", "e: bool"), 0);
}

#[test]
fn a_visible_field_of_a_struct_that_changes_fails() {
    let found = |field: &str, receiver: &str| {
        let text = format!("struct A {{ {field}: u8 }} impl A {{ fn f({receiver}) {{}} }}");
        breaches_of_privacy(&Sources::of([("src/a.rs", text)])).len()
    };
    assert_eq!(found("pub(super) a", "&mut self"), 1);
    assert_eq!(found("a", "&mut self"), 0);
    assert_eq!(found("pub(super) a", "&self"), 0);
}
