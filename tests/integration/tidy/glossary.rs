//! One word per thing, and the field's word: private words do not come back.
//!
//! A term is a sequence of words. Text is cut into words at every change of case and at everything that is no letter,
//! so `lie_down`, `lieDown` and "lie down" are the same term; a term with a capital or an underscore is an identifier
//! and stands for itself.

use super::breaches::{Breach, hold};
use super::sources::{files, text_of};

struct Term {
    /// What is not written, `|` between forms.
    found: &'static str,
    /// What is written instead.
    write: &'static str,
    /// Where it is looked for; everywhere when empty.
    within: &'static [&'static str],
    /// Longer sequences in which it is ordinary English or a name of the system.
    except: &'static str,
}

const fn term(found: &'static str, write: &'static str) -> Term {
    Term {
        found,
        write,
        within: &[],
        except: "",
    }
}

impl Term {
    const fn within(self, within: &'static [&'static str]) -> Self {
        Self { within, ..self }
    }

    const fn except(self, except: &'static str) -> Self {
        Self { except, ..self }
    }
}

const GLOSSARY: &[Term] = &[
    // The pool.
    term("heir|heirs", "wake-up token, the thread that is waking"),
    term("summon|summons|summoned|summoning", "wake, notify_one"),
    term(
        "lie down|lies down|lay down|lying down|get up|gets up|got up",
        "park, cancel_park, wakeup_done",
    ),
    term("surplus", "idle extra thread"),
    term(
        "seat|seats",
        "pool thread, worker context, fork server context",
    ),
    term("presence|presences", "live connections"),
    term("deaf", "batching sleep, timed park"),
    term("displaced|put first|puts first", "push_front"),
    term("in hand", "in flight"),
    term("watch|watches|watched", "in-flight request, request hooks")
        .within(&["src/pool/", "src/python/wsgi/"]),
    term("lent", "borrowed"),
    term("drop_released", "deferred drop"),
    term("shelf|shelves", "buffer pool"),
    term("spares", "buffer pool").within(&["src/pool/", "src/worker/"]),
    // Connections.
    term("outbox|outboxes", "write buffer"),
    term("inflow|inflows", "streaming request body"),
    term("inbound", "read buffer"),
    term("arriving", "streaming request body")
        .within(&[
            "src/worker/",
            "src/pool/",
            "src/http/",
            "tests/integration/",
        ])
        .except("still arriving"),
    term("in_place", "direct read"),
    term("fate|fates", "action, next"),
    term("settle|settles|settled|settling", "advance")
        .within(&["src/", "tests/integration/", "docs/"]),
    term("go_on", "resume"),
    term("turn|turns", "iteration of the loop")
        .within(&["src/worker/", "src/pool/"])
        .except(
            "in turn|turn into|turns into|turn out|turns out|turn on|turns on|turn off|turns off",
        ),
    term("linger|lingers|lingered|lingering", "lingering close")
        .except("lingering close|lingering closes|so linger|libc linger|sockopt linger|l linger|stream linger"),
    term("beat|beats", "heartbeat"),
    term("ran dry|run dry|runs dry", "exhausted"),
    term("turn bytes left", "write budget"),
    term("offered", "hijacked").within(&["src/worker/", "src/pool/", "src/ferricorn/"]),
    // Workers among themselves.
    term("sibling|siblings", "peer worker"),
    term("relieve|relieves|relieved|relieving|relief", "offload"),
    term(
        "promise|promises|promised|redeem|redeems|redeemed",
        "reserve, release",
    ),
    term(
        "travel|travels|travelled",
        "is transferable, is transferred",
    )
    .within(&["src/worker/", "src/net/", "docs/"]),
    term(
        "handoff|handoffs|hand off|hands off|handed off|hand over|hands over|handed over|handing over",
        "release of the GIL, transfer of a connection, hijacked socket, inherited listener",
    ),
    // Load and time.
    term("excess", "load shedding").within(&["src/worker/", "tests/"]),
    term("turn away|turns away|turned away|turning away", "shed").within(&["src/", "docs/"]),
    term("burst|bursts", "log coalescing").within(&["src/worker/"]),
    term("story|stories", "coalesced line"),
    term("overrun|overruns|overran", "timed-out request"),
    // The arbiter.
    term(
        "burial|burials|bury|buries|buried|obituary|obituaries",
        "reaping, exit report",
    ),
    term("tally|tallies|tallied", "counters"),
    term("totals", "counters").within(&["src/arbiter/"]),
    term("nudge|nudges|nudged", "notify"),
    term("worker line|arbiter line", "control channel"),
    term("elder|elders", "old master"),
    term("template|templates", "fork server, base_environ").within(&[
        "src/arbiter/",
        "src/launcher",
        "src/python/",
        "src/pool/",
    ]),
    term("template process|template processes", "fork server"),
    term("Order", "SpawnRequest").within(&["src/arbiter/", "src/launcher"]),
    term("wish|wishes|wished", "desired state"),
    term("plan|plans|planned", "desired state, reconcile").within(&["src/arbiter/"]),
    term("errand|errands", "GIL task"),
    term("told|hear|hears|heard", "reported, read, sent")
        .within(&["src/arbiter/", "src/worker/"])
        .except("told apart"),
    term("face|faces", "info, address"),
    term("board|boards", "scoreboard"),
    term("Look", "ResponseDefaults")
        .within(&["src/"])
        .except("Look at|Look for"),
    term(
        "judge|judges|judged|judging",
        "apply the header policy, decide",
    ),
    term("room|rooms", "module").within(&["CONTRIBUTING.md", "src/lib.rs"]),
    // English.
    term("idem", "the sentence again"),
    term("of ours", "whose it is"),
    term("whoever|whomever", "who it is"),
    term("Nobody|Somebody", "who it is, or the passive"),
    term("So many|For so long", "the number, the time"),
    term(
        "it is told|is told that|are told that",
        "what is reported, logged or sent",
    ),
];

/// A line as words; `a_b` and `aB` are two.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for character in line.chars() {
        let starts = !before.is_alphabetic() || before.is_lowercase() && character.is_uppercase();
        if character.is_alphabetic() {
            if starts {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(character.to_lowercase());
            }
        }
        before = character;
    }
    words
}

/// A line as identifiers and words in their own case.
fn identifiers(line: &str) -> Vec<&str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect()
}

/// Where one of the forms `forms` starts, and how many words it has.
fn places<T: AsRef<str>>(words: &[T], forms: &str) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for form in forms.split('|').filter(|form| !form.is_empty()) {
        let form: Vec<&str> = form.split(' ').collect();
        for (at, run) in words.windows(form.len()).enumerate() {
            if run
                .iter()
                .zip(&form)
                .all(|(word, wanted)| word.as_ref() == *wanted)
            {
                places.push((at, form.len()));
            }
        }
    }
    places
}

fn is_in_line(term: &Term, words: &[String], identifiers: &[&str]) -> bool {
    if term.found.contains(|c: char| c.is_uppercase() || c == '_') {
        return is_among(term, identifiers);
    }
    is_among(term, words)
}

fn is_among<T: AsRef<str>>(term: &Term, words: &[T]) -> bool {
    let excepted = places(words, term.except);
    places(words, term.found).into_iter().any(|(at, length)| {
        !excepted
            .iter()
            .any(|(start, longer)| *start <= at && at + length <= start + longer)
    })
}

/// Whether the first word of a form is anywhere in the text: most terms are in few files.
fn may_be_in(term: &Term, text: &str) -> bool {
    term.found.split('|').any(|form| {
        let first = form.split(' ').next().unwrap_or(form);
        text.contains(&first.to_lowercase())
    })
}

/// The name of the file counts as its line 0.
fn breaches(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let lowered = format!("{path} {text}").to_lowercase();
    let terms: Vec<&Term> = GLOSSARY
        .iter()
        .filter(|term| {
            term.within.is_empty() || term.within.iter().any(|start| path.starts_with(start))
        })
        .filter(|term| may_be_in(term, &lowered))
        .collect();
    for (number, line) in std::iter::once(path).chain(text.lines()).enumerate() {
        let (words, identifiers) = (words(line), identifiers(line));
        for term in terms
            .iter()
            .filter(|term| is_in_line(term, &words, &identifiers))
        {
            let forms = term.found;
            let text = format!("{path}:{number}: `{forms}` is written as: {}", term.write);
            breaches.push(Breach::new(path, text));
        }
    }
    breaches
}

#[test]
fn things_are_called_what_the_field_calls_them() {
    // The raw results of measurements are never edited, and this file names what it looks for.
    const SKIPPED: &[&str] = &[
        "benches/peers/results/",
        "tests/integration/tidy/glossary.rs",
    ];
    let mut breaches_found = Vec::new();
    let mut paths = [
        "README.md",
        "CONTRIBUTING.md",
        "Makefile",
        "Cargo.toml",
        "pyproject.toml",
    ]
    .map(str::to_owned)
    .to_vec();
    for folder in ["src", "tests", "benches", "examples", "docs"] {
        paths.extend(files(folder, &["rs", "py", "pyi", "md", "toml", "txt"]));
    }
    for path in paths {
        if !SKIPPED.iter().any(|skipped| path.starts_with(skipped)) {
            breaches_found.extend(breaches(&path, &text_of(&path)));
        }
    }
    hold(&breaches_found, &[]);
}

#[test]
fn terms_are_found_in_every_spelling() {
    let found = |path: &str, line: &str| breaches(path, line).len();
    assert_eq!(found("src/a.rs", "self.heirs.lie_down();"), 2);
    assert_eq!(found("src/a.rs", "struct TemplateSeat; // of Ours"), 2);
    assert_eq!(found("src/heirs.rs", ""), 1);
    assert_eq!(
        found(
            "src/a.rs",
            "scoreboard, heartbeat, their, interface, inheritance"
        ),
        0
    );
    assert_eq!(found("README.md", "Nobody waits; the user nobody may."), 1);
}

#[test]
fn ordinary_english_and_names_of_the_system_pass() {
    let found = |path: &str, line: &str| breaches(path, line).len();
    assert_eq!(
        found(
            "src/worker/a.rs",
            "each in turn, with a lingering close and SO_LINGER"
        ),
        0
    );
    assert_eq!(found("src/worker/a.rs", "a turn that lingers"), 2);
    assert_eq!(
        found("docs/a.md", "the application's templates, in order of size"),
        0
    );
    assert_eq!(found("src/arbiter/a.rs", "Ordering of an Order"), 1);
}
