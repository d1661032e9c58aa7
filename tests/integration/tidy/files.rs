//! What a file is called, how it opens, how long it is, where `unsafe` stands, and which files have unit tests.

use std::collections::BTreeMap;
use std::path::Path;

use super::breaches::{Breach, Excuse, hold};
use super::sources::{Source, Sources, files, text_of};

const CODE_LINES_MAX: usize = 400;

/// The only places where `unsafe` may stand; each opens with the lint lifted and says why.
const UNSAFE_ALLOWED: &[&str] = &[
    "src/scoreboard.rs",
    "src/fork_guard/",
    "src/scoreboard/vitals.rs",
    "src/arbiter/signals.rs",
    "src/net/backlog.rs",
    "src/net/inherit.rs",
    "src/net/lookup.rs",
    "src/net/channel.rs",
    "src/net/unsent.rs",
    "src/logging/clock/zone.rs",
    "src/pool/alarm.rs",
    "src/python/",
    "src/tls/shared_region.rs",
];

/// File names that two files may have, because they stand for the same thing in two modules.
const SHARED_NAMES: &[Excuse] = &[];

/// Names that would shadow what every Rust file sees.
const SHADOWS: &[&str] = &["core", "std", "alloc", "proc_macro", "test"];

/// The modules whose files need unit tests, half of them at least.
const TESTED: &[&str] = &["arbiter", "python", "worker"];

/// Files of `python/` that do nothing without an interpreter: `tests/python` runs them in real processes.
const NEEDS_INTERPRETER: &[Excuse] = &[
    (
        "src/python/fork_guard.rs",
        "it registers calls around Python's fork; tests/python/test_application_forks.py forks",
    ),
    (
        "src/python/gil.rs",
        "it attaches threads; every process test does",
    ),
    (
        "src/python/green.rs",
        "it switches greenlets; tests/python/test_gevent_switches.py does at each call",
    ),
    (
        "src/python/green_application.rs",
        "tests/python/test_gevent.py serves with it",
    ),
    (
        "src/python/green_pool.rs",
        "a hub turns it; tests/python/test_gevent.py",
    ),
    (
        "src/python/hub_inbox.rs",
        "a hub empties it; tests/python/test_gevent.py",
    ),
    (
        "src/python/stacks.rs",
        "it reads frames; tests/python/test_control.py asks for stacks",
    ),
    (
        "src/python/threads.rs",
        "its threads are Python's; tests/python/test_threads.py",
    ),
    (
        "src/python/wsgi/app.rs",
        "it calls the application; tests/python/test_wsgi.py",
    ),
    (
        "src/python/wsgi/app/failure.rs",
        "it reads tracebacks; tests/python/test_errors.py and test_wsgi.py",
    ),
    (
        "src/python/wsgi/body.rs",
        "it iterates over what the application returns; tests/python/test_wsgi.py",
    ),
    (
        "src/python/wsgi/errors.rs",
        "it is `wsgi.errors`; tests/python/test_wsgi.py",
    ),
    (
        "src/python/wsgi/file_wrapper.rs",
        "tests/python/test_file_wrapper.py",
    ),
    (
        "src/python/wsgi/green_requests.rs",
        "tests/python/test_gevent.py",
    ),
    (
        "src/python/wsgi/hijack.rs",
        "it makes a Python socket; tests/python/test_hijack.py",
    ),
    (
        "src/python/wsgi/http2_environ.rs",
        "its objects are the environ's; tests/python/test_http2.py",
    ),
    (
        "src/python/wsgi/noted_keys.rs",
        "it reads the environ; tests/python/test_access_log.py",
    ),
    (
        "src/python/wsgi/response_spool.rs",
        "it takes what an application yields; tests/python/test_outgoing_budget.py",
    ),
    (
        "src/python/wsgi/start_response.rs",
        "the application calls it; tests/python/test_wsgi.py",
    ),
    (
        "src/python/wsgi/stream.rs",
        "it sends what an application yields; tests/python/test_wsgi.py",
    ),
    (
        "src/python/wsgi/wsgi_settings.rs",
        "it names Python objects; tests/python/test_wsgi.py",
    ),
    ("src/python/mod.rs", "it names the module's files"),
    ("src/python/wsgi/mod.rs", "it names the module's files"),
];

#[test]
fn every_file_opens_with_what_it_is() {
    let mut breaches = Vec::new();
    for path in ["src", "tests", "benches"]
        .iter()
        .flat_map(|folder| files(folder, &["rs"]))
    {
        if !text_of(&path).starts_with("//! ") {
            let text = format!("{path}:1: the first line is not a `//!` sentence");
            breaches.push(Breach::new(path, text));
        }
    }
    hold(&breaches, &[]);
}

/// The lines before the first `#[cfg(test)] mod name {`.
fn code_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests_start = (0..lines.len()).find(|&at| {
        let following = lines[at + 1..]
            .iter()
            .map(|line| line.trim())
            .find(|line| !line.starts_with("#["));
        lines[at].trim() == "#[cfg(test)]"
            && following.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    tests_start.unwrap_or(lines.len())
}

fn breach_of_length(path: &str, text: &str) -> Option<Breach> {
    let lines = code_lines(text);
    (lines > CODE_LINES_MAX).then(|| {
        Breach::new(
            path,
            format!("{path}: {lines} lines of code, {CODE_LINES_MAX} are allowed; look for the second noun in it"),
        )
    })
}

#[test]
fn files_stay_short() {
    let sources = Sources::read();
    let product = sources
        .product()
        .map(|source| (source.path.clone(), source.text.clone()));
    let benches = files("benches", &["rs", "py"]).into_iter().map(|path| {
        let text = text_of(&path);
        (path, text)
    });
    let breaches: Vec<Breach> = product
        .chain(benches)
        .filter_map(|(path, text)| breach_of_length(&path, &text))
        .collect();
    hold(&breaches, &[]);
}

fn breaches_of_unsafe(sources: &Sources) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut used = vec![false; UNSAFE_ALLOWED.len()];
    for source in &sources.0 {
        let Some(token) = source.tokens.iter().find(|token| token.text == "unsafe") else {
            continue;
        };
        let place = format!("{}:{}", source.path, token.line);
        match UNSAFE_ALLOWED
            .iter()
            .position(|allowed| source.path.starts_with(allowed))
        {
            None => breaches.push(Breach::new(
                source.path.as_str(),
                format!("{place}: unsafe outside the audited files"),
            )),
            Some(at) => used[at] = true,
        }
        if !source
            .tokens
            .iter()
            .any(|token| token.text == "unsafe_code")
        {
            breaches.push(Breach::new(
                source.path.as_str(),
                format!("{place}: uses unsafe without lifting `unsafe_code` with a reason"),
            ));
        }
    }
    let dead = UNSAFE_ALLOWED.iter().zip(used).filter(|(_, used)| !used);
    breaches.extend(dead.map(|(allowed, _)| {
        Breach::new(
            *allowed,
            format!("{allowed}: may hold unsafe and holds none; delete it from the list"),
        )
    }));
    breaches
}

#[test]
fn unsafe_stands_only_where_it_is_audited() {
    hold(&breaches_of_unsafe(Sources::read()), &[]);
}

fn stem(source: &Source) -> &str {
    Path::new(&source.path)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or("")
}

/// The sections of the table of settings are called after what they set, as gunicorn calls them.
fn is_section_of_settings(source: &Source) -> bool {
    source.path.starts_with("src/config/settings/")
}

fn breaches_of_names(sources: &Sources) -> Vec<Breach> {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in sources
        .product()
        .filter(|source| !is_section_of_settings(source))
    {
        if !matches!(stem(source), "mod" | "lib") {
            by_name.entry(stem(source)).or_default().push(&source.path);
        }
    }
    by_name
        .into_iter()
        .filter(|(_, paths)| paths.len() > 1)
        .map(|(name, paths)| {
            Breach::new(
                name,
                format!("`{name}.rs` means several things: {}", paths.join(", ")),
            )
        })
        .collect()
}

#[test]
fn a_file_name_means_one_thing() {
    hold(&breaches_of_names(Sources::read()), SHARED_NAMES);
}

fn breaches_of_shadowing(sources: &Sources) -> Vec<Breach> {
    let is_shadow = |source: &&Source| {
        source
            .module
            .iter()
            .any(|name| SHADOWS.contains(&name.as_str()))
    };
    sources
        .0
        .iter()
        .filter(is_shadow)
        .map(|source| {
            Breach::new(
                source.path.as_str(),
                format!("{}: is called like a crate of Rust's own", source.path),
            )
        })
        .collect()
}

#[test]
fn no_module_is_called_like_a_crate_of_the_language() {
    hold(&breaches_of_shadowing(Sources::read()), &[]);
}

/// Whether the file has unit tests: in itself, or in a `tests.rs` of its own.
fn has_unit_tests(source: &Source, sources: &Sources) -> bool {
    let own = format!("{}/tests.rs", source.path.trim_end_matches(".rs"));
    let mut texts = sources
        .0
        .iter()
        .filter(|one| one.path == source.path || one.path == own);
    texts.any(|one| one.text.contains("#[test]"))
}

/// Too few files with unit tests, and files that are said to need an interpreter and have some.
fn breaches_of_testing(sources: &Sources, excused: &[Excuse]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for module in TESTED {
        let of_module = sources
            .product()
            .filter(|source| source.top_module() == *module);
        let (excused, counted): (Vec<_>, Vec<_>) =
            of_module.partition(|source| excused.iter().any(|(path, _)| *path == source.path));
        for source in excused
            .into_iter()
            .filter(|source| has_unit_tests(source, sources))
        {
            let text = format!(
                "{}: has unit tests, so it is not excused from them; delete the excuse",
                source.path
            );
            breaches.push(Breach::new(source.path.as_str(), text));
        }
        let without: Vec<&str> = counted
            .iter()
            .filter(|source| !has_unit_tests(source, sources))
            .map(|source| source.path.as_str())
            .collect();
        if without.len() * 2 > counted.len() {
            let text = format!(
                "src/{module}: {} of {} files have no unit tests, half may: {}",
                without.len(),
                counted.len(),
                without.join(", ")
            );
            breaches.push(Breach::new(*module, text));
        }
    }
    for (path, _) in excused {
        if !sources.product().any(|source| source.path == *path) {
            breaches.push(Breach::new(
                *path,
                format!("{path}: is excused from unit tests and does not exist"),
            ));
        }
    }
    breaches
}

#[test]
fn half_of_the_files_have_unit_tests() {
    hold(
        &breaches_of_testing(Sources::read(), NEEDS_INTERPRETER),
        &[],
    );
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    // Assembled, so that this file does not accuse itself.
    let homes: Vec<String> = ["root", "home", "Users", "work"]
        .iter()
        .map(|name| format!("/{name}/"))
        .collect();
    let mut breaches = Vec::new();
    let mut all = [
        "Makefile",
        ".ci/run",
        "Cargo.toml",
        "pyproject.toml",
        "clippy.toml",
    ]
    .map(str::to_owned)
    .to_vec();
    all.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned));
    for folder in ["src", "tests", "benches", "examples", "docs"] {
        all.extend(files(
            folder,
            &["rs", "py", "pyi", "toml", "md", "txt", "html"],
        ));
    }
    for path in all {
        for (number, line) in text_of(&path).lines().enumerate() {
            for home in homes.iter().filter(|home| names_path(line, home)) {
                let text = format!("{path}:{}: {home} exists on one machine only", number + 1);
                breaches.push(Breach::new(path.as_str(), text));
            }
        }
    }
    hold(&breaches, &[]);
}

/// Whether a path in `line` starts with `home`; `a/work/b` and `x.test/home/` only contain it.
fn names_path(line: &str, home: &str) -> bool {
    line.match_indices(home)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || ".-_~}/".contains(c)))
}

#[test]
fn the_length_is_that_of_the_code() {
    assert_eq!(code_lines("a\n#[cfg(test)]\nmod tests {\nb\n}"), 1);
    assert_eq!(code_lines("a\n#[cfg(test)]\nmod tests;\nb"), 4);
    assert!(breach_of_length("a", &"x\n".repeat(401)).is_some());
    assert!(breach_of_length("a", &"x\n".repeat(400)).is_none());
}

#[cfg(test)]
fn subjects(breaches: Vec<Breach>) -> Vec<String> {
    breaches.into_iter().map(|breach| breach.subject).collect()
}

#[test]
fn unsafe_elsewhere_and_unsafe_without_a_reason_fail() {
    let found = |path: &str, text: &str| {
        let found = subjects(breaches_of_unsafe(&Sources::of([(path, text)])));
        found.into_iter().filter(|subject| subject == path).count()
    };
    let lifted = "#![expect(unsafe_code, reason = \"x\")] fn f() { unsafe { g() } }";
    assert_eq!(found("src/http/a.rs", lifted), 1);
    assert_eq!(found("src/python/a.rs", "fn f() { unsafe { g() } }"), 1);
    assert_eq!(found("src/python/a.rs", lifted), 0);
    assert_eq!(
        found("src/http/a.rs", "// unsafe\n#![deny(unsafe_code)]"),
        0
    );
}

#[test]
fn two_files_of_one_name_fail() {
    let found = |second: &str| {
        subjects(breaches_of_names(&Sources::of([
            ("src/a/b.rs", ""),
            (second, ""),
            ("src/a/mod.rs", ""),
        ])))
    };
    assert_eq!(found("src/c/b.rs"), ["b"]);
    assert_eq!(found("src/c/mod.rs"), Vec::<String>::new());
    assert_eq!(found("src/config/settings/b.rs"), Vec::<String>::new());
}

#[test]
fn a_module_called_core_fails() {
    assert_eq!(
        subjects(breaches_of_shadowing(&Sources::of([("src/a/core.rs", "")]))).len(),
        1
    );
    assert_eq!(
        subjects(breaches_of_shadowing(&Sources::of([(
            "src/a/score.rs",
            ""
        )])))
        .len(),
        0
    );
}

#[test]
fn a_module_whose_files_are_mostly_untested_fails() {
    const TEST: &str = "#[cfg(test)]\nmod tests { #[test] fn x() {} }";
    let found = |second: &str, excused: &[Excuse]| {
        let sources = Sources::of([
            ("src/worker/a.rs", TEST),
            ("src/worker/b.rs", second),
            ("src/worker/c.rs", ""),
        ]);
        subjects(breaches_of_testing(&sources, excused))
    };
    assert_eq!(found("", &[]), ["worker"]);
    assert_eq!(found(TEST, &[]), Vec::<String>::new());
    assert_eq!(
        found("", &[("src/worker/b.rs", "why")]),
        Vec::<String>::new()
    );
    assert_eq!(
        found(TEST, &[("src/worker/b.rs", "why")]),
        ["src/worker/b.rs"]
    );
    assert_eq!(
        found(TEST, &[("src/worker/d.rs", "why")]),
        ["src/worker/d.rs"]
    );
}
