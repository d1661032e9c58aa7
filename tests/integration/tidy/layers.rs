//! Within a module whose `mod.rs` has a table of layers, a file uses its own layer and those above it in the table.
//!
//! The table stands in the module's documentation under `# Layers`: `| layer | files |`, the files in backticks, the
//! lowest layer first. It names every file of the module.

use std::collections::BTreeMap;

use super::breaches::{Breach, hold};
use super::paths::Paths;
use super::sources::{Source, Sources};

/// Per file of the module, by its name: the layer, counted from the lowest. None without a table.
fn layers(source: &Source) -> Option<BTreeMap<&str, usize>> {
    let table = source.text.split("//! # Layers\n").nth(1)?;
    let rows = table
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .filter(|line| {
            line.starts_with("//! |") && !line.contains("---") && !line.contains("| layer |")
        });
    let mut layers = BTreeMap::new();
    for (layer, row) in rows.enumerate() {
        for name in row.split('`').skip(1).step_by(2) {
            layers.insert(name, layer);
        }
    }
    Some(layers)
}

fn breaches(sources: &Sources) -> Vec<Breach> {
    let paths = Paths::new(sources);
    let mut breaches = Vec::new();
    for parent in sources.product() {
        let Some(layers) = layers(parent) else {
            continue;
        };
        let below = |source: &Source| {
            source
                .module
                .strip_prefix(parent.module.as_slice())
                .and_then(|rest| rest.first().cloned())
        };
        for source in sources.product() {
            let Some(name) = below(source) else {
                continue;
            };
            let Some(layer) = layers.get(name.as_str()) else {
                let text = format!(
                    "{}: the layers of {} do not name `{name}`",
                    source.path, parent.path
                );
                breaches.push(Breach::new(source.path.as_str(), text));
                continue;
            };
            for (used, line) in paths.uses(source) {
                let used = sources
                    .product()
                    .find(|other| other.path == used)
                    .and_then(below);
                let used_layer = used.as_ref().and_then(|used| layers.get(used.as_str()));
                if used_layer.is_some_and(|used_layer| used_layer > layer) {
                    let text = format!(
                        "{}:{line}: uses `{}`, which is in a higher layer",
                        source.path,
                        used.unwrap_or_default()
                    );
                    breaches.push(Breach::new(source.path.as_str(), text));
                }
            }
        }
        for name in layers.keys() {
            if !sources
                .product()
                .any(|source| below(source).as_deref() == Some(name))
            {
                breaches.push(Breach::new(
                    *name,
                    format!(
                        "{}: the layers name `{name}`, which does not exist",
                        parent.path
                    ),
                ));
            }
        }
    }
    breaches
}

#[test]
fn a_file_uses_no_higher_layer() {
    let sources = Sources::read();
    let with_layers: Vec<&str> = sources
        .product()
        .filter(|source| layers(source).is_some())
        .map(|source| source.top_module())
        .collect();
    assert_eq!(
        with_layers,
        ["arbiter", "pool", "tls", "worker"],
        "modules with a table of layers"
    );
    hold(&breaches(sources), &[]);
}

#[test]
fn an_upward_use_a_missing_file_and_an_unknown_one_fail() {
    let found = |rows: &str, b: &str, c: &str| {
        let parent = format!(
            "//! # Layers\n//! | layer | files |\n//! | --- | --- |\n{rows}\nmod b; mod c;"
        );
        let sources = Sources::of([
            ("src/a/mod.rs", parent.as_str()),
            ("src/a/b.rs", b),
            ("src/a/c.rs", c),
        ]);
        breaches(&sources)
            .into_iter()
            .map(|breach| breach.subject)
            .collect::<Vec<_>>()
    };
    let rows = "//! | low | `b` |\n//! | high | `c`: the rest |";
    assert_eq!(
        found(rows, "pub struct B;", "use super::b::B;"),
        Vec::<String>::new()
    );
    assert_eq!(
        found(rows, "use super::c::C;", "pub struct C;"),
        ["src/a/b.rs"]
    );
    assert_eq!(
        found(
            "//! | one | `b`, `c` |",
            "use super::c::C;",
            "pub struct C;"
        ),
        Vec::<String>::new()
    );
    assert_eq!(found("//! | low | `b` |", "", ""), ["src/a/c.rs"]);
    assert_eq!(found("//! | low | `b`, `c`, `d` |", "", ""), ["d"]);
}
