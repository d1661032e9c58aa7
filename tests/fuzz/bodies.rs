//! What is done with fuzzed bytes: one function per target, used by cargo-fuzz and by `tests/integration/fuzz.rs`.
//!
//! Each checks that what comes out does not depend on how the bytes arrive, and that what is accepted is accepted by
//! rules that are simpler than ours.

use std::net::IpAddr;

use ferricorn::control::{Asked, Inbox};
use ferricorn::http::{
    BodySize, ChunkedDecoder, ClientAddress, ClientField, Exchange, FrameEvent, FrameScan,
    HeadScan, HeaderPolicy, HeaderTable, Limits, Piece, ProxyHeader, ProxyMode, ProxyParse,
    ProxyRoute, Received, RequestHead, ResponseDefaults, ResponseHead, Rules, Underscores,
    forwarded_client, parse_head, parse_packet, parse_proxy_header,
};
use ferricorn::tls::{PeerCertificate, ciphers};

use crate::transcript::{End, play};

/// A head, whole and byte by byte, strict and with every leniency.
pub(crate) fn head(bytes: &[u8]) {
    let strict = Limits::default();
    let mut lenient = Limits::new(200, 8, 100, 1000);
    lenient.rules = Rules {
        permit_unconventional_method: true,
        permit_unconventional_version: true,
        casefold_method: true,
        permit_obsolete_folding: true,
        strip_header_spaces: true,
    };
    for limits in [strict, lenient] {
        let mut head = RequestHead::default();
        let whole = parse_head(bytes, &mut HeadScan::default(), &limits, &mut head);
        let pieces = head_in_pieces(bytes, &limits);
        match (&whole, &pieces) {
            (Ok(Some((length, framing))), Ok(Some((other, same)))) => {
                assert_eq!(
                    (length, framing),
                    (other, same),
                    "the pieces make another head"
                );
                check_head(&head, &bytes[..*length], &limits);
            }
            // A fault in a line whose end has not arrived may be seen at once or later.
            (Err(_), Err(_) | Ok(None)) | (Ok(None), Ok(None) | Err(_)) => {}
            _ => panic!("whole {whole:?}, in pieces {pieces:?}"),
        }
    }
}

type Parsed = Result<Option<(usize, ferricorn::http::Framing)>, ferricorn::http::ParseError>;

fn head_in_pieces(bytes: &[u8], limits: &Limits) -> Parsed {
    let (mut scan, mut head) = (HeadScan::default(), RequestHead::default());
    for end in 1..=bytes.len() {
        match parse_head(&bytes[..end], &mut scan, limits, &mut head) {
            Ok(None) => {}
            done => return done,
        }
    }
    Ok(None)
}

fn check_head(head: &RequestHead, bytes: &[u8], limits: &Limits) {
    assert!(bytes.ends_with(b"\r\n\r\n"));
    assert!(!bytes.contains(&0), "NUL in a head");
    let bare = |at: usize| match bytes[at] {
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || bytes[at - 1] != b'\r',
        _ => false,
    };
    assert!(!(0..bytes.len()).any(bare), "a bare CR or LF in a head");
    assert!(head.request_line().len() <= limits.request_line_bytes_max);
    assert!(head.fields().count() <= limits.fields_max);
    let named = |wanted: &[u8]| {
        head.fields()
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .count()
    };
    assert!(named(b"host") <= 1 && named(b"content-length") <= 1);
    assert!(named(b"transfer-encoding") == 0 || named(b"content-length") == 0);
    for (name, value) in head.fields() {
        assert!(
            !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte)),
            "{name:?}"
        );
        let is_plain = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
        assert!(value.iter().all(is_plain), "{value:?}");
        assert_eq!(value, value.trim_ascii());
    }
    let target = [head.path(), head.query()];
    assert!(
        target
            .iter()
            .all(|part| part.iter().all(|byte| byte.is_ascii_graphic()))
    );
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A chunked body, whole and in pieces, and against a decoder that knows only the grammar's skeleton.
pub(crate) fn chunked(bytes: &[u8]) {
    let limits = Limits::new(0, 5, 60, 3000);
    let whole = decode(bytes, &[bytes.len()], &limits);
    let every: Vec<usize> = (1..=bytes.len()).collect();
    for ends in [every, cuts(bytes)] {
        let pieces = decode(bytes, &ends, &limits);
        match (&whole, &pieces) {
            (Decoded::Whole(body, at), Decoded::Whole(other, same)) => {
                assert_eq!((body, at), (other, same), "cut at {ends:?}");
            }
            (Decoded::Partial, Decoded::Partial) => {}
            (Decoded::Refused, Decoded::Refused | Decoded::Partial) => {}
            (Decoded::Partial, Decoded::Refused) => {}
            _ => panic!("whole {whole:?}, cut at {ends:?} {pieces:?}"),
        }
    }
    if let Decoded::Whole(body, length) = whole {
        assert!(body.len() <= 3000);
        let expected = skeleton(&bytes[..length]);
        assert_eq!(expected, Some(body), "decoded otherwise by a simple reader");
    }
}

#[derive(Debug)]
enum Decoded {
    /// The body, and how many bytes it took.
    Whole(Vec<u8>, usize),
    Partial,
    Refused,
}

fn decode(bytes: &[u8], ends: &[usize], limits: &Limits) -> Decoded {
    let mut decoder = ChunkedDecoder::default();
    let (mut body, mut from) = (Vec::new(), 0);
    for &end in ends {
        loop {
            let Ok((consumed, piece)) = decoder.decode(&bytes[from..end], limits) else {
                return Decoded::Refused;
            };
            match piece {
                Piece::Data(range) => {
                    assert!(!range.is_empty() && range.end <= consumed);
                    body.extend_from_slice(&bytes[from..end][range]);
                    from += consumed;
                }
                Piece::NeedData => {
                    from += consumed;
                    break;
                }
                Piece::End => return Decoded::Whole(body, from + consumed),
            }
        }
    }
    Decoded::Partial
}

/// The body of chunks that are known to be well-formed; `None` when these bytes are not exactly that.
fn skeleton(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let line = |bytes: &mut &[u8]| {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &bytes[..end];
        *bytes = &bytes[end + 2..];
        Some(line.to_vec())
    };
    loop {
        let size = line(&mut bytes)?;
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let size = digits.fold(0, |size, digit| {
            size << 4
                | char::from(*digit)
                    .to_digit(16)
                    .map_or(0, |digit| digit as usize)
        });
        if size == 0 {
            break;
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
    while !line(&mut bytes)?.is_empty() {}
    bytes.is_empty().then_some(body)
}

/// A connection: requests in, however they arrive; then every call in every order that bytes can ask for.
pub(crate) fn exchange(bytes: &[u8]) {
    let limits = Limits::new(0, 20, 200, 5000);
    let whole = play(bytes, &[bytes.len()], &limits);
    let ends = cuts(bytes);
    let pieces = play(bytes, &ends, &limits);
    assert_eq!(whole.requests, pieces.requests, "cut at {ends:?}");
    let is_open = |end: &End| matches!(end, End::Partial | End::Refused { .. });
    let agree = whole.end == pieces.end || is_open(&whole.end) && is_open(&pieces.end);
    assert!(agree, "{:?}, cut at {ends:?} {:?}", whole.end, pieces.end);
    drive(bytes, &limits);
}

/// Answers as the bytes say: at any time that is legal, with any body, refusing, breaking off, draining.
fn drive(bytes: &[u8], limits: &Limits) {
    let defaults = ResponseDefaults {
        server: b"fuzzed",
        date: b"Thu, 01 Jan 1970 00:00:00 GMT",
    };
    let (mut exchange, mut head, mut out) =
        (Exchange::default(), RequestHead::default(), Vec::new());
    let mut choices = Choices(bytes.len() as u64 ^ u64::from(bytes.first().copied().unwrap_or(0)));
    let (mut from, mut end) = (0, 0);
    let mut calls = 0;
    while calls < 10_000 && !exchange.is_closing() {
        calls += 1;
        if exchange.is_dispatched() || exchange.is_reading_body() && choices.below(50) == 0 {
            answer(&mut exchange, &mut choices, &defaults, &mut out);
        } else {
            // What was not consumed is given again, with more behind it.
            end = bytes.len().min(end + choices.below(64));
            let piece = &bytes[from..end];
            match exchange.receive(piece, limits, &mut head) {
                Err(error) => {
                    exchange.refuse(error.status(), &error.page_message(), &defaults, &mut out);
                }
                Ok(step) => {
                    assert!(step.consumed <= piece.len());
                    from += step.consumed;
                    if step.received == Received::Head && choices.below(2) == 0 {
                        exchange.send_continue(&mut out);
                    }
                    let is_over = step.received == Received::NeedData && end == bytes.len();
                    if is_over && choices.below(4) == 0 {
                        break;
                    }
                }
            }
        }
        exchange.check_invariants();
    }
    assert!(out.is_empty() || out.starts_with(b"HTTP/1."));
    let head_end = out.windows(4).any(|window| window == b"\r\n\r\n");
    assert!(out.is_empty() || head_end, "an answer without a head");
}

fn answer(
    exchange: &mut Exchange,
    choices: &mut Choices,
    defaults: &ResponseDefaults<'_>,
    out: &mut Vec<u8>,
) {
    if choices.below(10) == 0 {
        exchange.close_after_this();
    }
    if choices.below(20) == 0 {
        return exchange.abort();
    }
    let mut head = ResponseHead::default();
    let status = [&b"200 OK"[..], b"204", b"304 x", b"500 y", b"101 z", b"100"][choices.below(6)];
    head.set_status(status).expect("a plain status");
    let length = choices.below(40);
    if choices.below(3) == 0 {
        head.push(b"Content-Length", length.to_string().as_bytes())
            .expect("a plain length");
    }
    if choices.below(10) == 0 {
        head.push(b"Connection", b"close").expect("a plain option");
    }
    let size = match choices.below(3) {
        0 => {
            let whole = exchange.respond_whole(&head, length as u64, defaults, out);
            let taken = usize::try_from(whole.taken).expect("it is short");
            assert!(taken <= length, "more is sent than there is");
            return out.resize(out.len() + taken, b'x');
        }
        1 => BodySize::Exact(length as u64),
        _ => BodySize::Unknown,
    };
    exchange.respond(&head, size, defaults, out);
    let mut left = length;
    while left > 0 {
        let len = 1 + choices.below(left);
        let admitted = exchange.data(len, out);
        assert!(admitted <= len, "more is sent than there is");
        out.resize(out.len() + admitted, b'x');
        exchange.data_end(out);
        left -= len;
    }
    exchange.finish(out);
}

/// The first bytes of a connection: a PROXY header, or none. What more bytes can change is only that more is needed.
pub(crate) fn proxy(bytes: &[u8]) {
    for mode in [ProxyMode::V1, ProxyMode::V2, ProxyMode::Auto] {
        let mut decided = None;
        for end in 0..=bytes.len() {
            let parsed = parse_proxy_header(&bytes[..end], mode);
            if let Some(before) = &decided {
                assert_eq!(
                    before,
                    &parsed.ok(),
                    "{mode:?}: more bytes decide otherwise"
                );
                continue;
            }
            match parsed {
                Ok(ProxyParse::NeedData { .. }) => assert!(end < 4096, "it waits without end"),
                Ok(ProxyParse::Present { length, header }) => {
                    assert!(length <= end, "a header longer than what has arrived");
                    check_proxy_header(&bytes[..length], &header);
                    decided = Some(Some(ProxyParse::Present { length, header }));
                }
                other => decided = Some(other.ok()),
            }
        }
    }
}

fn check_proxy_header(bytes: &[u8], header: &ProxyHeader) {
    let Some(line) = bytes.strip_prefix(b"PROXY ") else {
        let length = u16::from_be_bytes([bytes[14], bytes[15]]);
        assert!(bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
        assert_eq!(bytes.len(), 16 + usize::from(length));
        return;
    };
    assert!(bytes.len() <= 107 && bytes.ends_with(b"\r\n"));
    if let ProxyRoute::Ip { client, proxy } = header.route {
        // Back to words: the same, but for the many ways to write an IPv6 address.
        let ports = format!(" {} {}\r\n", client.port(), proxy.port());
        assert!(line.ends_with(ports.as_bytes()));
        let words = String::from_utf8_lossy(line);
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!((words.len(), words[0]), (5, header.protocol));
        assert_eq!(words[1].parse(), Ok(client.ip()));
        assert_eq!(words[2].parse(), Ok(proxy.ip()));
    }
}

/// Field lines, as a proxy or a client before it may send them: the client's address, names, schemes.
pub(crate) fn forwarded(bytes: &[u8]) {
    let text = [b"GET /app/x HTTP/1.1\r\nHost: h\r\n", bytes, b"\r\n\r\n"].concat();
    let mut head = RequestHead::default();
    let limits = Limits::default();
    if !parse_head(&text, &mut HeadScan::default(), &limits, &mut head)
        .is_ok_and(|end| end.is_some())
    {
        return;
    }
    for hops in 1..5 {
        check_x_forwarded_for(&head, hops);
        // A quoted string may hold anything, so all that a simple reader knows is that the address stands there.
        if let Ok(said) = forwarded_client(&head, ClientField::Forwarded, hops) {
            let is_there = values(&head, b"forwarded").any(|value| {
                value
                    .split(|byte| !byte.is_ascii_hexdigit() && !b".:".contains(byte))
                    .any(|word| begins_with_address(word, ip_of(said)))
            });
            assert!(
                is_there,
                "{said:?} is nowhere in {:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }
    check_policies(&head);
}

fn values<'a>(head: &'a RequestHead, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    head.fields()
        .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn ip_of(address: ClientAddress) -> IpAddr {
    match address {
        ClientAddress::Ip(ip) => ip,
        ClientAddress::WithPort(address) => address.ip(),
    }
}

/// Whether `word` is `ip`, perhaps with a port behind it.
fn begins_with_address(word: &[u8], ip: IpAddr) -> bool {
    let Ok(word) = std::str::from_utf8(word) else {
        return false;
    };
    let without_port = word.rsplit_once(':').map_or(word, |(address, _)| address);
    // An IPv6 address in brackets has a colon behind it, if anything.
    [word, without_port, word.trim_end_matches(':')]
        .iter()
        .any(|word| word.parse() == Ok(ip))
}

/// `X-Forwarded-For` is a list that commas split, and nothing else.
fn check_x_forwarded_for(head: &RequestHead, hops: usize) {
    let said = forwarded_client(head, ClientField::XForwardedFor, hops);
    let all: Vec<&[u8]> = values(head, b"x-forwarded-for").collect();
    let all = all.join(&b","[..]);
    let element = all.rsplit(|byte| *byte == b',').nth(hops - 1);
    let element = element.map(|element| String::from_utf8_lossy(element.trim_ascii()).into_owned());
    if let Some(Ok(ip)) = element.as_deref().map(str::parse::<IpAddr>) {
        assert_eq!(said, Ok(ClientAddress::Ip(ip)), "{element:?}");
    }
    if let Ok(said) = said {
        let element = element.expect("what is believed is there");
        let bare = element.trim_start_matches('[').replace(']', "");
        let shown = ip_of(said);
        let is_it = bare.parse() == Ok(shown)
            || bare
                .rsplit_once(':')
                .is_some_and(|(address, _)| address.parse() == Ok(shown));
        assert!(is_it, "{shown} is not {element:?}");
    }
}

/// Names and schemes by every policy: what is kept cannot be mistaken for anything else.
fn check_policies(head: &RequestHead) {
    let scheme = [("X-Forwarded-Proto".to_owned(), "https".to_owned())];
    let forwarder = ["SCRIPT_NAME".to_owned(), "X_Name".to_owned()];
    for underscores in [Underscores::Drop, Underscores::Refuse, Underscores::Map] {
        for is_trusted in [false, true] {
            let policy = HeaderPolicy::new(underscores, &forwarder, &scheme, b"");
            let mut applied = head.clone();
            let Ok(forwarded) = policy.apply(&mut applied, is_trusted, |_| {}) else {
                continue;
            };
            assert!(is_trusted || forwarded.is_https.is_none() && !forwarded.has_script_name);
            if underscores == Underscores::Map {
                continue;
            }
            let kept: Vec<Vec<u8>> = applied
                .fields()
                .map(|(name, _)| name.to_ascii_lowercase())
                .collect();
            for name in kept.iter().filter(|name| name.contains(&b'_')) {
                assert!(
                    is_trusted && [&b"script_name"[..], b"x_name"].contains(&&name[..]),
                    "{name:?}"
                );
                let dashed: Vec<u8> = name
                    .iter()
                    .map(|byte| if *byte == b'_' { b'-' } else { *byte })
                    .collect();
                assert!(!kept.contains(&dashed), "two spellings of {name:?}");
            }
            let again = policy.apply(&mut applied.clone(), is_trusted, |_| {
                panic!("dropped twice")
            });
            assert!(again.is_ok_and(|again| again == forwarded));
        }
    }
}

/// Places to cut `bytes` at, from the bytes themselves, so that a case is its own seed.
fn cuts(bytes: &[u8]) -> Vec<usize> {
    let sum = bytes.iter().fold(7, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let mut choices = Choices(sum);
    let mut ends: Vec<usize> = (0..choices.below(10))
        .map(|_| choices.below(bytes.len() + 1))
        .collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    ends
}

/// splitmix64.
struct Choices(u64);

impl Choices {
    /// Less than `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed >> 32) % end.max(1) as u64).unwrap_or(0)
    }
}

/// What a client of the control socket sends: the same frames in any pieces, and each of them understood or refused.
pub(crate) fn control(bytes: &[u8]) {
    let whole = frames(bytes, bytes.len().max(1));
    assert_eq!(whole, frames(bytes, 1), "the pieces make other frames");
    // Most mutations break the length, so the bytes are tried as a payload too.
    for payload in whole.0.iter().map(Vec::as_slice).chain([bytes]) {
        if let Asked::Mistake { error, .. } = Asked::read(payload) {
            assert!(!error.is_empty());
        }
    }
}

/// The frames, and whether one was too long.
fn frames(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut inbox = Inbox::new(200);
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        inbox.push(piece);
        loop {
            let is_whole = inbox.is_whole();
            match inbox.take() {
                Ok(Some(payload)) => frames.push(payload),
                Ok(None) => {
                    assert!(!is_whole);
                    break;
                }
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// A cipher list: what it selects are known suites, each once, and a suite that the list ends by removing is not among them.
pub(crate) fn ciphers(bytes: &[u8]) {
    let list = String::from_utf8_lossy(bytes);
    let all = ciphers::select("ALL").expect("there are suites");
    if let Some(suites) = ciphers::select(&list) {
        assert!(!suites.is_empty());
        for (at, suite) in suites.iter().enumerate() {
            assert!(all.contains(suite) && !suites[..at].contains(suite));
        }
    }
    let without = ciphers::select(&format!("{list}:!AES128"));
    assert!(without.is_none_or(|suites| !suites.contains(&0xc02f) && !suites.contains(&0xc02b)));
}

/// A client's certificate: its names become text that can stand in environ and in a log line.
pub(crate) fn certificate(bytes: &[u8]) {
    let Some(certificate) = PeerCertificate::parse(&bytes.into()) else {
        return;
    };
    for name in [&certificate.subject, &certificate.issuer] {
        let text = name.text();
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    assert!(
        certificate
            .serial_number
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
    );
}

/// Frames of HTTP/2, whole and in pieces; the same bytes as header blocks.
pub(crate) fn http2_frames(bytes: &[u8]) {
    let seen = |step: usize| {
        let (mut scan, mut payload_bytes, mut whole) = (FrameScan::default(), 0_u64, Vec::new());
        for piece in bytes.chunks(step) {
            scan.feed(piece, |event, _| match event {
                FrameEvent::Head(_) => payload_bytes = 0,
                FrameEvent::Payload(_, part) => payload_bytes += part.len() as u64,
                FrameEvent::End(head) => {
                    assert_eq!(payload_bytes, u64::from(head.length), "of a whole frame");
                    whole.push(head);
                }
            });
        }
        (whole, scan.is_between_frames())
    };
    let whole = seen(bytes.len().max(1));
    for step in [1, 2, 7] {
        assert_eq!(seen(step), whole, "the pieces make other frames");
    }
    header_blocks(bytes);
}

/// The bytes as two header blocks: what replaces the first is in order, and leaves a table that reads the second alike.
fn header_blocks(bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let (mut table, mut theirs) = (HeaderTable::default(), HeaderTable::default());
    if table.read(first).is_err() {
        return;
    }
    let Some(replaced) = table.replaced(first) else {
        return;
    };
    let found = theirs.read(&replaced);
    assert!(found.is_ok_and(|found| !found.is_to_replace));
    assert_eq!(table.read(second).is_err(), theirs.read(second).is_err());
}

/// A packet of the uwsgi protocol: nothing before its end decides but a refusal, and its head keeps the rules of text.
pub(crate) fn uwsgi(bytes: &[u8]) {
    let limits = Limits::default();
    let mut head = RequestHead::default();
    let whole = parse_packet(bytes, &limits, &mut head);
    for end in 0..bytes.len() {
        let mut part = RequestHead::default();
        match (parse_packet(&bytes[..end], &limits, &mut part), &whole) {
            (Ok(None), _) => {}
            (Ok(Some((length, framing))), Ok(Some(known))) => {
                assert_eq!(&(length, framing), known);
                assert!(length <= end, "a packet longer than what has arrived");
            }
            (Err(error), Err(known)) => assert_eq!(error.status(), known.status()),
            (part, whole) => panic!("{part:?} of {whole:?}"),
        }
    }
    if let Ok(Some((length, framing))) = whole {
        assert!(length <= 4 + usize::from(u16::MAX));
        assert!(!framing.keep_alive && !framing.expects_continue);
        check_head(&head, head.bytes(), &limits);
    }
}
