//! An error has a type: no `Result<_, String>` in the product.

use super::breaches::{Breach, hold};
use super::sources::Sources;
use super::tokens::{self, Token};

/// The lines with a `Result` whose error is `String` or `&str`.
fn untyped(tokens: &[Token]) -> Vec<usize> {
    let mut found = Vec::new();
    for at in 0..tokens.len().saturating_sub(1) {
        if tokens[at].text == "Result" && tokens[at + 1].text == "<" {
            let end = tokens::behind_angles(tokens, at + 1) - 1;
            let last = |back: usize| tokens[end - back].text.as_str();
            let is_text = last(1) == "String" && last(2) == ","
                || last(1) == "str" && matches!(last(2), "&" | "'static");
            if is_text {
                found.push(tokens[at].line);
            }
        }
    }
    found
}

fn breaches(sources: &Sources) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for source in sources.product() {
        for line in untyped(&source.tokens) {
            let text = format!("{}:{line}: an error is a text; give it a type", source.path);
            breaches.push(Breach::new(source.path.as_str(), text));
        }
    }
    breaches
}

#[test]
fn errors_have_types() {
    hold(&breaches(Sources::read()), &[]);
}

#[test]
fn an_error_that_is_a_text_fails() {
    let found = |text: &str| breaches(&Sources::of([("src/a.rs", text)])).len();
    assert_eq!(found("fn a() -> Result<Vec<(u8, u8)>, String> {}"), 1);
    assert_eq!(found("fn a() -> Result<(), &'static str> {}"), 1);
    assert_eq!(found("type A = Box<dyn Fn() -> Result<u8, String>>;"), 1);
    assert_eq!(found("fn a() -> Result<String, Error> {}"), 0);
    assert_eq!(found("fn a() -> Result<Map<u8, String>, Error> {}"), 0);
    assert_eq!(found("#[cfg(test)] fn a() -> Result<(), String> {}"), 0);
}
