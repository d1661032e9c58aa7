//! A request's walk through the sources, as a trace of it shows: which files a GET without a body enters, in which
//! order, and how often it comes back to one. CONTRIBUTING.md's table is held against it.
//!
//! Nothing of this is in the product. A copy of `src/` gets a call at the start of every function that has a
//! statement (a function of one expression is read where it is called, by its name), is built with Python, and serves
//! a few requests. The interpreter is `PYO3_PYTHON`, or that of `.venv`. `make walk` prints what it finds.
#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stdout, reason = "`make walk` is read")]

mod instrument;
mod serve;
#[allow(dead_code, reason = "the law uses the rest")]
#[path = "../integration/tidy/tokens.rs"]
mod tokens;

use std::collections::BTreeSet;
use std::path::PathBuf;

/// A ratchet: what a request on a new connection enters, everything counted.
const FILES_MAX: usize = 90;
const RETURNS_MAX: usize = 190;
/// What can be read at one go.
const STEPS_MAX: usize = 90;

/// Files that a request enters on its way and that are no step of it: what they do is said by the name of the call.
const HELPERS: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A call of a function, with the files below `src/`.
#[derive(Clone, Debug)]
struct Call {
    caller: String,
    callee: String,
    /// Its line.
    function: String,
}

impl Call {
    fn is_same_function(&self, other: &Self) -> bool {
        self.callee == other.callee && self.function == other.function
    }
}

/// What is read of the sources to follow some calls: each function once, when it is first called.
#[derive(Debug, Default, PartialEq, Eq)]
struct Walk<'a> {
    /// In the order in which they are entered first.
    files: Vec<&'a str>,
    /// Files that another one enters again, through a function that was not read yet.
    returns: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn of(calls: &'a [Call]) -> Self {
        let mut read = BTreeSet::new();
        let mut walk = Self::default();
        for call in calls {
            let is_new = read.insert((&call.callee, &call.function));
            if !walk.files.contains(&call.callee.as_str()) {
                walk.files.push(&call.callee);
            } else if is_new && call.caller != call.callee {
                walk.returns.push(&call.callee);
            }
        }
        walk
    }

    fn figures(&self) -> String {
        format!("{} files, {} returns", self.files.len(), self.returns.len())
    }
}

/// The files that the table names, below `src/`, in its order.
#[allow(dead_code, reason = "the table follows")]
fn table(page: &str) -> Vec<String> {
    let section = page.split("\n### A request's walk\n").nth(1).unwrap_or("");
    let section = section.split("\n#").next().unwrap_or("");
    let mut files = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| ")) {
        let place = row.split('|').nth(2).unwrap_or("");
        let mut folder = String::new();
        for name in place.split('`').skip(1).step_by(2) {
            if let Some((path, _)) = name.rsplit_once('/') {
                path.clone_into(&mut folder);
                files.push(name.to_owned());
            } else {
                files.push(format!("{folder}/{name}"));
            }
        }
    }
    files
}

#[test]
fn a_request_walks_as_contributing_says() {
    let copy = instrument::copy();
    let trace = serve::trace(&copy);
    let all = Walk::of(&trace.new);
    println!("everything, on a new connection: {}", all.figures());
    assert!(
        all.files.len() <= FILES_MAX && all.returns.len() <= RETURNS_MAX,
        "{all:#?}"
    );

    let is_upkeep = |call: &Call| {
        trace
            .upkeep
            .iter()
            .any(|other| other.is_same_function(call))
    };
    let is_step =
        |call: &Call| !is_upkeep(call) && HELPERS.iter().all(|(file, _)| *file != call.callee);
    let calls: Vec<Call> = trace
        .kept
        .iter()
        .filter(|call| is_step(call))
        .cloned()
        .collect();
    let steps = Walk::of(&calls);
    println!(
        "steps of a request on a kept connection: {} {steps:#?}",
        steps.figures()
    );
    for (file, _) in HELPERS {
        assert!(
            trace
                .kept
                .iter()
                .any(|call| call.callee == *file && !is_upkeep(call)),
            "{file} is named as a helper and is not entered"
        );
    }
    assert!(steps.files.len() <= STEPS_MAX, "{steps:#?}");
}

#[test]
fn a_function_is_read_once_and_a_file_may_be_entered_again() {
    let calls = [
        ("-", "a", "1"),
        ("a", "a", "2"),
        ("a", "b", "1"),
        ("b", "c", "1"),
        ("a", "b", "1"),
        ("c", "b", "2"),
        ("b", "a", "2"),
    ]
    .map(|(caller, callee, function)| Call {
        caller: caller.to_owned(),
        callee: callee.to_owned(),
        function: function.to_owned(),
    });
    let walk = Walk {
        files: vec!["a", "b", "c"],
        returns: vec!["b"],
    };
    assert_eq!(Walk::of(&calls), walk);
}

#[test]
fn the_table_is_read_in_its_order() {
    let page = "\n### A request's walk\n\n| # | where | what |\n| --- | --- | --- |\n\
                | 1 | `a/b.rs`, `c.rs` | not `this.rs` |\n| 2 | `d/e/f.rs` | x |\n\n### Next\n| 3 | `g/h.rs` | y |\n";
    assert_eq!(table(page), ["a/b.rs", "a/c.rs", "d/e/f.rs"]);
}
