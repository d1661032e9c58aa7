//! What is wrong with `access_log_format` or `access_log_fields`.

/// The operator's mistake in `access_log_format` or `access_log_fields`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("invalid access_log_format at {position}: {reason}")]
    Format {
        position: usize,
        reason: BadConversion,
    },
    #[error("access_log_fields has no field {0:?}")]
    Field(String),
}

/// A `%` that begins no conversion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConversion {
    #[error("expected '%(name)s'")]
    Form,
    #[error("conversion '{letter}' does not fit '{name}'")]
    Letter { letter: char, name: String },
    #[error("the conversion's letter is missing")]
    NoLetter,
    #[error("{0} is too wide")]
    TooWide(String),
}
