//! Repository law, read from the files.
//!
//! Each rule has a file or a section of one, a test that holds it against the repository, and tests that show it
//! failing and passing on a few lines. A failing test lists every breach as `file:line: what`, so one run is enough to
//! mend them all.

mod breaches;
// Who may use whom: CONTRIBUTING.md's table.
mod code_map;
// No file uses what uses it.
mod circles;
// Within a module, downwards.
mod layers;
// Methods in few files, private fields, few booleans.
mod structs;
// A state changes in one file.
mod states;
// Typed errors.
mod errors;
// Names, openings, lengths, `unsafe`, unit tests.
mod files;
// Words.
mod glossary;
mod paths;
mod sources;
mod tokens;
