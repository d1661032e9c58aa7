//! Heads of responses as messages of the h2 crate, and how much of a body may follow them.

use bytes::Bytes;
use h2::server::SendResponse;
use http_message::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_message::{Response as Message, StatusCode};

use crate::http::{ResponseDefaults, ResponseHead};

/// How much of a body may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyRoom {
    /// HEAD, 204, 304: whatever the application sends stays here.
    None,
    /// Of its Content-Length.
    Left(u64),
    Any,
}

impl BodyRoom {
    /// The room for the body, and the Content-Length to add.
    pub(super) fn choose(
        is_head: bool,
        head: &ResponseHead,
        total: Option<u64>,
    ) -> (Self, Option<u64>) {
        let has_none = matches!(head.status_code(), 204 | 304);
        match (head.content_length(), total) {
            _ if has_none => (Self::None, None),
            // An empty body of a HEAD does not tell the length of what GET would send.
            (None, Some(length)) if is_head && length > 0 => (Self::None, Some(length)),
            _ if is_head => (Self::None, None),
            (Some(length), _) => (Self::Left(length), None),
            (None, Some(length)) => (Self::Left(length), Some(length)),
            (None, None) => (Self::Any, None),
        }
    }

    pub(super) fn admit(&mut self, len: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Left(left) => {
                let admitted = len.min(*left);
                *left -= admitted;
                admitted
            }
            Self::Any => len,
        }
    }

    pub(super) fn missing(self) -> u64 {
        match self {
            Self::Left(left) => left,
            Self::None | Self::Any => 0,
        }
    }
}

/// The head of a response. `None` if HTTP/2 has no such status.
pub(super) fn message(
    head: &ResponseHead,
    added_length: Option<u64>,
    defaults: &ResponseDefaults<'_>,
) -> Option<Message<()>> {
    let code = head.status_code();
    let mut message = Message::new(());
    *message.status_mut() = StatusCode::from_u16(code).ok().filter(|_| code >= 200)?;
    let fields = message.headers_mut();
    copy_fields(head, code == 204, fields);
    if let Some(length) = added_length {
        fields.insert(header::CONTENT_LENGTH, length.into());
    }
    add_defaults(defaults, fields);
    Some(message)
}

/// An interim response. `None` if there is no such status.
pub(super) fn interim(head: &ResponseHead) -> Option<Message<()>> {
    let mut message = Message::new(());
    *message.status_mut() = StatusCode::from_u16(head.status_code()).ok()?;
    copy_fields(head, true, message.headers_mut());
    Some(message)
}

/// Fields that follow the body of a response.
pub(super) fn trailers(head: &ResponseHead) -> HeaderMap {
    let mut fields = HeaderMap::new();
    copy_fields(head, true, &mut fields);
    fields
}

/// The head of an error page of `length` bytes.
pub(super) fn page_message(
    status: u16,
    length: usize,
    defaults: &ResponseDefaults<'_>,
) -> Message<()> {
    let mut message = Message::new(());
    *message.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = message.headers_mut();
    let html = HeaderValue::from_static("text/html");
    fields.insert(header::CONTENT_TYPE, html);
    fields.insert(header::CONTENT_LENGTH, length.into());
    add_defaults(defaults, fields);
    message
}

/// Names become lower case. `Upgrade` and `Proxy-Connection` are for HTTP/1 (RFC 9113 section 8.2.2), and some responses have
/// no Content-Length.
fn copy_fields(head: &ResponseHead, drops_length: bool, into: &mut HeaderMap) {
    for (name, value) in head.fields() {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        else {
            debug_assert!(false, "the response's head was checked");
            continue;
        };
        let is_of_http1 = name == header::UPGRADE || name == "proxy-connection";
        if is_of_http1 || drops_length && name == header::CONTENT_LENGTH {
            continue;
        }
        into.append(name, value);
    }
}

fn add_defaults(defaults: &ResponseDefaults<'_>, into: &mut HeaderMap) {
    for (name, value) in [
        (header::SERVER, defaults.server),
        (header::DATE, defaults.date),
    ] {
        if !value.is_empty()
            && !into.contains_key(&name)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            into.insert(name, value);
        }
    }
}

/// Send a page whole.
pub(super) fn send_whole(
    respond: &mut SendResponse<Bytes>,
    message: Message<()>,
    is_head: bool,
    page: String,
) {
    // A stream that was reset just now needs no page.
    if let Ok(mut out) = respond.send_response(message, is_head)
        && !is_head
    {
        let _ = out.send_data(page.into_bytes().into(), true);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn head(status: &str, fields: &[(&str, &str)]) -> ResponseHead {
        let mut head = ResponseHead::default();
        head.set_status(status.as_bytes()).unwrap();
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes()).unwrap();
        }
        head
    }

    const DEFAULTS: ResponseDefaults<'static> = ResponseDefaults {
        server: b"s",
        date: b"d",
    };

    #[test]
    fn a_head_has_lower_case_names_and_what_every_response_has() {
        let head = head("200 OK", &[("X-A", "1"), ("x-a", "2"), ("Date", "own")]);
        let message = message(&head, Some(5), &DEFAULTS).unwrap();
        let fields = message.headers();
        let all: Vec<_> = fields.get_all("x-a").iter().collect();
        assert_eq!(all, ["1", "2"]);
        assert_eq!(
            (&fields["date"], &fields["server"]),
            (&"own".parse().unwrap(), &"s".parse().unwrap())
        );
        assert_eq!(fields["content-length"], "5");
    }

    #[test]
    fn latin_1_goes_out_as_it_came() {
        let mut head = head("200 OK", &[]);
        head.push(b"x-name", b"caf\xe9").unwrap();
        let message = message(&head, None, &DEFAULTS).unwrap();
        assert_eq!(message.headers()["x-name"].as_bytes(), b"caf\xe9");
    }

    #[test]
    fn an_interim_status_is_no_response_and_upgrade_is_for_http_1() {
        let switching = head("101 Switching Protocols", &[("Upgrade", "websocket")]);
        assert!(message(&switching, None, &DEFAULTS).is_none());
        for of_http1 in [("Upgrade", "websocket"), ("Proxy-Connection", "close")] {
            let message = message(&head("200 OK", &[of_http1]), None, &DEFAULTS).unwrap();
            assert!(!message.headers().contains_key(of_http1.0), "{of_http1:?}");
        }
        let hints = interim(&head("103 Early Hints", &[("Link", "a")])).unwrap();
        assert_eq!((hints.status().as_u16(), hints.headers().len()), (103, 1));
    }

    #[test]
    fn the_room_for_a_body_is_that_of_its_head() {
        let plain = head("200 OK", &[]);
        let declared = head("200 OK", &[("Content-Length", "3")]);
        let choose = BodyRoom::choose;
        assert_eq!(choose(false, &plain, Some(5)), (BodyRoom::Left(5), Some(5)));
        assert_eq!(choose(false, &plain, None), (BodyRoom::Any, None));
        assert_eq!(choose(false, &declared, None), (BodyRoom::Left(3), None));
        assert_eq!(choose(true, &plain, Some(5)), (BodyRoom::None, Some(5)));
        assert_eq!(choose(true, &plain, Some(0)), (BodyRoom::None, None));
        let none = head("204 No Content", &[]);
        assert_eq!(choose(false, &none, Some(5)), (BodyRoom::None, None));
        let mut room = BodyRoom::Left(3);
        assert_eq!((room.admit(2), room.admit(2), room.missing()), (2, 1, 0));
    }
}
