//! What files looked like, and whether they still do.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The files of one check.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The application's modules. One that is new has just been imported.
    pub modules: Vec<Imported>,
    /// What patterns match. One that is new has just been made, which is a change.
    pub matched: Vec<PathBuf>,
}

/// A module's file, and what it looked like when it was imported: nanoseconds and bytes.
#[derive(Clone, Debug)]
pub struct Imported {
    pub path: PathBuf,
    pub stamp: Option<(i64, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Stamps {
    known: HashMap<PathBuf, Stamp>,
    names: HashSet<OsString>,
    has_looked: bool,
}

/// Time in nanoseconds and size; of a symbolic link, those of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: i64,
    bytes: u64,
}

impl Stamps {
    /// A file that is missing is no change: an editor may be about to put it back.
    pub(super) fn look(&mut self, files: &Files) -> Option<PathBuf> {
        let mut changed = None;
        for module in &files.modules {
            if let Some((modified, bytes)) = module.stamp
                && !self.known.contains_key(&module.path)
            {
                self.learn(&module.path, Stamp { modified, bytes });
            }
            let is_other = self.update(&module.path) == Seen::Other;
            changed = changed.or_else(|| is_other.then(|| module.path.clone()));
        }
        let has_looked = std::mem::replace(&mut self.has_looked, true);
        for path in &files.matched {
            let seen = self.update(path);
            let is_change = seen == Seen::Other || (seen == Seen::New && has_looked);
            changed = changed.or_else(|| is_change.then(|| path.clone()));
        }
        changed
    }

    /// Whether a file of this name could be a watched one.
    pub(super) fn may_concern(&self, name: &Path) -> bool {
        self.names.contains(name.as_os_str()) || name.extension().is_some_and(|end| end == "py")
    }

    fn update(&mut self, path: &Path) -> Seen {
        let Ok(file) = std::fs::metadata(path) else {
            return Seen::Same;
        };
        let stamp = Stamp {
            modified: file.mtime().saturating_mul(1_000_000_000) + file.mtime_nsec(),
            bytes: file.len(),
        };
        match self.known.get_mut(path) {
            Some(known) if *known == stamp => Seen::Same,
            Some(known) => {
                *known = stamp;
                Seen::Other
            }
            None => {
                self.learn(path, stamp);
                Seen::New
            }
        }
    }

    fn learn(&mut self, path: &Path, stamp: Stamp) {
        self.known.insert(path.to_owned(), stamp);
        self.names.extend(path.file_name().map(OsString::from));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Same,
    New,
    Other,
}
