//! Rust source as a flat list of tokens: comments are gone, a string is one token, and each bracket knows its partner.
#![allow(clippy::unwrap_used)]

use std::str::FromStr;

use proc_macro2::{Delimiter, LineColumn, Spacing, TokenStream, TokenTree};

/// One token. `::`, `->` and `=>` are one, as is a lifetime.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    /// In characters from the start of the line.
    #[allow(dead_code, reason = "tests/walk inserts there")]
    pub(crate) column: usize,
    /// For an opening bracket: where its partner stands.
    pub(crate) close: Option<usize>,
}

/// # Panics
/// When `text` is not made of Rust tokens; `name` is the file's, for the message.
pub(crate) fn read(name: &str, text: &str) -> Vec<Token> {
    let stream = TokenStream::from_str(text)
        .unwrap_or_else(|error| panic!("{name}: cannot be read as Rust: {error}"));
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    tokens
}

fn flatten(stream: TokenStream, into: &mut Vec<Token>) {
    let mut joined = String::new();
    for tree in stream {
        let start = tree.span().start();
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                let at = into.len();
                push(into, open, start);
                let last = group.span_close().start();
                flatten(group.stream(), into);
                into[at].close = Some(into.len());
                push(into, close, last);
            }
            TokenTree::Punct(punct) => {
                joined.push(punct.as_char());
                let goes_on = punct.spacing() == Spacing::Joint
                    && matches!(joined.as_str(), ":" | "-" | "=" | "'");
                if !goes_on {
                    push_punctuation(into, &joined, start);
                    joined.clear();
                }
            }
            TokenTree::Ident(ident) => {
                let text = format!("{joined}{ident}");
                joined.clear();
                push(into, &text, start);
            }
            TokenTree::Literal(literal) => push(into, &literal.to_string(), start),
        }
    }
}

/// `::`, `->` and `=>` stay whole; what was joined otherwise (`-=`, `==`) is two tokens.
fn push_punctuation(into: &mut Vec<Token>, joined: &str, start: LineColumn) {
    if matches!(joined, "::" | "->" | "=>") {
        push(into, joined, start);
    } else {
        for character in joined.chars() {
            push(into, &character.to_string(), start);
        }
    }
}

fn push(into: &mut Vec<Token>, text: &str, start: LineColumn) {
    into.push(Token {
        text: text.to_owned(),
        line: start.line,
        column: start.column,
        close: None,
    });
}

/// Take out what is compiled for tests or documentation alone: the items under `#[cfg(test)]`, `#[cfg(doc)]` and
/// `#[test]`.
pub(crate) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept: Vec<Token> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_test_attribute(tokens, at) {
            at = end_of_item(tokens, at);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    pair_brackets(&mut kept);
    kept
}

fn is_test_attribute(tokens: &[Token], at: usize) -> bool {
    let text = |offset: usize| tokens.get(at + offset).map_or("", |token| &token.text);
    if text(0) != "#" || text(1) != "[" {
        return false;
    }
    match text(2) {
        "test" => text(3) == "]",
        "cfg" => {
            matches!(text(4), "test" | "doc") && text(5) == ")"
                || text(4) == "all" && text(6) == "test"
        }
        _ => false,
    }
}

/// Behind the item that starts at `at` with its attributes: behind its `;`, its block, or its field's comma.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|token| token.text == "#") {
        at = tokens[at + 1].close.map_or(at + 1, |close| close + 1);
    }
    while let Some(token) = tokens.get(at) {
        match (token.text.as_str(), token.close) {
            (";" | ",", _) => return at + 1,
            ("<", _) => at = behind_angles(tokens, at),
            ("{", Some(close)) => {
                let is_use = tokens.get(close + 1).is_some_and(|token| token.text == ";");
                return close + 1 + usize::from(is_use);
            }
            // The end of what encloses the item.
            ("}" | ")" | "]", _) => return at,
            (_, Some(close)) => at = close + 1,
            _ => at += 1,
        }
    }
    at
}

fn pair_brackets(tokens: &mut [Token]) {
    let mut open = Vec::new();
    for at in 0..tokens.len() {
        match tokens[at].text.as_str() {
            "(" | "[" | "{" => open.push(at),
            ")" | "]" | "}" => {
                let start: usize = open.pop().unwrap();
                tokens[start].close = Some(at);
            }
            _ => {}
        }
    }
}

/// Behind the `>` that belongs to the `<` at `at`.
pub(crate) fn behind_angles(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "<" => depth += 1,
            ">" => depth -= 1,
            _ => {}
        }
        at = token.close.unwrap_or(at) + 1;
        if depth == 0 {
            break;
        }
    }
    at
}

#[test]
fn tokens_know_their_lines_and_partners() {
    let tokens = read("x", "fn a() -> u8 {\n  b::c('x', \"}\") // }\n}\n");
    let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "fn", "a", "(", ")", "->", "u8", "{", "b", "::", "c", "(", "'x'", ",", "\"}\"", ")",
            "}"
        ]
    );
    assert_eq!(tokens[6].close, Some(15));
    assert_eq!((tokens[7].line, tokens[15].line), (2, 3));
}

#[test]
fn what_only_tests_compile_is_taken_out() {
    let kept = |text: &str| {
        let tokens = without_tests(&read("x", text));
        let texts: Vec<String> = tokens.into_iter().map(|token| token.text).collect();
        texts.join(" ")
    };
    assert_eq!(
        kept("use a; #[cfg(test)] mod tests { fn x() {} } use b;"),
        "use a ; use b ;"
    );
    assert_eq!(kept("#[cfg(test)] mod tests; fn a() {}"), "fn a ( ) { }");
    assert_eq!(
        kept("struct A { #[cfg(test)] b: u8, c: u8 }"),
        "struct A { c : u8 }"
    );
    assert_eq!(kept("#[cfg(test)] #[allow(x)] impl A { }"), "");
    assert_eq!(
        kept("#[cfg(test)] fn a<B, C>() {} fn d() {}"),
        "fn d ( ) { }"
    );
    assert_eq!(kept("#[cfg(test)] use a::{b, c}; x"), "x");
    assert!(kept("#[cfg(not(test))] fn a() {}").ends_with("fn a ( ) { }"));
}
