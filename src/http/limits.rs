//! The limits of a request, and which of gunicorn's leniencies are switched on.
//!
//! Every bound of the parser comes from here; all of them are applied while bytes arrive, not afterwards.

/// A head is in memory until the client has read it. Browsers and curl read 256 to 300 KiB, Go's client 10 MiB; 1 MiB is more
/// than `limit_request_fields` fields of `limit_request_field_size` bytes are.
pub(super) const RESPONSE_HEAD_BYTES_MAX: usize = 1024 * 1024;

/// Bounds on one request. Built once from the settings and shared by every connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest request line, without its CRLF. Over it: 414.
    pub request_line_bytes_max: usize,
    /// The largest number of fields in a head, and in a trailer section. Over it: 431.
    pub fields_max: usize,
    /// The longest field line with its CRLF; bounds a chunk-size line too. Over it: 431.
    pub field_bytes_max: usize,
    /// The longest head; derived from the three above. Over it: 431.
    pub head_bytes_max: usize,
    /// The largest decoded body. Over it: 413. `None` is unlimited.
    pub body_bytes_max: Option<u64>,
    /// Leniencies, all off by default.
    pub rules: Rules,
}

/// gunicorn's settings that admit what is refused by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `permit_unconventional_http_method`: any token, of any length.
    pub permit_unconventional_method: bool,
    /// `permit_unconventional_http_version`: any `HTTP/d.d`.
    pub permit_unconventional_version: bool,
    /// `casefold_http_method`: the method is shown in upper case.
    pub casefold_method: bool,
    /// `permit_obsolete_folding`: a folded line is joined by one space.
    pub permit_obsolete_folding: bool,
    /// `strip_header_spaces`: spaces between name and colon are dropped.
    pub strip_header_spaces: bool,
}

impl Limits {
    /// From the settings' values, clamped as gunicorn clamps them. `limit_request_body` 0 is unlimited.
    pub fn new(
        limit_request_line: usize,
        limit_request_fields: usize,
        limit_request_field_size: usize,
        limit_request_body: u64,
    ) -> Self {
        let request_line_bytes_max = match limit_request_line {
            0 => REQUEST_LINE_UNLIMITED,
            n => n.min(REQUEST_LINE_MAX),
        };
        let fields_max = match limit_request_fields {
            n if n == 0 || n > FIELDS_MAX => FIELDS_MAX,
            n => n,
        };
        let field_bytes_max = match limit_request_field_size {
            0 => FIELD_BYTES_DEFAULT,
            n => n.min(HEAD_BYTES_CAP),
        };
        let fields_bytes = fields_max.saturating_mul(field_bytes_max + 2);
        Self {
            request_line_bytes_max,
            fields_max,
            field_bytes_max,
            head_bytes_max: fields_bytes
                .saturating_add(request_line_bytes_max + 4)
                .min(HEAD_BYTES_CAP),
            body_bytes_max: (limit_request_body > 0).then_some(limit_request_body),
            rules: Rules::default(),
        }
    }
}

impl Default for Limits {
    /// The defaults of gunicorn's settings.
    fn default() -> Self {
        Self::new(4094, 100, FIELD_BYTES_DEFAULT, 0)
    }
}

/// "Unlimited" still needs an end: no URL of use is longer.
const REQUEST_LINE_UNLIMITED: usize = 1 << 20;
/// gunicorn's own ceiling for `limit_request_line`.
const REQUEST_LINE_MAX: usize = 8190;
/// gunicorn's own ceiling for `limit_request_fields`.
const FIELDS_MAX: usize = 32768;
const FIELD_BYTES_DEFAULT: usize = 8190;
/// Offsets into a head are 32 bits wide, and no head is worth more memory than this.
const HEAD_BYTES_CAP: usize = 16 << 20;
const _: () = assert!(HEAD_BYTES_CAP < u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_excess_are_clamped_as_gunicorn_does() {
        let limits = Limits::new(0, 0, 0, 0);
        assert_eq!(limits.request_line_bytes_max, 1 << 20);
        assert_eq!(limits.fields_max, 32768);
        assert_eq!(limits.field_bytes_max, 8190);
        assert_eq!(limits.head_bytes_max, HEAD_BYTES_CAP);
        assert_eq!(limits.body_bytes_max, None);
        let limits = Limits::new(100_000, 40_000, 10, 7);
        assert_eq!(limits.request_line_bytes_max, 8190);
        assert_eq!(limits.fields_max, 32768);
        assert_eq!(limits.body_bytes_max, Some(7));
    }

    #[test]
    fn the_default_head_bound_covers_every_permitted_line() {
        let limits = Limits::default();
        assert_eq!(limits.head_bytes_max, 100 * 8192 + 4094 + 4);
    }
}
