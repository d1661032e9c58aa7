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
use std::fs;
use std::path::PathBuf;

/// A ratchet: what a request on a new connection enters, everything counted.
const FILES_MAX: usize = 74;
const RETURNS_MAX: usize = 91;
/// What can be read at one go: the steps of a request on a kept connection, and how often one goes back to a file.
const STEPS_MAX: usize = 30;
const STEP_RETURNS_MAX: usize = 20;

/// Files that a request enters on its way and that are no step of it: the name of the call says what they do.
const HELPERS: &[(&str, &[&str])] = &[
    (
        "they name or hold what a step works with",
        &[
            "http/exchange/current_request.rs",
            "http/exchange/queries.rs",
            "http/exchange/syntax.rs",
            "pool/job.rs",
            "python/fork_guard.rs",
            "worker/connections.rs",
            "worker/http1/request_state.rs",
        ],
    ),
    (
        "they read or make one piece of text",
        &[
            "http/date.rs",
            "http/fields.rs",
            "http/refusal.rs",
            "http/target.rs",
            "http/version.rs",
            "python/text.rs",
            "python/wsgi/headers.rs",
            "python/wsgi/response_head.rs",
        ],
    ),
    (
        "they note a time or a number",
        &[
            "pool/busy_threads.rs",
            "pool/estimates.rs",
            "pool/job_stats.rs",
            "pool/wait_sampler.rs",
            "python/wsgi/scoreboard_clock.rs",
            "scoreboard/histogram.rs",
            "scoreboard/reports.rs",
            "scoreboard/running.rs",
            "scoreboard/vitals.rs",
            "worker/accept.rs",
            "worker/loop_clock.rs",
            "worker/usage.rs",
        ],
    ),
    (
        "they decide, or carry out, who sleeps and who waits for what",
        &[
            "pool/delegation.rs",
            "pool/loop_park.rs",
            "pool/policy.rs",
            "pool/sync.rs",
            "pool/thread_pool/loop_side.rs",
            "worker/connection_lifecycle.rs",
            "worker/event_loop/delegated.rs",
        ],
    ),
];

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

/// The loop may do something else meanwhile (a heartbeat, a sleep that ends): then the trace is taken again. On a busy machine it
/// does more often.
const ATTEMPTS: usize = 12;

#[test]
fn a_request_walks_as_contributing_says() {
    let copy = instrument::copy();
    let written = table(&fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap());
    let mut complaints = Vec::new();
    for _ in 0..ATTEMPTS {
        match complaint(&serve::trace(&copy), &written) {
            None => return,
            Some(complaint) => complaints.push(complaint),
        }
    }
    panic!("{}", complaints.join("\n"));
}

/// In what the trace differs from the table that is `written`.
fn complaint(trace: &serve::Trace, written: &[String]) -> Option<String> {
    let all = Walk::of(&trace.new);
    println!("everything, on a new connection: {}", all.figures());
    let is_upkeep = |call: &&Call| {
        let is_same = |other: &Call| other.is_same_function(call);
        trace.upkeep.iter().any(is_same)
    };
    let is_helper = |call: &&Call| {
        let mut helpers = HELPERS.iter().flat_map(|(_, files)| *files);
        helpers.any(|helper| *helper == call.callee)
    };
    let calls = trace.kept.iter().filter(|call| !is_upkeep(call));
    let on_the_way: Vec<Call> = calls.filter(|call| !is_helper(call)).cloned().collect();
    let steps = Walk::of(&on_the_way);
    println!(
        "steps of a request on a kept connection: {}, {steps:#?}",
        steps.figures()
    );
    let entered: BTreeSet<&str> = trace
        .kept
        .iter()
        .chain(&trace.new)
        .map(|call| call.callee.as_str())
        .collect();
    let helpers = HELPERS.iter().flat_map(|(_, files)| *files);
    let idle: Vec<&&str> = helpers.filter(|file| !entered.contains(**file)).collect();
    if !idle.is_empty() {
        return Some(format!("named as helpers and not entered: {idle:?}"));
    }
    if sorted(written) != sorted(&steps.files) {
        let steps = sorted(&steps.files);
        return Some(format!("CONTRIBUTING.md's table and the steps: {steps:#?}"));
    }
    let passed = passed(written, &trace.kept);
    if passed != written {
        return Some(format!("the table's order and the trace's: {passed:#?}"));
    }
    let is_within = steps.files.len() <= STEPS_MAX
        && steps.returns.len() <= STEP_RETURNS_MAX
        && all.files.len() <= FILES_MAX
        && all.returns.len() <= RETURNS_MAX;
    (!is_within).then(|| format!("too long: {steps:#?}, {all:#?}"))
}

fn sorted<T: AsRef<str>>(files: &[T]) -> Vec<&str> {
    let mut files: Vec<&str> = files.iter().map(AsRef::as_ref).collect();
    files.sort_unstable();
    files
}

/// As many of `files` as the calls pass one after the other.
fn passed<'a>(files: &'a [String], calls: &[Call]) -> &'a [String] {
    let mut count = 0;
    for call in calls {
        count += usize::from(files.get(count).is_some_and(|file| *file == call.callee));
    }
    &files[..count]
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
fn files_are_passed_in_their_order() {
    let calls = ["a", "c", "b", "c"].map(|callee| Call {
        caller: "-".to_owned(),
        callee: callee.to_owned(),
        function: "1".to_owned(),
    });
    let files = |names: [&str; 3]| names.map(str::to_owned).to_vec();
    assert_eq!(passed(&files(["a", "b", "c"]), &calls).len(), 3);
    assert_eq!(passed(&files(["b", "c", "a"]), &calls).len(), 2);
}

#[test]
fn the_table_is_read_in_its_order() {
    let page = "\n### A request's walk\n\n| # | where | what |\n| --- | --- | --- |\n\
                | 1 | `a/b.rs`, `c.rs` | not `this.rs` |\n| 2 | `d/e/f.rs` | x |\n\n### Next\n| 3 | `g/h.rs` | y |\n";
    assert_eq!(table(page), ["a/b.rs", "a/c.rs", "d/e/f.rs"]);
}
