//! Header names as environ keys: worked out once per spelling and thread, then looked up.
//!
//! `-` becomes `_` and the name is upper-cased behind `HTTP_`, except `Content-Type` and `Content-Length` (PEP 3333,
//! "environ Variables"). A name that is spelled with `_` could pass for one spelled with `-`, so it is dropped unless
//! a trusted peer may send it (`forwarder_headers`) or the operator insists (`header_map = "dangerous"`).

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// So many spellings are remembered per thread; a client that invents more pays for its own.
const SPELLINGS_MAX: usize = 512;

/// What decides about header names; from the settings.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderRules {
    /// Upper-case name and the value that means https (`secure_scheme_headers`).
    pub(super) secure_scheme: Vec<(String, String)>,
    /// Upper-case names with `_` that a trusted peer may send; `*` for all (`forwarder_headers`).
    pub(super) forwarder: Vec<String>,
    /// Take every name with `_` (`header_map = "dangerous"`).
    pub(super) dangerous: bool,
}

/// What one spelling of a header name means.
#[derive(Debug)]
pub(super) struct HeaderKey {
    pub(super) key: Py<PyString>,
    /// Who may send it.
    pub(super) from: From,
    /// The value that means https.
    pub(super) secure_value: Option<Box<[u8]>>,
    pub(super) is_script_name: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Anyone,
    Trusted,
    Nobody,
}

/// One thread's memory of spellings.
#[derive(Debug)]
pub(super) struct HeaderKeys {
    rules: Arc<HeaderRules>,
    known: HashMap<Box<[u8]>, Arc<HeaderKey>>,
}

impl HeaderKeys {
    pub(super) fn new(rules: Arc<HeaderRules>) -> Self {
        Self {
            rules,
            known: HashMap::new(),
        }
    }

    /// The meaning of `name` as it was sent.
    pub(super) fn get(&mut self, py: Python<'_>, name: &[u8]) -> Arc<HeaderKey> {
        if let Some(key) = self.known.get(name) {
            return key.clone();
        }
        let key = Arc::new(self.work_out(py, name));
        if self.known.len() < SPELLINGS_MAX {
            self.known.insert(name.into(), key.clone());
        }
        key
    }

    fn work_out(&self, py: Python<'_>, name: &[u8]) -> HeaderKey {
        let upper = String::from_utf8_lossy(name).to_ascii_uppercase();
        let from = if !upper.contains('_') || self.rules.dangerous {
            From::Anyone
        } else if self
            .rules
            .forwarder
            .iter()
            .any(|allowed| *allowed == upper || allowed == "*")
        {
            From::Trusted
        } else {
            From::Nobody
        };
        if from == From::Nobody {
            log::debug!(
                "Header {upper:?} is dropped: its name has an underscore (header_map, forwarder_headers)."
            );
        }
        let secure_value = self
            .rules
            .secure_scheme
            .iter()
            .find(|(name, _)| *name == upper);
        let key = match upper.as_str() {
            "CONTENT-TYPE" => "CONTENT_TYPE".to_owned(),
            "CONTENT-LENGTH" => "CONTENT_LENGTH".to_owned(),
            _ => format!("HTTP_{}", upper.replace('-', "_")),
        };
        HeaderKey {
            key: PyString::intern(py, &key).unbind(),
            from,
            secure_value: secure_value.map(|(_, value)| value.as_bytes().into()),
            is_script_name: upper == "SCRIPT_NAME",
        }
    }
}
