//! `Error`: what is wrong with a setting, with its name, its value and the place it came from.

use super::bad_value::BadValue;
use super::sources::Source;

/// What the operator got wrong. Display is one line; the launcher prints each after `Error: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("Invalid value for {name}: {value} ({origin}): {reason}")]
    Invalid {
        name: &'static str,
        value: String,
        origin: Source,
        reason: BadValue,
    },
    /// gunicorn takes the value and ferricorn does not. The message says what to do instead.
    #[error("{name} = {value} ({origin}) is not available: {message}")]
    Refused {
        name: &'static str,
        value: String,
        origin: Source,
        message: String,
    },
    #[error("No application module specified.")]
    NoApplication,
}

impl Error {
    /// The setting that has the wrong value.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { name, .. } | Self::Refused { name, .. } => Some(name),
            Self::NoApplication => None,
        }
    }
}
