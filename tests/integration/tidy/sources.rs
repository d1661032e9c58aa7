//! The files of the repository, and `src/` as a tree of modules.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::tokens::{self, Token};

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn text_of(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below `folder` with one of `extensions`, relative to the root, sorted.
pub(crate) fn files(folder: &str, extensions: &[&str]) -> Vec<String> {
    const SKIPPED: &[&str] = &[
        "target",
        ".git",
        ".venv",
        "__pycache__",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
    ];
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|e| extensions.iter().any(|wanted| e == *wanted))
            {
                let relative = path.strip_prefix(root()).unwrap();
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// One file of `src/`.
#[derive(Debug)]
pub(crate) struct Source {
    /// As `src/http/head.rs`.
    pub(crate) path: String,
    /// As `["http", "head"]`; empty for `src/lib.rs`.
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
    /// Everything but what only tests compile.
    pub(crate) tokens: Vec<Token>,
    /// Compiled for tests alone, because the module that declares it says so, or one above that.
    pub(crate) is_test: bool,
}

impl Source {
    /// `http` for `src/http/head.rs`, `lib` for `src/lib.rs`.
    pub(crate) fn top_module(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

/// All of `src/`.
#[derive(Debug)]
pub(crate) struct Sources(pub(crate) Vec<Source>);

impl Sources {
    /// The repository's own, read once.
    pub(crate) fn read() -> &'static Self {
        static SOURCES: LazyLock<Sources> = LazyLock::new(|| {
            let paths = files("src", &["rs"]);
            assert!(paths.len() > 100, "the sources were not found");
            Sources::of(paths.into_iter().map(|path| {
                let text = text_of(&path);
                (path, text)
            }))
        });
        &SOURCES
    }

    /// From paths and texts; the rules' own tests make small ones.
    pub(crate) fn of(
        files: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        let mut sources: Vec<Source> = Vec::new();
        let mut tests: BTreeSet<Vec<String>> = BTreeSet::new();
        for (path, text) in files {
            let (path, text) = (path.into(), text.into());
            let all = tokens::read(&path, &text);
            let kept = tokens::without_tests(&all);
            let module = module_of(&path);
            let declared = declared_modules(&kept);
            for name in declared_modules(&all).difference(&declared) {
                tests.insert([module.as_slice(), std::slice::from_ref(name)].concat());
            }
            sources.push(Source {
                path,
                module,
                text,
                tokens: kept,
                is_test: false,
            });
        }
        for source in &mut sources {
            source.is_test =
                (1..=source.module.len()).any(|to| tests.contains(&source.module[..to]));
        }
        Self(sources)
    }

    /// The files that are compiled into the product.
    pub(crate) fn product(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().filter(|source| !source.is_test)
    }

    /// Where each module of the product is written.
    pub(crate) fn by_module(&self) -> BTreeMap<&[String], &Source> {
        self.product()
            .map(|source| (source.module.as_slice(), source))
            .collect()
    }
}

fn module_of(path: &str) -> Vec<String> {
    let inside = Path::new(path).strip_prefix("src").unwrap();
    let mut module: Vec<String> = inside
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.last().is_some_and(|name| name == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// The names of `mod name;`.
fn declared_modules(tokens: &[Token]) -> BTreeSet<String> {
    tokens
        .windows(3)
        .filter(|three| three[0].text == "mod" && three[2].text == ";")
        .map(|three| three[1].text.clone())
        .collect()
}

#[test]
fn files_are_modules_and_know_whether_they_are_tests() {
    let sources = Sources::of([
        ("src/lib.rs", "mod a;"),
        ("src/a/mod.rs", "mod b; #[cfg(test)] mod model;"),
        ("src/a/b.rs", "#[cfg(test)] mod tests;"),
        ("src/a/b/tests.rs", ""),
        ("src/a/model.rs", "mod deep;"),
        ("src/a/model/deep.rs", ""),
    ]);
    let product: Vec<&str> = sources
        .product()
        .map(|source| source.path.as_str())
        .collect();
    assert_eq!(product, ["src/lib.rs", "src/a/mod.rs", "src/a/b.rs"]);
    assert_eq!(sources.0[2].module, ["a", "b"]);
    assert_eq!(sources.0[0].top_module(), "lib");
}
