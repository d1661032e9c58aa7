//! Lines for made-up exchanges.

use std::time::Duration;

use super::*;

struct Named(&'static [(&'static str, &'static [u8])]);

impl Fields for Named {
    fn each<'a>(&'a self, lowercase_name: &[u8], found: &mut dyn FnMut(&'a [u8])) {
        let fields = self.0.iter();
        fields
            .filter(|(name, _)| name.as_bytes() == lowercase_name)
            .for_each(|(_, value)| found(value));
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
        peer_port: Some(50123),
        method: b"GET",
        target: b"/a%20b?x=1",
        path: b"/a%20b",
        script_name: b"",
        query: b"x=1",
        version: "HTTP/1.1",
        is_https: false,
        tls: None,
        server: ("127.0.0.1", "8000"),
        request: &REQUEST,
        status: 200,
        response: &RESPONSE,
        environ: &[],
        bytes_received: Some(5),
        bytes_sent: 13,
        duration: Duration::from_micros(1_002_003),
        queued: Some(Duration::from_micros(250)),
        gil_wait: Some(Duration::from_micros(40)),
        now: (1_795_170_148, 123_456_789),
        pid: 42,
        worker: 3,
        connection: (7, 2),
        request_id: b"abc-1",
        trace: None,
        reason: "",
    }
}

fn line(format: &str) -> String {
    line_of(format, &entry())
}

fn line_of(format: &str, entry: &AccessEntry<'_>) -> String {
    let mut out = Vec::new();
    AccessFormat::compile(format)
        .unwrap()
        .write(entry, &mut out);
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
    for value in [&b"Basic"[..], b"Basic !!!", b"Bearer abc", b"Basic Og=="] {
        struct One<'a>(&'a [u8]);
        impl Fields for One<'_> {
            fn each<'a>(&'a self, _: &[u8], found: &mut dyn FnMut(&'a [u8])) {
                found(self.0);
            }
        }
        assert_eq!(values::user(&One(value)), None);
    }
}

#[test]
fn our_atoms() {
    assert_eq!(
        line(
            "%({queue}x)s %({gil}x)s %({bytes_in}x)s %({pid}x)s %({worker}x)s %({connection}x)s %({port}x)s"
        ),
        "0.000250 0.000040 5 42 3 7.2 50123"
    );
    assert_eq!(
        line("%({request_id}x)s %({trace_id}x)s %({scheme}x)s %({reason}x)s %({nope}x)s"),
        "abc-1 - http - -"
    );
    let refused = AccessEntry {
        reason: "bad \"line\"\n",
        trace: Some((b"0af7", b"b7ad")),
        queued: None,
        gil_wait: None,
        bytes_received: None,
        peer_port: None,
        is_https: true,
        tls: Some(("TLSv1.3", "TLS_AES_128_GCM_SHA256")),
        ..entry()
    };
    assert_eq!(
        line_of(
            "%({reason}x)s %({trace_id}x)s %({queue}x)s %({gil}x)s %({bytes_in}x)s %({port}x)s %({scheme}x)s",
            &refused
        ),
        r#"bad \"line\"\x0A 0af7 - - - - https"#
    );
}

#[test]
fn repeated_fields_as_gunicorn() {
    const TWICE: Named = Named(&[
        ("x-twice", b"one"),
        ("x-twice", b"two"),
        ("user-agent", b"a"),
        ("user-agent", b"b"),
    ]);
    let twice = AccessEntry {
        request: &TWICE,
        ..entry()
    };
    assert_eq!(
        line_of("%({x-twice}i)s %(a)s %({user-agent}i)s", &twice),
        "two a,b b"
    );
}

#[test]
fn the_path_is_below_the_mount_point() {
    let mounted = AccessEntry {
        path: b"/site/a%20b",
        script_name: b"/site",
        ..entry()
    };
    assert_eq!(line_of("%(U)s", &mounted), "/a b");
}

#[test]
fn the_environ_is_asked_once_per_atom() {
    let format = AccessFormat::compile("%({REMOTE_USER}e)s %({x.y}e)s %({Request_Method}e)s");
    let format = format.unwrap();
    assert_eq!(
        format.environ_keys(),
        ["REMOTE_USER", "x.y", "Request_Method"]
    );
    let values = [
        Some(b"a\nb".to_vec().into()),
        None,
        Some(b"GET".to_vec().into()),
    ];
    let called = AccessEntry {
        environ: &values,
        ..entry()
    };
    let mut out = Vec::new();
    format.write(&called, &mut out);
    format.write(&entry(), &mut out);
    assert_eq!(out, b"a\\x0Ab - GET\n- - GET\n");
}

fn json(fields: &[&str], entry: &AccessEntry<'_>) -> String {
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    let mut out = Vec::new();
    AccessFormat::with_fields("json", &fields)
        .unwrap()
        .write(entry, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn json_has_types_and_leaves_out_what_is_not_there() {
    assert_eq!(
        json(&[], &entry()),
        concat!(
            r#"{"timestamp":"2026-11-20T10:22:28.123Z","client.address":"127.0.0.1","user.name":"aladdin","#,
            r#""http.request.method":"GET","url.scheme":"http","url.path":"/a%20b","url.query":"x=1","#,
            r#""network.protocol.version":"1.1","http.response.status_code":200,"http.request.body.size":5,"#,
            r#""http.response.body.size":13,"http.server.request.duration":1.002003,"#,
            r#""ferricorn.queue.duration":0.000250,"user_agent.original":"curl/8 \"quoted\"","process.pid":42,"#,
            r#""ferricorn.request.id":"abc-1"}"#,
            "\n"
        )
    );
}

#[test]
fn json_fields_are_chosen_and_renamed() {
    let fields = [
        "ip=client.address",
        "http.request.header.X-Forged",
        "http.response.header.content-type",
        "http.response.header.nope",
        "environ.REQUEST_METHOD",
        "server.address",
        "server.port",
    ];
    assert_eq!(
        json(&fields, &entry()),
        concat!(
            r#"{"ip":"127.0.0.1","http.request.header.X-Forged":["a\r\n[fake] \u001b[31m\\ \u00e9"],"#,
            r#""http.response.header.content-type":["text/plain"],"environ.REQUEST_METHOD":"GET","#,
            r#""server.address":"127.0.0.1","server.port":8000}"#,
            "\n"
        )
    );
    assert_eq!(
        AccessFormat::with_fields("%(h)s", &["client.adress".to_owned()])
            .unwrap_err()
            .to_string(),
        "access_log_fields has no field \"client.adress\""
    );
}

#[test]
fn json_text_is_ascii_whatever_was_sent() {
    let text = |bytes: &[u8]| {
        let mut out = Vec::new();
        values::json_text(bytes, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        text("é \u{2028} 😀\u{7f}".as_bytes()),
        r#""\u00e9 \u2028 \ud83d\ude00\u007f""#
    );
    assert_eq!(text(b"\xff\x00\""), r#""\u00ff\u0000\"""#);
}
