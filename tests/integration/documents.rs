//! The documents: each test they name exists, and CONTRIBUTING.md stays short.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether `file::test` is a function of a test file of that name, or of the tests of a source file of that name.
fn exists(file: &str, test: &str) -> bool {
    let mut folders = vec![root().join("tests"), root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if is_named(&path, file) {
                let text = fs::read_to_string(&path).unwrap_or_default();
                if text.contains(&format!("fn {test}(")) || text.contains(&format!("def {test}(")) {
                    return true;
                }
            }
        }
    }
    false
}

fn is_named(path: &Path, file: &str) -> bool {
    let is = |part: Option<&std::ffi::OsStr>| part.is_some_and(|part| part == file);
    is(path.file_stem())
        || path.file_name().is_some_and(|name| name == "tests.rs")
            && is(path.parent().and_then(Path::file_name))
}

fn is_case(folder: &str, number: &str) -> bool {
    let cases = fs::read_dir(root().join("tests/corpus").join(folder)).unwrap();
    cases.into_iter().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with(&format!("{number}-"))
    })
}

#[test]
fn the_page_on_security_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let (mut named, mut missing) = (0, Vec::new());
    for row in rows {
        let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let before = named;
        for name in quoted {
            let found = if let Some((file, test)) = name.split_once("::") {
                exists(file, test)
            } else if let Some(number) = name.strip_prefix("invalid/") {
                is_case("invalid", number)
            } else if let Some(number) = name.strip_prefix("valid/") {
                is_case("valid", number)
            } else {
                continue;
            };
            named += 1;
            if !found {
                missing.push(name);
            }
        }
        let is_heading = row.contains("| shown by |") || row.contains("---");
        assert!(is_heading || named > before, "no test is named: {row}");
    }
    assert!(named > 50, "the page was not read");
    assert!(missing.is_empty(), "named, but not there: {missing:?}");
}

/// As `wc -w` counts.
const CONTRIBUTING_WORDS_MAX: usize = 1800;

#[test]
fn contributing_can_be_read_in_ten_minutes() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let words = page.split_whitespace().count();
    assert!(
        words <= CONTRIBUTING_WORDS_MAX,
        "CONTRIBUTING.md has {words} words, {CONTRIBUTING_WORDS_MAX} are allowed"
    );
}

/// Files that a page names in backticks, from the folder `src/`, from its neighbour in the same cell or sentence, or
/// from the root.
#[test]
fn contributing_names_files_that_exist() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let mut missing = Vec::new();
    let mut count = 0;
    for line in page.lines() {
        let mut folder = PathBuf::new();
        for name in line.split('`').skip(1).step_by(2) {
            let is_file = [".rs", ".py", ".toml"]
                .iter()
                .any(|end| name.ends_with(end));
            if !is_file || name.contains(' ') || matches!(name, "mod.rs" | "tests.rs") {
                continue;
            }
            count += 1;
            let places = [
                "src",
                "tests/integration",
                "tests/python",
                "src/ferricorn",
                "",
            ]
            .map(|start| root().join(start).join(name));
            let beside = root().join("src").join(&folder).join(name);
            if places.iter().chain([&beside]).all(|place| !place.exists()) {
                missing.push(name);
            }
            if let Some(parent) = Path::new(name)
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
            {
                folder = parent.to_path_buf();
            }
        }
    }
    assert!(count > 30, "the page was not read");
    assert!(missing.is_empty(), "named, but not there: {missing:?}");
}
