//! What a rule finds, and what is excused from it: an excuse that excuses nothing is a breach too.

use std::collections::BTreeSet;

/// One place that breaks a rule.
#[derive(Debug)]
pub(crate) struct Breach {
    /// What an excuse names: a file, a struct, a name.
    pub(crate) subject: String,
    /// `file:line: what is wrong and what to do`.
    pub(crate) text: String,
}

impl Breach {
    pub(crate) fn new(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            text: text.into(),
        }
    }
}

/// A subject that may break a rule, and why.
pub(crate) type Excuse = (&'static str, &'static str);

/// The breaches that are not excused, and the excuses that nothing needs.
fn unexcused(breaches: &[Breach], excuses: &[Excuse]) -> Vec<String> {
    let subjects: BTreeSet<&str> = breaches
        .iter()
        .map(|breach| breach.subject.as_str())
        .collect();
    let found = breaches
        .iter()
        .filter(|breach| {
            !excuses
                .iter()
                .any(|(subject, _)| *subject == breach.subject)
        })
        .map(|breach| breach.text.clone());
    let dead = excuses
        .iter()
        .filter(|(subject, _)| !subjects.contains(subject))
        .map(|(subject, _)| {
            format!("{subject}: is excused and has no need to be; delete the excuse")
        });
    found.chain(dead).collect()
}

/// # Panics
/// When there is a breach without an excuse, or an excuse without a breach: one run lists them all.
pub(crate) fn hold(breaches: &[Breach], excuses: &[Excuse]) {
    let found = unexcused(breaches, excuses);
    assert!(
        found.is_empty(),
        "\n{}\n{} breaches\n",
        found.join("\n"),
        found.len()
    );
}

#[test]
fn a_dead_excuse_is_a_breach() {
    let found = [
        Breach::new("a", "a:1: wrong"),
        Breach::new("b", "b:1: wrong"),
    ];
    assert_eq!(unexcused(&found, &[("a", "why")]), ["b:1: wrong"]);
    assert!(unexcused(&found, &[("a", "why"), ("b", "why")]).is_empty());
    assert!(unexcused(&[], &[("c", "why")])[0].starts_with("c: is excused"));
}
