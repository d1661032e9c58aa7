//! What is asked at `admin_bind`, and what is answered.

use std::borrow::Cow;

use crate::http::{RequestHead, ResponseHead, Status, percent_decode};

/// A request of which nothing else matters here.
#[derive(Default)]
pub(super) struct Asked {
    method: Method,
    /// Without the query.
    path: Vec<u8>,
    host: Option<Vec<u8>>,
    accept: Option<Vec<u8>>,
    origin: Option<Vec<u8>>,
    fetch_site: Option<Vec<u8>>,
    authorization: Option<Vec<u8>>,
    content_type: Option<Vec<u8>>,
    body: Vec<u8>,
}

/// What is wanted with the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Method {
    /// GET, HEAD.
    Read,
    Post,
    #[default]
    Other,
}

impl Asked {
    pub(super) fn of(head: &RequestHead) -> Self {
        let field = |name: &[u8]| head.field(name).map(<[u8]>::to_vec);
        Self {
            method: match head.method() {
                b"GET" | b"HEAD" => Method::Read,
                b"POST" => Method::Post,
                _ => Method::Other,
            },
            path: head.path().to_vec(),
            host: field(b"host"),
            accept: field(b"accept"),
            origin: field(b"origin"),
            fetch_site: field(b"sec-fetch-site"),
            authorization: field(b"authorization"),
            content_type: field(b"content-type"),
            body: Vec::new(),
        }
    }

    pub(super) fn method(&self) -> Method {
        self.method
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn host(&self) -> Option<&[u8]> {
        self.host.as_deref()
    }

    pub(super) fn accept(&self) -> Option<&[u8]> {
        self.accept.as_deref()
    }

    pub(super) fn push_body(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    /// Whether nothing says that a page of another origin has sent it. Browsers tell; programs do not.
    pub(super) fn is_from_here(&self) -> bool {
        let is_own_origin = self.origin.as_ref().is_none_or(|origin| {
            let place = [&b"http://"[..], b"https://"]
                .iter()
                .find_map(|scheme| origin.strip_prefix(*scheme));
            place.is_some() && place == self.host.as_deref()
        });
        let sites: [&[u8]; 2] = [b"same-origin", b"none"];
        let site = self.fetch_site.as_deref();
        is_own_origin && site.is_none_or(|site| sites.contains(&site))
    }

    /// Whether the body, if there is one, is a form.
    pub(super) fn has_known_form(&self) -> bool {
        self.body.is_empty() || self.is_form()
    }

    fn is_form(&self) -> bool {
        let content_type = self.content_type.as_deref().unwrap_or_default();
        let kind = content_type.split(|byte| *byte == b';').next();
        let kind = kind.unwrap_or_default().trim_ascii();
        kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    }

    /// `Authorization: Bearer TOKEN`, or the form's `token`.
    pub(super) fn token(&self) -> Option<Vec<u8>> {
        match &self.authorization {
            Some(field) => {
                let (scheme, token) = field.split_at_checked(BEARER.len())?;
                let is_bearer = scheme.eq_ignore_ascii_case(BEARER);
                is_bearer.then(|| token.trim_ascii().to_vec())
            }
            None => self.form("token"),
        }
    }

    /// The value of a field of the form.
    pub(super) fn form(&self, name: &str) -> Option<Vec<u8>> {
        let mut pairs = self.body.split(|byte| *byte == b'&');
        pairs.find_map(|pair| {
            let value = pair
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")
                .filter(|_| self.is_form())?;
            let spaced: Vec<u8> = value
                .iter()
                .map(|byte| if *byte == b'+' { b' ' } else { *byte })
                .collect();
            let mut decoded = Vec::new();
            percent_decode(&spaced, &mut decoded);
            Some(decoded)
        })
    }

    #[cfg(test)]
    pub(super) fn post(path: &str, fields: &[(&str, &str)], body: &[u8]) -> Self {
        let field = |name: &str| {
            let found = fields.iter().find(|(given, _)| *given == name);
            found.map(|(_, value)| value.as_bytes().to_vec())
        };
        Self {
            method: Method::Post,
            path: path.as_bytes().to_vec(),
            host: field("host"),
            accept: field("accept"),
            origin: field("origin"),
            fetch_site: field("sec-fetch-site"),
            authorization: field("authorization"),
            content_type: field("content-type"),
            body: body.to_vec(),
        }
    }
}

impl std::fmt::Debug for Asked {
    /// Without what may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked")
            .field("method", &self.method)
            .field("path", &self.path.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

const BEARER: &[u8] = b"Bearer ";

/// A request has its response, or will have it.
#[derive(Debug)]
pub(super) enum Answered {
    Now(Response),
    /// By `AdminServer::complete`.
    Later,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Response {
    status: Status,
    content_type: &'static str,
    /// `Content-Security-Policy`.
    policy: &'static str,
    /// `Allow`, `WWW-Authenticate`.
    more: Option<(&'static str, &'static str)>,
    body: Cow<'static, str>,
}

impl Response {
    fn new(status: Status, content_type: &'static str, body: Cow<'static, str>) -> Self {
        Self {
            status,
            content_type,
            policy: "default-src 'none'; frame-ancestors 'none'",
            more: None,
            body,
        }
    }

    pub(super) fn text(status: Status, body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    pub(super) fn metrics(body: String, content_type: &'static str) -> Self {
        Self::new(Status::OK, content_type, body.into())
    }

    pub(super) fn json(body: String) -> Self {
        Self::new(Status::OK, "application/json", body.into())
    }

    /// A document whose scripts and styles `policy` allows.
    pub(super) fn page(body: &'static str, policy: &'static str) -> Self {
        Self {
            policy,
            ..Self::new(Status::OK, "text/html; charset=utf-8", body.into())
        }
    }

    pub(super) fn not_found() -> Self {
        Self::text(Status::NOT_FOUND, "/, /live, /ready or /metrics\n")
    }

    pub(super) fn only_read() -> Self {
        Self {
            more: Some(("Allow", "GET, HEAD")),
            ..Self::text(Status::METHOD_NOT_ALLOWED, "GET or HEAD\n")
        }
    }

    pub(super) fn only_post() -> Self {
        Self {
            more: Some(("Allow", "POST")),
            ..Self::text(Status::METHOD_NOT_ALLOWED, "POST\n")
        }
    }

    pub(super) fn unauthorized() -> Self {
        let why = "Actions need `Authorization: Bearer TOKEN` or the field `token` of a form\n";
        Self {
            more: Some(("WWW-Authenticate", "Bearer")),
            ..Self::text(Status::UNAUTHORIZED, why)
        }
    }

    pub(super) fn forbidden(why: &'static str) -> Self {
        Self::text(Status::FORBIDDEN, why)
    }

    pub(super) fn unknown_form() -> Self {
        let why = "A body must be application/x-www-form-urlencoded\n";
        Self::text(Status::UNSUPPORTED_MEDIA_TYPE, why)
    }

    pub(super) fn bad_request(why: &'static str) -> Self {
        Self::text(Status::BAD_REQUEST, why)
    }

    /// It cannot be done now.
    pub(super) fn conflict(why: impl Into<Cow<'static, str>>) -> Self {
        Self::text(Status::CONFLICT, why)
    }

    pub(super) fn misdirected() -> Self {
        let why = "The Host field must be an IP address, localhost or the host of admin_bind\n";
        Self::text(Status::MISDIRECTED_REQUEST, why)
    }

    pub(super) fn body(&self) -> &[u8] {
        self.body.as_bytes()
    }

    pub(super) fn head(&self) -> ResponseHead {
        let mut head = ResponseHead::default();
        let line = format!("{} {}", self.status.code, self.status.reason);
        // None of these constants can be refused.
        let _ = head.set_status(line.as_bytes());
        for (name, value) in [
            ("Content-Type", self.content_type),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", self.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ] {
            let _ = head.push(name.as_bytes(), value.as_bytes());
        }
        if let Some((name, value)) = self.more {
            let _ = head.push(name.as_bytes(), value.as_bytes());
        }
        head
    }
}
