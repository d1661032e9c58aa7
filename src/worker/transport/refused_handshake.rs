//! A handshake that is refused while nothing is encrypted, and the alert that says why.
//!
//! At the client's first message rustls sends an alert for some errors, none for others, and for some a code that the RFCs have for
//! something else. There the alert is written here.

use std::io::{self, Write};

use rustls::server::{AcceptedAlert, ServerConnection};
use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible, ProtocolVersion};

/// An alert of TLS 1.2 and of two bytes (RFC 8446 section 5.1), of the level "fatal".
const FATAL_ALERT: [u8; 6] = [21, 3, 3, 0, 2, 2];
/// Where a first message has the newest version that clients without TLS 1.3 speak: behind the record's head and its own.
const VERSION_AT: std::ops::Range<usize> = 9..11;

/// See the module.
#[derive(Debug)]
pub(super) struct RefusedHandshake {
    alert: Vec<u8>,
    sent: usize,
}

impl RefusedHandshake {
    /// `alert` is rustls' own, perhaps nothing.
    pub(super) fn new(error: &Error, alert: Option<AcceptedAlert>, age: ClientAge) -> Self {
        let mut bytes = Vec::new();
        if let Some(mut alert) = alert {
            // A vector takes everything.
            let _ = alert.write_all(&mut bytes);
        }
        let code =
            code(error, age).or_else(|| bytes.is_empty().then(|| code_of_last_resort(error)));
        if let Some(code) = code {
            bytes = [&FATAL_ALERT[..], &[code.into()]].concat();
        }
        Self {
            alert: bytes,
            sent: 0,
        }
    }

    /// The client of this session, of TLS 1.2, had to show a certificate and has none. `None`: the alert is rustls' own.
    pub(super) fn without_certificate(session: &mut ServerConnection) -> Option<Self> {
        if session.protocol_version() != Some(ProtocolVersion::TLSv1_2) {
            return None;
        }
        let mut alert = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut alert).ok()?;
        }
        // The code that rustls sends is one of TLS 1.3 (RFC 5246 section 7.4.6).
        let code = alert.last_mut()?;
        debug_assert_eq!(*code, u8::from(AlertDescription::CertificateRequired));
        *code = AlertDescription::HandshakeFailure.into();
        Some(Self { alert, sent: 0 })
    }

    /// Send what is left of the alert. Returns 0 when nothing is.
    pub(super) fn write(&mut self, io: &mut impl Write) -> io::Result<usize> {
        let left = &self.alert[self.sent..];
        if left.is_empty() {
            return Ok(0);
        }
        let written = io.write(left)?;
        self.sent += written;
        Ok(written)
    }
}

/// What versions a client speaks, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAge {
    /// TLS 1.1 at most.
    Old,
    Other,
}

impl ClientAge {
    pub(super) fn of(hello: &[u8]) -> Self {
        match hello.get(VERSION_AT) {
            Some([3, 0..=2]) if hello[0] == 22 => Self::Old,
            _ => Self::Other,
        }
    }
}

/// The code where rustls has another.
fn code(error: &Error, age: ClientAge) -> Option<AlertDescription> {
    match error {
        // Such clients do not have that extension, for want of which rustls would refuse them.
        Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired)
            if age == ClientAge::Old =>
        {
            Some(AlertDescription::ProtocolVersion)
        }
        Error::InvalidMessage(InvalidMessage::MessageTooLarge) => {
            Some(AlertDescription::RecordOverflow)
        }
        _ => None,
    }
}

/// The code where rustls has none.
fn code_of_last_resort(error: &Error) -> AlertDescription {
    match error {
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            AlertDescription::UnexpectedMessage
        }
        _ => AlertDescription::DecodeError,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sent(error: &Error, age: ClientAge) -> Vec<u8> {
        let (mut refused, mut out) = (RefusedHandshake::new(error, None, age), Vec::new());
        while refused.write(&mut out).unwrap() > 0 {}
        out
    }

    #[test]
    fn every_refusal_has_an_alert_and_the_right_one() {
        let no_signatures = PeerIncompatible::SignatureAlgorithmsExtensionRequired.into();
        let too_large = InvalidMessage::MessageTooLarge.into();
        let wrong_type = InvalidMessage::InvalidContentType.into();
        let unknown = Error::General("full".into());
        for (error, age, code) in [
            (&no_signatures, ClientAge::Old, 70),
            (&too_large, ClientAge::Other, 22),
            (&wrong_type, ClientAge::Other, 10),
            (&unknown, ClientAge::Other, 50),
        ] {
            assert_eq!(sent(error, age), [21, 3, 3, 0, 2, 2, code], "{error}");
        }
    }

    #[test]
    fn the_age_of_a_client_is_read_from_its_first_bytes() {
        let hello = |version| [22, 3, 1, 0, 99, 1, 0, 0, 95, 3, version, 7];
        let ages = [1, 2, 3].map(|version| ClientAge::of(&hello(version)));
        assert_eq!(ages, [ClientAge::Old, ClientAge::Old, ClientAge::Other]);
        assert_eq!(ClientAge::of(&hello(1)[..10]), ClientAge::Other);
    }
}
