//! Lines for made-up exchanges.

use super::*;

struct Named(&'static [(&'static str, &'static [u8])]);

impl Fields for Named {
    fn field(&self, lowercase_name: &[u8]) -> Option<&[u8]> {
        let found = self
            .0
            .iter()
            .find(|(name, _)| name.as_bytes() == lowercase_name);
        found.map(|(_, value)| *value)
    }
}

const REQUEST: Named = Named(&[
    ("user-agent", b"curl/8 \"quoted\""),
    ("authorization", b"Basic YWxhZGRpbjpvcGVuc2VzYW1l"),
    ("x-forged", b"a\r\n[fake] \x1b[31m\\ \xc3\xa9"),
]);

const RESPONSE: Named = Named(&[("content-type", b"text/plain")]);

fn entry() -> AccessEntry<'static> {
    AccessEntry {
        peer: "127.0.0.1",
        method: b"GET",
        target: b"/a%20b?x=1",
        path: b"/a%20b",
        query: b"x=1",
        version: "HTTP/1.1",
        request: &REQUEST,
        status: 200,
        response: &RESPONSE,
        bytes_sent: 13,
        duration: Duration::from_micros(1_002_003),
        now: 1_795_170_148,
        pid: 42,
    }
}

fn line(format: &str) -> String {
    let mut out = Vec::new();
    AccessFormat::compile(format)
        .unwrap()
        .write(&entry(), &mut out);
    let line = String::from_utf8(out).unwrap();
    line.strip_suffix('\n').unwrap().to_owned()
}

#[test]
fn default_format() {
    let format = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;
    let line = line(format);
    let (before, time_on) = line.split_once('[').unwrap();
    assert_eq!(before, "127.0.0.1 - aladdin ");
    let (_, after) = time_on.split_once(']').unwrap();
    let expected = r#" "GET /a%20b?x=1 HTTP/1.1" 200 13 "-" "curl/8 \"quoted\"""#;
    assert_eq!(after, expected);
}

#[test]
fn every_other_atom() {
    assert_eq!(
        line("%(m)s %(U)s %(q)s %(H)s %(B)s"),
        "GET /a b x=1 HTTP/1.1 13"
    );
    assert_eq!(
        line("%(T)s %(D)s %(M)s %(L)s %(p)s"),
        "1 1002003 1002 1.002003 <42>"
    );
    assert_eq!(line("%({User-Agent}i)s"), r#"curl/8 \"quoted\""#);
    assert_eq!(line("%({Content-Type}o)s %({nope}o)s"), "text/plain -");
    assert_eq!(
        line("%({REQUEST_METHOD}e)s %({HTTP_USER_AGENT}e)s"),
        r#"GET curl/8 \"quoted\""#
    );
    assert_eq!(line("%({wsgi.errors}e)s %(unknown)s"), "- -");
    assert_eq!(line("100%% plain"), "100% plain");
}

#[test]
fn no_value_can_forge_a_line() {
    assert_eq!(
        line("%({x-forged}i)s"),
        r"a\x0D\x0A[fake] \x1B[31m\\ \xC3\xA9"
    );
}

#[test]
fn widths_and_precisions_as_python() {
    assert_eq!(line("[%(s)5s][%(s)-5s][%(m).2s]"), "[  200][200  ][GE]");
    assert_eq!(line("[%(B)05d][%(B)d]"), "[00013][13]");
}

#[test]
fn a_request_that_was_never_understood() {
    let refused = AccessEntry {
        method: b"",
        request: &(),
        response: &(),
        status: 400,
        ..entry()
    };
    let mut out = Vec::new();
    let format = AccessFormat::compile(r#"%(u)s "%(r)s" %(m)s %(s)s"#).unwrap();
    format.write(&refused, &mut out);
    assert_eq!(out, b"- \"-\" - 400\n");
}

#[test]
fn mistakes_are_placed() {
    let message = |format| AccessFormat::compile(format).unwrap_err().to_string();
    assert_eq!(
        message("ok %s"),
        "invalid access_log_format at 3: expected '%(name)s'"
    );
    assert_eq!(
        message("%(h"),
        "invalid access_log_format at 0: expected '%(name)s'"
    );
    assert!(message("%(h)").ends_with("letter is missing"));
    assert!(message("%(h)d").ends_with("conversion 'd' does not fit 'h'"));
    assert!(message("%(h)99999s").ends_with("99999 is too wide"));
}

#[test]
fn bad_credentials_are_a_dash() {
    for value in [&b"Basic"[..], b"Basic !!!", b"Bearer abc", b"Basic YWJj"] {
        struct One<'a>(&'a [u8]);
        impl Fields for One<'_> {
            fn field(&self, _: &[u8]) -> Option<&[u8]> {
                Some(self.0)
            }
        }
        assert_eq!(user(&One(value)), None);
    }
}
