//! What a request's own fields may say about how it came here, and which names are taken at all.
//!
//! The policy is applied to each head once, on the event loop, before the request is dispatched; what is refused is
//! answered there. What is dropped is taken out of the head, so that nothing behind this can mistake it. The rules are
//! gunicorn's (`header_map`, `forwarder_headers`, `secure_scheme_headers`, `SCRIPT_NAME`), and one more: what the
//! application is to believe must be said once.

use super::error::{ParseError, quoted};
use super::fields::is_named;
use super::head::RequestHead;

/// What happens to a field whose name has an underscore and that no trusted peer vouches for (`header_map`). In an
/// environ it could not be told from the one spelled with `-`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    #[default]
    Drop,
    Refuse,
    /// Taken as it is.
    Map,
}

/// The settings that decide.
#[derive(Clone, Debug, Default)]
pub struct HeaderPolicy {
    underscores: Underscores,
    /// Lower-case names with `_` that a trusted peer may send.
    forwarder: Vec<Vec<u8>>,
    /// It may send any.
    forwards_any: bool,
    /// Lower-case name and the value that means https.
    secure_scheme: Vec<(Vec<u8>, Vec<u8>)>,
    /// The marks of those names. Two bytes of a name are enough to rule out nearly all other fields.
    scheme_marks: u64,
    /// `SCRIPT_NAME` of requests that have no such field.
    script_name: Vec<u8>,
}

/// What the trusted fields say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Whether the client spoke https; `None`: no field says.
    pub is_https: Option<bool>,
    /// The head's `SCRIPT_NAME` field counts, not the environment's.
    pub has_script_name: bool,
}

impl HeaderPolicy {
    /// From the settings' values and the environment's `SCRIPT_NAME`.
    pub fn new(
        underscores: Underscores,
        forwarder_headers: &[String],
        secure_scheme_headers: &[(String, String)],
        script_name: &[u8],
    ) -> Self {
        let lower = |name: &str| name.to_ascii_lowercase().into_bytes();
        let secure_scheme: Vec<_> = secure_scheme_headers
            .iter()
            .map(|(name, value)| (lower(name), value.clone().into_bytes()))
            .collect();
        Self {
            underscores,
            forwarder: forwarder_headers.iter().map(|name| lower(name)).collect(),
            forwards_any: forwarder_headers.iter().any(|name| name == "*"),
            scheme_marks: secure_scheme
                .iter()
                .fold(0, |marks, (name, _)| marks | mark(name)),
            secure_scheme,
            script_name: script_name.to_vec(),
        }
    }

    /// Applies the policy to a head; `is_trusted` as `forwarded_allow_ips` has it. `on_dropped` gets each name that is
    /// taken out.
    ///
    /// # Errors
    /// The request must be refused.
    pub fn apply(
        &self,
        head: &mut RequestHead,
        is_trusted: bool,
        on_dropped: impl FnMut(&[u8]),
    ) -> Result<Forwarded, ParseError> {
        let mut forwarded = Forwarded {
            is_https: head.scheme_is_https(),
            ..Forwarded::default()
        };
        let reads_scheme = is_trusted && forwarded.is_https.is_none();
        let mut has_underscores = false;
        for (name, value) in head.fields() {
            has_underscores |= has_underscore(name);
            if reads_scheme && self.scheme_marks & mark(name) != 0 {
                self.note_scheme(name, value, &mut forwarded)?;
            }
        }
        if has_underscores {
            self.apply_to_underscores(head, is_trusted, on_dropped)?;
            forwarded.has_script_name = is_trusted && has_one_script_name(head)?;
        }
        self.check_path(head, forwarded)?;
        Ok(forwarded)
    }

    /// A trusted peer that says anything but the agreed word says http. Two that disagree cannot both be right.
    fn note_scheme(
        &self,
        name: &[u8],
        value: &[u8],
        forwarded: &mut Forwarded,
    ) -> Result<(), ParseError> {
        let Some((_, secure)) = self
            .secure_scheme
            .iter()
            .find(|(known, _)| is_named(name, known))
        else {
            return Ok(());
        };
        let is_https = value == secure;
        match forwarded.is_https.replace(is_https) {
            Some(before) if before != is_https => Err(ParseError::Contradictory("scheme")),
            _ => Ok(()),
        }
    }

    fn apply_to_underscores(
        &self,
        head: &mut RequestHead,
        is_trusted: bool,
        mut on_dropped: impl FnMut(&[u8]),
    ) -> Result<(), ParseError> {
        let is_vouched_for =
            |name: &[u8]| is_trusted && has_underscore(name) && self.forwards(name);
        if self.underscores != Underscores::Map {
            let drops = |name: &[u8]| has_underscore(name) && !is_vouched_for(name);
            let refused = head.fields().find(|(name, _)| drops(name));
            if let (Some((name, _)), Underscores::Refuse) = (refused, self.underscores) {
                return Err(refused_name(name));
            }
            head.retain_fields(|name, _| {
                let is_dropped = drops(name);
                if is_dropped {
                    on_dropped(name);
                }
                !is_dropped
            });
        }
        // The application believes a name that was vouched for; another spelling of it would be added to its value.
        for (name, _) in head.fields().filter(|(name, _)| is_vouched_for(name)) {
            let other = head
                .fields()
                .find(|(other, _)| is_other_spelling(name, other));
            if let Some((other, _)) = other {
                return Err(refused_name(other));
            }
        }
        Ok(())
    }

    fn forwards(&self, name: &[u8]) -> bool {
        self.forwards_any || self.forwarder.iter().any(|known| is_named(name, known))
    }

    fn check_path(&self, head: &RequestHead, forwarded: Forwarded) -> Result<(), ParseError> {
        let script_name = match forwarded.has_script_name {
            true => head.field(SCRIPT_NAME).unwrap_or_default(),
            false => &self.script_name,
        };
        if script_name.is_empty() {
            return Ok(());
        }
        match head.path().starts_with(script_name) {
            true => Ok(()),
            false => Err(ParseError::ScriptName {
                path: quoted(head.path()),
                script_name: quoted(script_name),
            }),
        }
    }
}

/// The field by which a trusted peer says where the application is mounted.
const SCRIPT_NAME: &[u8] = b"script_name";

/// Whether the head has the field. The same value twice counts once; two values are refused, because either could count.
fn has_one_script_name(head: &RequestHead) -> Result<bool, ParseError> {
    let mut values = head
        .fields()
        .filter(|(name, _)| is_named(name, SCRIPT_NAME))
        .map(|(_, value)| value);
    let first = values.next();
    match values.all(|value| Some(value) == first) {
        true => Ok(first.is_some()),
        false => Err(ParseError::Contradictory("SCRIPT_NAME")),
    }
}

/// The same name but for `-` and `_`: the two would be one key of the environ.
fn is_other_spelling(name: &[u8], other: &[u8]) -> bool {
    let folded = |byte: &u8| match byte {
        b'-' => b'_',
        byte => byte.to_ascii_lowercase(),
    };
    name.len() == other.len()
        && name.iter().map(folded).eq(other.iter().map(folded))
        && !name.eq_ignore_ascii_case(other)
}

/// This runs for every name of every request, so it takes eight bytes at a time; the last eight may overlap.
fn has_underscore(name: &[u8]) -> bool {
    let Some(last) = name.last_chunk::<8>() else {
        return name.contains(&b'_');
    };
    let found = |chunk: [u8; 8]| {
        // A byte of `rest` is zero where there was an underscore; borrows spread only from such a byte.
        let rest = u64::from_ne_bytes(chunk) ^ u64::from_ne_bytes([b'_'; 8]);
        rest.wrapping_sub(ONES) & !rest & (ONES << 7)
    };
    let (mut any, mut rest) = (found(*last), name);
    while let Some((chunk, behind)) = rest.split_first_chunk::<8>() {
        any |= found(*chunk);
        rest = behind;
    }
    any != 0
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// One bit of a word, chosen by a name's length and last letter.
fn mark(name: &[u8]) -> u64 {
    let last = name.last().map_or(0, u8::to_ascii_lowercase);
    1 << ((name.len() + 8 * usize::from(last)) % 64)
}

fn refused_name(name: &[u8]) -> ParseError {
    ParseError::FieldName(quoted(&name.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests;
