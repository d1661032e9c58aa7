//! Why a connection is ended, or a stream: floods, and errors that the h2 crate would give another code or not see.

use h2::Reason;

use crate::scoreboard::Http2Guard;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// The first frame was not SETTINGS.
    NoSettings,
    /// After an upgrade, something else than the preface has come.
    NoPreface,
    Control,
    EarlyResets,
    ForcedResets,
    EmptyData,
    Continuations,
    Overhead,
    /// A header block that no request could need.
    Block,
    /// A frame of a length that its type, or the connection, cannot have (RFC 9113 section 4.2).
    FrameSize,
    /// An initial window that is larger than windows can be (RFC 9113 section 6.5.2).
    WindowSize,
    /// More padding than the frame has bytes (RFC 9113 section 6.2).
    Padding,
    /// A header block that cannot be decoded (RFC 9113 section 4.3).
    Compression,
    /// A field that has neither name nor value.
    EmptyField,
    /// A frame that stands within a header block (RFC 9113 section 4.3).
    WithinBlock,
    /// A frame on a stream that the client has ended (RFC 9113 section 5.1).
    StreamClosed,
    /// What the h2 crate has found; it has sent this code.
    Found(Reason),
}

impl Violation {
    /// In words, for the log.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::NoSettings => "the first frame is not SETTINGS",
            Self::NoPreface => "the preface of HTTP/2 does not follow the upgrade",
            Self::Control => "more than 1000 PING, SETTINGS or unknown frames in 10 s",
            Self::EarlyResets => "more than 200 requests cancelled before their answer in 10 s",
            Self::ForcedResets => "more than 200 streams with errors in 10 s",
            Self::EmptyData => "more than 100 empty DATA frames in a row",
            Self::Continuations => "too many CONTINUATION frames",
            Self::Overhead => "more frames without use than requests could need",
            Self::Block => "a header block is larger than requests could need",
            Self::FrameSize => "a frame has a length that it cannot have",
            Self::WindowSize => "SETTINGS_INITIAL_WINDOW_SIZE is past its maximum",
            Self::Padding => "a frame has more padding than bytes",
            Self::Compression => "a header block cannot be decoded",
            Self::EmptyField => "a field has neither name nor value",
            Self::WithinBlock => "a frame stands within a header block",
            Self::StreamClosed => "a frame came on a stream that the client has ended",
            Self::Found(Reason::FLOW_CONTROL_ERROR) => {
                "a window was exceeded, or is past its maximum"
            }
            Self::Found(Reason::FRAME_SIZE_ERROR) => Self::FrameSize.what(),
            Self::Found(Reason::COMPRESSION_ERROR) => Self::Compression.what(),
            Self::Found(Reason::STREAM_CLOSED) => Self::StreamClosed.what(),
            Self::Found(Reason::ENHANCE_YOUR_CALM) => Self::Overhead.what(),
            Self::Found(_) => "a frame or a setting is not allowed there",
        }
    }

    /// How it is counted.
    pub(super) fn guard(self) -> Http2Guard {
        match self {
            Self::Control => Http2Guard::Control,
            Self::EarlyResets => Http2Guard::EarlyResets,
            Self::ForcedResets => Http2Guard::ForcedResets,
            Self::EmptyData => Http2Guard::EmptyData,
            Self::Continuations => Http2Guard::Continuations,
            Self::Block => Http2Guard::HeaderBlock,
            Self::Overhead | Self::Found(Reason::ENHANCE_YOUR_CALM) => Http2Guard::Overhead,
            Self::NoSettings
            | Self::NoPreface
            | Self::FrameSize
            | Self::WindowSize
            | Self::WithinBlock
            | Self::Padding
            | Self::Compression
            | Self::EmptyField
            | Self::StreamClosed
            | Self::Found(_) => Http2Guard::Protocol,
        }
    }

    /// The code that the client gets.
    pub(super) fn code(self) -> Reason {
        match self {
            Self::NoSettings
            | Self::NoPreface
            | Self::WithinBlock
            | Self::Padding
            | Self::EmptyField => Reason::PROTOCOL_ERROR,
            Self::Compression => Reason::COMPRESSION_ERROR,
            Self::FrameSize => Reason::FRAME_SIZE_ERROR,
            Self::WindowSize => Reason::FLOW_CONTROL_ERROR,
            Self::StreamClosed => Reason::STREAM_CLOSED,
            Self::Found(code) => code,
            Self::Control
            | Self::EarlyResets
            | Self::ForcedResets
            | Self::EmptyData
            | Self::Continuations
            | Self::Overhead
            | Self::Block => Reason::ENHANCE_YOUR_CALM,
        }
    }
}

/// Errors of a stream alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamFault {
    /// Of trailers: RFC 9113 sections 8.1 and 8.2.1.
    Malformed,
    /// RFC 9113 section 6.9.
    EmptyWindowUpdate,
    /// RFC 9113 section 6.3.
    PrioritySize,
}

impl StreamFault {
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Malformed => "malformed field",
            Self::EmptyWindowUpdate => "WINDOW_UPDATE of nothing",
            Self::PrioritySize => "PRIORITY of a wrong length",
        }
    }

    pub(super) fn code(self) -> Reason {
        match self {
            Self::Malformed | Self::EmptyWindowUpdate => Reason::PROTOCOL_ERROR,
            Self::PrioritySize => Reason::FRAME_SIZE_ERROR,
        }
    }
}

/// Whether a stream is reset with this code for an error of its client's.
pub(super) fn is_clients_fault(code: Reason) -> bool {
    matches!(
        code,
        Reason::PROTOCOL_ERROR
            | Reason::FLOW_CONTROL_ERROR
            | Reason::STREAM_CLOSED
            | Reason::FRAME_SIZE_ERROR
    )
}

/// Why a stream is reset with this code, for the log.
pub(super) fn why_reset(code: Reason) -> &'static str {
    match code {
        Reason::PROTOCOL_ERROR => "malformed request (PROTOCOL_ERROR)",
        Reason::FLOW_CONTROL_ERROR => "more than a window has (FLOW_CONTROL_ERROR)",
        Reason::STREAM_CLOSED => "a frame on a closed stream (STREAM_CLOSED)",
        Reason::FRAME_SIZE_ERROR => "a frame of a wrong length (FRAME_SIZE_ERROR)",
        _ => "more than http2_max_concurrent_streams (REFUSED_STREAM)",
    }
}
