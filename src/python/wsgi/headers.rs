//! Header names as environ keys: worked out once per spelling and thread, then looked up.
//!
//! `-` becomes `_` and the name is upper-cased behind `HTTP_`, except `Content-Type` and `Content-Length` (PEP 3333,
//! "environ Variables"). Which names are taken at all was decided before the request was dispatched
//! (`http/forwarded.rs`): every field that is still in a head gets its key.

use pyo3::prelude::*;
use pyo3::types::PyString;

/// Spellings are remembered per thread in so many pairs of places. A third that wants the same pair takes the place of
/// the older: a client that invents spellings costs what each of them would without a memory, and no more.
const PAIRS: usize = 256;

/// One thread's memory of spellings.
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
        let key = PyString::intern(py, &work_out(name));
        pair.swap(0, 1);
        pair[0] = Some(Spelling {
            name: name.into(),
            key: key.clone().unbind(),
        });
        key
    }
}

/// Any function that spreads common names will do. Most differ in their length, their beginning or their end.
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

fn work_out(name: &[u8]) -> String {
    let upper = String::from_utf8_lossy(name).to_ascii_uppercase();
    match upper.as_str() {
        "CONTENT-TYPE" => "CONTENT_TYPE".to_owned(),
        "CONTENT-LENGTH" => "CONTENT_LENGTH".to_owned(),
        _ => format!("HTTP_{}", upper.replace('-', "_")),
    }
}
