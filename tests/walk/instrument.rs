//! The copy of the sources, with a call at the start of each function.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use super::root;
use super::tokens::{self, Token};

/// Writes a line for each function that is entered: process, thread, the caller's file, the function's file and line.
const RECORDER: &str = r#"//! Made by tests/walk.
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::OnceLock;

thread_local! {
    static CALLERS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
pub struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = CALLERS.try_with(|callers| callers.borrow_mut().pop());
    }
}

pub fn enter(file: &'static str, line: u32) -> Inside {
    static TRACE: OnceLock<Option<File>> = OnceLock::new();
    let open = || OpenOptions::new().append(true).open(std::env::var_os("WALK_TRACE")?).ok();
    let trace = TRACE.get_or_init(open).as_ref();
    let _ = CALLERS.try_with(|callers| {
        let caller = callers.borrow().last().copied().unwrap_or("-");
        if let Some(mut trace) = trace {
            let (process, thread) = (std::process::id(), nix::unistd::gettid());
            let _ = trace.write_all(format!("{process} {thread} {caller} {file} {line}\n").as_bytes());
        }
        callers.borrow_mut().push(file);
    });
    Inside
}
"#;

/// Write the copy and answer where it is.
pub(super) fn copy() -> PathBuf {
    let copy = root().join("target/walk");
    let _ = fs::remove_dir_all(copy.join("src"));
    copy_folder(Path::new("src"), &copy);
    fs::write(copy.join("src/walk.rs"), RECORDER).unwrap();
    let library = fs::read_to_string(copy.join("src/lib.rs")).unwrap();
    fs::write(copy.join("src/lib.rs"), library + "\npub mod walk;\n").unwrap();
    fs::copy(root().join("Cargo.lock"), copy.join("Cargo.lock")).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    fs::write(copy.join("Cargo.toml"), product_alone(&manifest)).unwrap();
    copy
}

fn copy_folder(folder: &Path, to: &Path) {
    fs::create_dir_all(to.join(folder)).unwrap();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let name = folder.join(entry.unwrap().file_name());
        let from = root().join(&name);
        let extension = name.extension().and_then(|extension| extension.to_str());
        match extension {
            _ if from.is_dir() => copy_folder(&name, to),
            Some("rs") => {
                let text = fs::read_to_string(from).unwrap();
                fs::write(to.join(&name), instrumented(&name.to_string_lossy(), &text)).unwrap();
            }
            Some("py" | "html") => {
                fs::copy(from, to.join(&name)).unwrap();
            }
            _ => {}
        }
    }
}

/// The manifest without tests, benches and what they need; a workspace of its own.
fn product_alone(manifest: &str) -> String {
    let sections = format!("\n{manifest}");
    let kept: Vec<&str> = sections
        .split("\n[")
        .filter(|section| {
            let name = section.split(']').next().unwrap_or("");
            !matches!(name, "[test" | "[bench" | "dev-dependencies") && !name.starts_with("profile")
        })
        .collect();
    kept.join("\n[") + "\n[workspace]\n"
}

/// The text with a call at the start of every function that has a statement.
fn instrumented(path: &str, text: &str) -> String {
    let tokens = tokens::read(path, text);
    let mut places: Vec<(usize, usize)> = bodies(&tokens)
        .into_iter()
        .filter(|&(open, close)| has_statement(&tokens[open + 1..close]))
        .map(|(open, _)| (tokens[open].line, tokens[open].column))
        .collect();
    places.sort_unstable();
    let mut out = String::with_capacity(text.len() * 2);
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let mut from = 0;
        let in_line = places.iter().filter(|(number, _)| *number == at + 1);
        for (_, column) in in_line {
            let behind: usize = line.chars().take(column + 1).map(char::len_utf8).sum();
            out.push_str(&line[from..behind]);
            out.push_str("let _walk = crate::walk::enter(file!(), line!());");
            from = behind;
        }
        out.push_str(&line[from..]);
    }
    out
}

/// Where the bodies of functions open and close; without constant functions, which can call nothing, and macros.
fn bodies(tokens: &[Token]) -> Vec<(usize, usize)> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let is_name = |text: &str| text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut bodies = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if text(at) == "macro_rules" {
            while tokens[at].close.is_none() {
                at += 1;
            }
            at = tokens[at].close.unwrap();
        } else if text(at) == "fn" && is_name(text(at + 1)) {
            let is_constant = (1..=3).any(|back| at >= back && text(at - back) == "const");
            let mut open = at + 1;
            while !matches!(text(open), "{" | ";" | "") {
                open = match text(open) {
                    "<" => tokens::behind_angles(tokens, open),
                    _ => tokens[open].close.unwrap_or(open) + 1,
                };
            }
            if let Some(close) = tokens
                .get(open)
                .and_then(|token| token.close)
                .filter(|_| !is_constant)
            {
                bodies.push((open, close));
            }
            // Functions may stand within functions.
            at = open;
        }
        at += 1;
    }
    bodies
}

/// More than one expression: a statement, a block, a branch.
fn has_statement(body: &[Token]) -> bool {
    body.iter()
        .any(|token| matches!(token.text.as_str(), ";" | "{"))
}

#[test]
fn functions_with_statements_get_a_call() {
    let call = "let _walk = crate::walk::enter(file!(), line!());";
    let marked = |text: &str| instrumented("x", text).replace(call, "@");
    assert_eq!(marked("fn a() { b(); }"), "fn a() {@ b(); }");
    assert_eq!(
        marked("fn a(&self) -> u8 { self.a }"),
        "fn a(&self) -> u8 { self.a }"
    );
    assert_eq!(
        marked(
            "impl A<u8> { fn a<T: Fn() -> u8>(é: T) where T: B { if x {} } }\nfn b() {\n c;\n}\n"
        ),
        "impl A<u8> { fn a<T: Fn() -> u8>(é: T) where T: B {@ if x {} } }\nfn b() {@\n c;\n}\n"
    );
    assert_eq!(
        marked("pub const fn a() { b; } type F = fn(u8);"),
        "pub const fn a() { b; } type F = fn(u8);"
    );
    assert_eq!(
        marked("macro_rules! m { () => { fn a() { b; } } }"),
        "macro_rules! m { () => { fn a() { b; } } }"
    );
}

#[test]
fn the_manifest_keeps_the_product() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\nb = \"1\"\n[dev-dependencies]\nc = \"1\"\n[[test]]\nname = \"d\"\n[lints.rust]\ne = \"deny\"";
    assert_eq!(
        product_alone(manifest),
        "\n[package]\nname = \"a\"\n[dependencies]\nb = \"1\"\n[lints.rust]\ne = \"deny\"\n[workspace]\n"
    );
}
