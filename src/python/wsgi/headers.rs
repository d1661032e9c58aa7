//! Header names as environ keys: worked out once per spelling and thread, then looked up.
//!
//! `-` becomes `_` and the name is upper-cased behind `HTTP_`, except `Content-Type` and `Content-Length` (PEP 3333,
//! "environ Variables"). Which names are taken at all was decided before the request was dispatched
//! (`http/forwarded.rs`): every field that is still in a head gets its key.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// So many spellings are remembered per thread; a client that invents more pays for its own.
const SPELLINGS_MAX: usize = 512;

/// One thread's memory of spellings.
#[derive(Debug, Default)]
pub(super) struct HeaderKeys {
    known: HashMap<Box<[u8]>, Py<PyString>>,
}

impl HeaderKeys {
    /// The key of `name` as it was sent.
    pub(super) fn get<'py>(&mut self, py: Python<'py>, name: &[u8]) -> Bound<'py, PyString> {
        if let Some(key) = self.known.get(name) {
            return key.bind(py).clone();
        }
        let key = PyString::intern(py, &work_out(name));
        if self.known.len() < SPELLINGS_MAX {
            self.known.insert(name.into(), key.clone().unbind());
        }
        key
    }
}

fn work_out(name: &[u8]) -> String {
    let upper = String::from_utf8_lossy(name).to_ascii_uppercase();
    match upper.as_str() {
        "CONTENT-TYPE" => "CONTENT_TYPE".to_owned(),
        "CONTENT-LENGTH" => "CONTENT_LENGTH".to_owned(),
        _ => format!("HTTP_{}", upper.replace('-', "_")),
    }
}
