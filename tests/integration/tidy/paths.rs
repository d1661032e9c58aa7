//! Which paths a file names, and where in `src/` they lead.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Source, Sources};
use super::tokens::{self, Token};

/// A path as it is written, a `use` with braces taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// The name that a `use` makes of it; none for a path in an expression or a type.
    pub(crate) imported_as: Option<String>,
    /// A `pub use` of any width.
    pub(crate) is_public: bool,
}

/// All paths of at least two segments, and every `use`.
pub(crate) fn written(tokens: &[Token]) -> Vec<Written> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        let before = at.checked_sub(1).map_or("", |before| &tokens[before].text);
        let next = tokens.get(at + 1).map_or("", |token| &token.text);
        if text == "use" && next != "<" {
            let is_public = matches!(before, "pub" | ")");
            let mut uses = Uses {
                tokens,
                is_public,
                found: &mut found,
            };
            at = uses.tree(at + 1, &[]);
        } else if is_name(text) && next == "::" && !matches!(before, "::" | ".") {
            let line = tokens[at].line;
            let mut segments = vec![text.to_owned()];
            at += 1;
            while tokens.get(at).is_some_and(|token| token.text == "::")
                && tokens.get(at + 1).is_some_and(|token| is_name(&token.text))
            {
                segments.push(tokens[at + 1].text.clone());
                at += 2;
            }
            found.push(Written {
                segments,
                line,
                imported_as: None,
                is_public: false,
            });
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the tree of one `use`.
struct Uses<'a> {
    tokens: &'a [Token],
    is_public: bool,
    found: &'a mut Vec<Written>,
}

impl Uses<'_> {
    /// The branch that starts at `at` below `prefix`; answers where it ends.
    fn tree(&mut self, mut at: usize, prefix: &[String]) -> usize {
        let mut segments = prefix.to_vec();
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        let mut name = None;
        while let Some(token) = self.tokens.get(at) {
            match token.text.as_str() {
                "::" => at += 1,
                "{" => {
                    let close = token.close.unwrap_or(at);
                    at += 1;
                    while at < close {
                        at = self.tree(at, &segments);
                        at += usize::from(self.tokens[at].text == ",");
                    }
                    return close + 1;
                }
                "as" => {
                    name = self.tokens.get(at + 1).map(|token| token.text.clone());
                    at += 2;
                }
                "self" if !segments.is_empty() => at += 1,
                text if is_name(text) || text == "*" => {
                    segments.push(text.to_owned());
                    at += 1;
                }
                _ => break,
            }
        }
        self.found.push(Written {
            imported_as: name.or_else(|| segments.last().cloned()),
            segments,
            line,
            is_public: self.is_public,
        });
        at
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// What the files of the product name, and where it leads.
#[derive(Debug)]
pub(crate) struct Paths<'a> {
    modules: BTreeMap<&'a [String], &'a Source>,
    /// Per module: the names its `use`s make, as paths from the root of the crate.
    names: BTreeMap<&'a [String], BTreeMap<String, Vec<String>>>,
    /// Per module: the modules it imports with `*`.
    globs: BTreeMap<&'a [String], Vec<Vec<String>>>,
}

impl<'a> Paths<'a> {
    pub(crate) fn new(sources: &'a Sources) -> Self {
        let mut paths = Self {
            modules: sources.by_module(),
            names: BTreeMap::new(),
            globs: BTreeMap::new(),
        };
        for source in sources.product() {
            let mut names = BTreeMap::new();
            let mut globs = Vec::new();
            for path in written(&source.tokens) {
                let Some(name) = path.imported_as else {
                    continue;
                };
                if let Some(mut absolute) = paths.absolute(source, &path.segments) {
                    if name == "*" {
                        absolute.pop();
                        globs.push(absolute);
                    } else {
                        names.insert(name, absolute);
                    }
                }
            }
            paths.names.insert(&source.module, names);
            paths.globs.insert(&source.module, globs);
        }
        paths
    }

    /// The path from the root of the crate; none for what is not of this crate.
    pub(crate) fn absolute(&self, source: &Source, segments: &[String]) -> Option<Vec<String>> {
        let first = segments.first()?.as_str();
        let here = &source.module;
        match first {
            "crate" => Some(segments[1..].to_vec()),
            "self" => Some([here, &segments[1..]].concat()),
            "super" => {
                let up = segments.iter().take_while(|name| *name == "super").count();
                let above = here.get(..here.len().checked_sub(up)?)?;
                Some([above, &segments[up..]].concat())
            }
            _ => {
                let child = [here.as_slice(), &segments[..1]].concat();
                let is_child = self.modules.contains_key(child.as_slice());

                is_child.then(|| [here, segments].concat())
            }
        }
    }

    /// As [`Self::absolute`], and a path that starts with an imported name is followed through that `use`.
    fn followed(&self, source: &Source, path: &Written) -> Option<Vec<String>> {
        if path.imported_as.is_none() {
            let names = self.names.get(source.module.as_slice())?;
            if let Some(start) = names.get(&path.segments[0]) {
                return Some([start, &path.segments[1..]].concat());
            }
        }
        self.absolute(source, &path.segments)
    }

    /// Whether `name` is a module of the crate's root.
    pub(crate) fn is_top_module(&self, name: &str) -> bool {
        self.modules
            .keys()
            .any(|module| module.first().is_some_and(|first| first == name))
    }

    /// The file in which `absolute` is defined, through as many `use`s as it takes; none when `absolute` is a module.
    pub(crate) fn definition(&self, absolute: &[String]) -> Option<&'a Source> {
        self.search(absolute, 0)
    }

    fn search(&self, absolute: &[String], depth: usize) -> Option<&'a Source> {
        const REEXPORTS_MAX: usize = 8;
        let to = (0..=absolute.len())
            .rev()
            .find(|to| self.modules.contains_key(&absolute[..*to]))?;
        let (module, rest) = absolute.split_at(to);
        let name = rest.first()?;
        let source = self.modules[module];
        if depth < REEXPORTS_MAX && !defines(source, name) {
            if let Some(start) = self.names[module].get(name) {
                return self.search(&[start, &rest[1..]].concat(), depth + 1);
            }
            for glob in &self.globs[module] {
                let found = self.search(&[glob.as_slice(), rest].concat(), depth + 1);
                if found.is_some_and(|found| defines(found, name)) {
                    return found;
                }
            }
        }
        Some(source)
    }

    /// The file in which the type that `source` calls `name` is defined.
    pub(crate) fn home_of_type(&self, source: &'a Source, name: &str) -> &'a Source {
        let names = &self.names[source.module.as_slice()];
        let found = names
            .get(name)
            .and_then(|absolute| self.definition(absolute));
        found.unwrap_or(source)
    }

    /// The other files whose items `source` uses, each with the line of its first use.
    ///
    /// A `pub use` alone is a signpost for others and no use; it becomes one when the file names the item again.
    pub(crate) fn uses(&self, source: &'a Source) -> BTreeMap<&'a str, usize> {
        let paths = written(&source.tokens);
        let mentioned = mentioned(&source.tokens);
        let mut uses = BTreeMap::new();
        for path in &paths {
            let is_signpost = path.is_public
                && path
                    .imported_as
                    .as_ref()
                    .is_some_and(|name| !mentioned.contains(name.as_str()));
            let target = self
                .followed(source, path)
                .and_then(|path| self.definition(&path));
            if let Some(target) = target.filter(|target| !is_signpost && target.path != source.path)
            {
                uses.entry(target.path.as_str()).or_insert(path.line);
            }
        }
        uses
    }
}

fn defines(source: &Source, name: &str) -> bool {
    const ITEMS: &[&str] = &[
        "struct",
        "enum",
        "fn",
        "const",
        "static",
        "type",
        "trait",
        "union",
        "macro_rules",
    ];
    source.tokens.windows(3).any(|three| {
        ITEMS.contains(&three[0].text.as_str())
            && (three[1].text == name || three[1].text == "!" && three[2].text == name)
    })
}

/// Every name that stands outside the `use`s.
fn mentioned(tokens: &[Token]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text == "use" {
            while at < tokens.len() && tokens[at].text != ";" {
                at = tokens[at].close.unwrap_or(at) + 1;
            }
        } else {
            names.insert(tokens[at].text.as_str());
            at += 1;
        }
    }
    names
}

#[cfg(test)]
fn shown(text: &str) -> Vec<String> {
    written(&tokens::read("x", text))
        .into_iter()
        .map(|path| match path.imported_as {
            Some(name) => format!("{} as {name}", path.segments.join("::")),
            None => path.segments.join("::"),
        })
        .collect()
}

#[test]
fn a_use_is_taken_apart() {
    assert_eq!(
        shown("use crate::{a::{self, B}, c::D as E}; pub(crate) use super::*;"),
        [
            "crate::a as a",
            "crate::a::B as B",
            "crate::c::D as E",
            "super::* as *"
        ]
    );
}

#[test]
fn paths_are_found_in_expressions_types_and_macros() {
    assert_eq!(
        shown("fn a(b: mio::net::X) { log!(\"{}\", crate::c::d()); Vec::<u8>::new(); e.f(); }"),
        ["mio::net::X", "crate::c::d", "Vec"]
    );
    assert_eq!(
        shown("fn a() -> impl Sized + use<'_> {}"),
        Vec::<String>::new()
    );
}

#[test]
fn a_path_leads_to_the_file_that_defines_the_item() {
    let sources = Sources::of([
        ("src/lib.rs", "pub mod a; pub mod z;"),
        (
            "src/a/mod.rs",
            "mod b; mod c; pub use b::B; pub use c::*; struct Own(B);",
        ),
        ("src/a/b.rs", "use super::Own; pub struct B;"),
        ("src/a/c.rs", "use super::B; pub fn free() {}"),
        (
            "src/z.rs",
            "use crate::a; fn z() { a::free(); crate::a::B::new(); }",
        ),
    ]);
    let paths = Paths::new(&sources);
    let uses = |at: usize| paths.uses(&sources.0[at]).into_keys().collect::<Vec<_>>();
    assert_eq!(
        uses(1),
        ["src/a/b.rs"],
        "`B` is named, `free` is only passed on"
    );
    assert_eq!(uses(2), ["src/a/mod.rs"]);
    assert_eq!(uses(3), ["src/a/b.rs"]);
    assert_eq!(uses(4), ["src/a/b.rs", "src/a/c.rs"]);
}
