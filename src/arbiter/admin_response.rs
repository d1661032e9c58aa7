//! What is asked at `admin_bind`, and what is answered.

use std::borrow::Cow;

use crate::http::{RequestHead, ResponseHead, Status};

/// A request of which nothing else matters here.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Without the query. Empty for a method that is neither GET nor HEAD.
    pub(super) path: Vec<u8>,
    pub(super) host: Option<Vec<u8>>,
}

impl Asked {
    pub(super) fn of(head: &RequestHead) -> Self {
        Self {
            path: match head.method() {
                b"GET" | b"HEAD" => head.path().to_vec(),
                _ => Vec::new(),
            },
            host: head.field(b"host").map(<[u8]>::to_vec),
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Response {
    status: Status,
    content_type: &'static str,
    /// `Content-Security-Policy`.
    policy: &'static str,
    body: Cow<'static, str>,
}

impl Response {
    fn new(status: Status, content_type: &'static str, body: Cow<'static, str>) -> Self {
        Self {
            status,
            content_type,
            policy: "default-src 'none'; frame-ancestors 'none'",
            body,
        }
    }

    pub(super) fn text(status: Status, body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    pub(super) fn metrics(body: String) -> Self {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
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
        Self::text(NOT_FOUND, "/, /live, /ready or /metrics\n")
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::text(METHOD_NOT_ALLOWED, "GET or HEAD\n")
    }

    pub(super) fn misdirected() -> Self {
        let why = "The Host field must be an IP address, localhost or the host of admin_bind\n";
        Self::text(MISDIRECTED, why)
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
        head
    }
}

const METHOD_NOT_ALLOWED: Status = Status {
    code: 405,
    reason: "Method Not Allowed",
};
const NOT_FOUND: Status = Status {
    code: 404,
    reason: "Not Found",
};
const MISDIRECTED: Status = Status {
    code: 421,
    reason: "Misdirected Request",
};
