//! What a line of the access log can show: gunicorn's atoms, and more.
//!
//! gunicorn's: `h l u t r m U q H s B b f a T D M L p {x}i {x}o {x}e`. The others have the form of its headers, with an `x`:
//! `%({queue}x)s`.

/// One thing to show of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Atom {
    PeerAddress,
    PeerPort,
    Dash,
    User,
    Time,
    RequestLine,
    Method,
    /// Decoded, below the mount point.
    Path,
    /// As sent.
    RawPath,
    Query,
    Scheme,
    TlsProtocol,
    TlsCipher,
    /// `HTTP/1.1`, and of that the number.
    Version,
    VersionNumber,
    Status,
    BytesReceived,
    BytesSent,
    Seconds,
    Milliseconds,
    Microseconds,
    DecimalSeconds,
    QueueSeconds,
    GilSeconds,
    Pid,
    PidNumber,
    Worker,
    Connection,
    RequestId,
    TraceId,
    SpanId,
    Reason,
    ServerAddress,
    ServerPort,
    RequestField(Vec<u8>),
    ResponseField(Vec<u8>),
    /// All fields of the name, joined as an environ joins them.
    JoinedField(Vec<u8>),
    /// `place` counts what is asked of the environ.
    Environ {
        name: String,
        place: usize,
    },
}

impl Atom {
    /// By its name. An unknown name is no error: gunicorn shows `-` for it.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "h" => Self::PeerAddress,
            "u" => Self::User,
            "t" => Self::Time,
            "r" => Self::RequestLine,
            "m" => Self::Method,
            "U" => Self::Path,
            "q" => Self::Query,
            "H" => Self::Version,
            "s" => Self::Status,
            "b" | "B" => Self::BytesSent,
            "f" => Self::JoinedField(b"referer".to_vec()),
            "a" => Self::JoinedField(b"user-agent".to_vec()),
            "T" => Self::Seconds,
            "D" => Self::Microseconds,
            "M" => Self::Milliseconds,
            "L" => Self::DecimalSeconds,
            "p" => Self::Pid,
            _ => Self::named_in_braces(name).unwrap_or(Self::Dash),
        }
    }

    fn named_in_braces(name: &str) -> Option<Self> {
        let (inner, kind) = name.strip_prefix('{')?.rsplit_once('}')?;
        let lowercase = || inner.to_ascii_lowercase().into_bytes();
        match kind {
            "i" => Some(Self::RequestField(lowercase())),
            "o" => Some(Self::ResponseField(lowercase())),
            "e" => Some(Self::environ(inner)),
            "x" => Self::ours(inner),
            _ => None,
        }
    }

    fn ours(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "queue" => Self::QueueSeconds,
            "gil" => Self::GilSeconds,
            "bytes_in" => Self::BytesReceived,
            "pid" => Self::PidNumber,
            "worker" => Self::Worker,
            "connection" => Self::Connection,
            "request_id" => Self::RequestId,
            "trace_id" => Self::TraceId,
            "port" => Self::PeerPort,
            "scheme" => Self::Scheme,
            "ssl_protocol" => Self::TlsProtocol,
            "ssl_cipher" => Self::TlsCipher,
            "reason" => Self::Reason,
            _ => return None,
        })
    }

    pub(super) fn environ(name: &str) -> Self {
        Self::Environ {
            name: name.to_owned(),
            place: 0,
        }
    }

    /// Whether `%(name)d` makes sense.
    pub(super) fn is_number(&self) -> bool {
        matches!(
            self,
            Self::BytesSent
                | Self::Seconds
                | Self::Milliseconds
                | Self::Microseconds
                | Self::PidNumber
                | Self::Worker
        )
    }
}
