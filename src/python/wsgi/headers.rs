//! Header names as environ keys: computed once per spelling and thread, then looked up.
//!
//! `-` becomes `_` and the name is upper-cased behind `HTTP_`, except `Content-Type` and `Content-Length` (PEP 3333,
//! "environ Variables"). Which names are taken at all was decided before the request was dispatched
//! (`http/forwarded.rs`): every field that is still in a head gets its key.

use pyo3::prelude::*;
use pyo3::types::PyString;

/// Pairs of slots in which a thread caches spellings. A third spelling of one pair evicts the older: a client that
/// invents spellings costs what it would without a cache, and no more.
const PAIRS: usize = 256;

/// One thread's cache of spellings.
#[derive(Debug)]
pub(super) struct HeaderKeys {
    pairs: Box<[[Option<Spelling>; 2]]>,
}

#[derive(Debug)]
struct Spelling {
    name: Box<[u8]>,
    key: Py<PyString>,
}

impl Default for HeaderKeys {
    fn default() -> Self {
        Self {
            pairs: (0..PAIRS).map(|_| [None, None]).collect(),
        }
    }
}

impl HeaderKeys {
    /// The key of `name` as it was sent.
    pub(super) fn get<'py>(&mut self, py: Python<'py>, name: &[u8]) -> Bound<'py, PyString> {
        let pair = &mut self.pairs[pair_of(name)];
        if let Some(known) = pair.iter().flatten().find(|known| *known.name == *name) {
            return known.key.bind(py).clone();
        }
        let key = PyString::intern(py, &compute_key(name));
        pair.swap(0, 1);
        pair[0] = Some(Spelling {
            name: name.into(),
            key: key.clone().unbind(),
        });
        key
    }
}

/// A hash of the length, the first and the last eight bytes: most names differ in one of them.
fn pair_of(name: &[u8]) -> usize {
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
    let word = |chunk: &[u8; 8]| u64::from_le_bytes(*chunk);
    let (first, last) = match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => (word(first), word(last)),
        _ => (
            0,
            name.iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        ),
    };
    let hash = (first.wrapping_mul(SPREAD) ^ last ^ name.len() as u64).wrapping_mul(SPREAD);
    (hash >> (u64::BITS - PAIRS.ilog2())) as usize
}

fn compute_key(name: &[u8]) -> String {
    let upper = String::from_utf8_lossy(name).to_ascii_uppercase();
    match upper.as_str() {
        "CONTENT-TYPE" => "CONTENT_TYPE".to_owned(),
        "CONTENT-LENGTH" => "CONTENT_LENGTH".to_owned(),
        _ => format!("HTTP_{}", upper.replace('-', "_")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;

    #[test]
    fn two_names_have_no_prefix() {
        assert_eq!(compute_key(b"Content-Type"), "CONTENT_TYPE");
        assert_eq!(compute_key(b"content-length"), "CONTENT_LENGTH");
        assert_eq!(compute_key(b"X-Content-Type"), "HTTP_X_CONTENT_TYPE");
        assert_eq!(compute_key(b"accept"), "HTTP_ACCEPT");
    }

    #[test]
    fn every_name_has_a_pair() {
        for len in 0..40 {
            assert!(pair_of(&vec![b'a'; len]) < PAIRS, "{len}");
        }
    }

    #[test]
    fn an_evicted_spelling_still_has_the_same_key() {
        with_interpreter(|py| {
            let mut keys = HeaderKeys::default();
            let first = keys.get(py, b"X-First");
            for number in 0..10 * PAIRS {
                keys.get(py, format!("x-{number}").as_bytes());
            }
            assert!(keys.get(py, b"X-First").is(&first), "keys are interned");
            assert!(keys.get(py, b"x-first").is(&first));
        });
    }
}
