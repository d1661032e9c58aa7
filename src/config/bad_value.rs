//! `BadValue`: why a setting does not take a value, in gunicorn's and Python's words.
//!
//! The text does not name the setting: `config::Error`, which carries it, does.

use super::value::{Value, repr_str};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    #[error("Not a string: {0}")]
    NotText(Value),
    #[error("Not a list of strings: {0}")]
    NotTexts(Value),
    #[error("Value is not a dictionary: {0}")]
    NotMapping(Value),
    #[error("Value must be a path that begins with a slash, such as /-/health: {0}")]
    NotUrlPath(Value),
    #[error("A header value may contain only visible ASCII and spaces: {0}")]
    NotFieldValue(Value),
    #[error("invalid literal for int() with base 0: {}", repr_str(.0))]
    NotInt(String),
    #[error("int() can't convert non-string with explicit base")]
    NotNumeric,
    #[error("Value must be positive: {0}")]
    Negative(String),
    #[error("Not a number of seconds: {}", repr_str(.0))]
    NotSeconds(String),
    #[error("Invalid boolean: {0}")]
    NotBool(String),
    #[error("Invalid type for casting: {0}")]
    WrongType(Value),
    #[error("File {0} does not exists.")]
    NoFile(String),
    #[error("can't chdir to {}", repr_str(.0))]
    NoDirectory(String),
    #[error("every user of the machine can read a command line: give env:NAME or file:PATH")]
    SecretInSight,
    #[error("{} doesn't exist. Can't create workertmp.", .0.display())]
    NoTemporaryDirectory(std::path::PathBuf),
    #[error("No such user: '{0}'")]
    NoUser(String),
    #[error("No such group: '{0}'")]
    NoGroup(String),
    #[error("{} does not appear to be an IPv4 or IPv6 network", repr_str(.0))]
    NotNetwork(String),
    #[error("{0} has host bits set")]
    HostBits(String),
    #[error("proxy_protocol must be string or bool")]
    ProxyProtocolType,
    #[error("proxy_protocol must be: off, v1, v2, or auto")]
    ProxyProtocol,
    #[error("http_protocols must be a string")]
    ProtocolsType,
    #[error("Invalid protocol '{0}'. Valid protocols: h1, h2")]
    Protocol(String),
    #[error("Duplicate protocols specified")]
    DuplicateProtocol,
    #[error("Invalid http2_cleartext: {0}")]
    Cleartext(String),
    #[error("Value must be one of ('host:port', 'unix://PATH')")]
    StatsdAddress,
    #[error("environment setting '{0}' invalid")]
    NotAssignment(String),
    /// The value is outside of the row's own limits or words. The row words the complaint.
    #[error("{0}")]
    OutOfBounds(String),
    /// What Python said while it read the value.
    #[error("{0}")]
    Python(String),
}
