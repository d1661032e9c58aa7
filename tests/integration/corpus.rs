//! Every file of tests/corpus, whole, byte by byte and cut at every offset; then mutated at random.
//!
//! The format is described in tests/corpus/README.md.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use ferricorn::http::Limits;

use crate::transcript::{End, Transcript, play};

/// What a case expects of one request.
#[derive(Debug, Default)]
struct Expected {
    line: Vec<u8>,
    path: Option<Vec<u8>>,
    query: Option<Vec<u8>>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    closes: bool,
    waits: bool,
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    limits: Limits,
    requests: Vec<Expected>,
    end: End,
}

impl Case {
    fn load(path: &Path) -> Self {
        let text = fs::read_to_string(path.with_extension("expect")).unwrap();
        let mut case = Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            bytes: fs::read(path).unwrap(),
            limits: Limits::default(),
            requests: Vec::new(),
            end: End::Idle,
        };
        let mut has_end = false;
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            assert!(!has_end, "{}: nothing may follow `end`", case.name);
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            has_end = key == "end";
            case.read(key, value);
        }
        assert!(has_end, "{}: `end` is missing", case.name);
        case
    }

    fn read(&mut self, key: &str, value: &str) {
        match key {
            "limits" => {
                self.limits = Limits {
                    rules: self.limits.rules,
                    ..parse_limits(value)
                }
            }
            "rules" => value.split(' ').for_each(|name| self.permit(name)),
            "request" => self.requests.push(Expected {
                line: unescape(value),
                ..Expected::default()
            }),
            "end" => self.end = parse_end(value),
            _ => {
                let request = self.requests.last_mut().unwrap();
                match key {
                    "path" => request.path = Some(unescape(value)),
                    "query" => request.query = Some(unescape(value)),
                    "field" => {
                        let (name, value) = value.split_once(':').unwrap();
                        request.fields.push((
                            unescape(name),
                            unescape(value.strip_prefix(' ').unwrap_or(value)),
                        ));
                    }
                    "body" => request.body.extend(unescape(value)),
                    "close" => request.closes = true,
                    "continue" => request.waits = true,
                    _ => panic!("{}: unknown statement {key}", self.name),
                }
            }
        }
    }

    fn permit(&mut self, name: &str) {
        let rules = &mut self.limits.rules;
        match name {
            "method" => rules.permit_unconventional_method = true,
            "version" => rules.permit_unconventional_version = true,
            "casefold" => rules.casefold_method = true,
            "folding" => rules.permit_obsolete_folding = true,
            "spaces" => rules.strip_header_spaces = true,
            _ => panic!("unknown rule {name}"),
        }
    }

    fn check(&self, transcript: &Transcript, way: &str) {
        let place = format!("{} {way}", self.name);
        assert_eq!(
            transcript.requests.len(),
            self.requests.len(),
            "{place}: requests in {transcript:?}"
        );
        for (seen, expected) in transcript.requests.iter().zip(&self.requests) {
            assert_eq!(text(&seen.line), text(&expected.line), "{place}");
            assert_eq!(text(&seen.body), text(&expected.body), "{place}: body");
            assert_eq!(seen.closes, expected.closes, "{place}: close");
            if let Some(path) = &expected.path {
                assert_eq!(text(&seen.path), text(path), "{place}: path");
            }
            if let Some(query) = &expected.query {
                assert_eq!(text(&seen.query), text(query), "{place}: query");
            }
            if !expected.fields.is_empty() {
                assert_eq!(seen.fields, expected.fields, "{place}: fields");
            }
        }
        match (&transcript.end, &self.end) {
            (
                End::Refused { code, message },
                End::Refused {
                    code: expected,
                    message: part,
                },
            ) => {
                assert_eq!(code, expected, "{place}: {message}");
                // In pieces a fault may show before all of it has arrived.
                assert!(
                    way != "whole" || message.contains(part),
                    "{place}: {message:?} without {part:?}"
                );
            }
            (end, expected) => assert_eq!(end, expected, "{place}"),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn parse_limits(value: &str) -> Limits {
    let (mut line, mut fields, mut field, mut body) = (4094, 100, 8190, 0);
    for setting in value.split(' ') {
        let (name, number) = setting.split_once('=').unwrap();
        let number: usize = number.parse().unwrap();
        match name {
            "line" => line = number,
            "fields" => fields = number,
            "field" => field = number,
            "body" => body = number as u64,
            _ => panic!("unknown limit {name}"),
        }
    }
    Limits::new(line, fields, field, body)
}

fn parse_end(value: &str) -> End {
    match value {
        "idle" => End::Idle,
        "partial" => End::Partial,
        "closed" => End::Closed,
        _ => {
            let refusal = value.strip_prefix("refused ").unwrap();
            let (code, message) = refusal.split_once(' ').unwrap_or((refusal, ""));
            End::Refused {
                code: code.parse().unwrap(),
                message: message.to_owned(),
            }
        }
    }
}

fn unescape(value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().unwrap() {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'\\' => b'\\',
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => panic!("unknown escape \\{}", char::from(other)),
        });
    }
    bytes
}

fn cases(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "http")
    });
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| Case::load(path)).collect()
}

fn check_in_every_way(case: &Case) {
    let length = case.bytes.len();
    let whole = play(&case.bytes, &[length], &case.limits);
    case.check(&whole, "whole");
    let every: Vec<usize> = (1..=length).collect();
    let slowly = play(&case.bytes, &every, &case.limits);
    case.check(&slowly, "byte by byte");
    for (waited, expected) in slowly.waited.iter().zip(&case.requests) {
        assert_eq!(*waited, expected.waits, "{}: continue", case.name);
    }
    for cut in 0..=length {
        case.check(
            &play(&case.bytes, &[cut, length], &case.limits),
            &format!("cut at {cut}"),
        );
    }
}

#[test]
fn valid_requests_are_accepted_however_they_arrive() {
    for case in cases("valid") {
        assert!(
            !matches!(case.end, End::Refused { .. }),
            "{} is in the wrong folder",
            case.name
        );
        check_in_every_way(&case);
    }
}

#[test]
fn invalid_requests_are_refused_however_they_arrive() {
    for case in cases("invalid") {
        assert!(
            matches!(case.end, End::Refused { .. }),
            "{} is in the wrong folder",
            case.name
        );
        check_in_every_way(&case);
    }
}

/// `SIM_SEED=n` replays one seed; `SIM_ROUNDS=n` runs longer.
#[test]
fn mutated_requests_neither_panic_nor_depend_on_how_they_arrive() {
    let cases: Vec<Case> = ["valid", "invalid"].into_iter().flat_map(cases).collect();
    let seeds: Vec<Vec<u8>> = cases.iter().map(|case| case.bytes.clone()).collect();
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let rounds = number("SIM_ROUNDS").unwrap_or(20_000);
    let first = number("SIM_SEED").unwrap_or(1);
    let numbers = if number("SIM_SEED").is_some() {
        first..first + 1
    } else {
        first..first + rounds
    };
    for seed in numbers {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let case = &cases[random.below(cases.len())];
        let mut bytes = case.bytes.clone();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, &seeds, &mut random);
        }
        let length = bytes.len();
        let mut ends: Vec<usize> = (0..random.below(12))
            .map(|_| random.below(length + 1))
            .collect();
        ends.sort_unstable();
        ends.push(length);
        let whole = play(&bytes, &[length], &case.limits);
        let pieces = play(&bytes, &ends, &case.limits);
        let place = || format!("SIM_SEED={seed}: {:?} cut at {ends:?}", text(&bytes));
        assert_eq!(whole.requests, pieces.requests, "{}", place());
        // A fault in a line whose end has not arrived may be seen at once or later.
        let may_differ = matches!(
            (&whole.end, &pieces.end),
            (End::Refused { .. }, End::Partial | End::Refused { .. })
                | (End::Partial, End::Refused { .. })
        );
        assert!(
            may_differ || whole.end == pieces.end,
            "{}: {:?} and {:?}",
            place(),
            whole.end,
            pieces.end
        );
    }
}

/// Bytes to begin with, mutated at random.
pub(crate) struct Mutator {
    seeds: Vec<Vec<u8>>,
    random: Random,
}

impl Mutator {
    /// From the files of the corpus.
    pub(crate) fn of_corpus(seed: u64) -> Self {
        let cases = ["valid", "invalid"].into_iter().flat_map(cases);
        Self {
            seeds: cases.map(|case| case.bytes).collect(),
            random: Random(seed | 1),
        }
    }

    /// From lines that are escaped as in an `.expect` file.
    pub(crate) fn of_lines(seed: u64, lines: &str) -> Self {
        Self {
            seeds: lines.lines().map(unescape).collect(),
            random: Random(seed | 1),
        }
    }

    pub(crate) fn mutated(&mut self) -> Vec<u8> {
        let mut bytes = self.seeds[self.random.below(self.seeds.len())].clone();
        for _ in 0..=self.random.below(4) {
            mutate(&mut bytes, &self.seeds, &mut self.random);
        }
        bytes
    }
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(20)).min(bytes.len());
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] = random.next() as u8,
        1 => drop(bytes.drain(at..end)),
        2 => {
            let piece = PIECES[random.below(PIECES.len())];
            bytes.splice(at..at, piece.iter().copied());
        }
        3 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        4 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len().max(1));
            bytes.splice(at.., other[from..].iter().copied());
        }
        _ => bytes.insert(at, PIECES[0][random.below(PIECES[0].len())]),
    }
}

const PIECES: [&[u8]; 14] = [
    b"\r\n\0\t :;,=\"\\0fF\x7f\xff",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Host: h\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b";a=\"b\"",
    b" HTTP/1.1",
    b"HTTP/2.0\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"Expect: 100-continue\r\n",
];

/// xorshift64*: the same everywhere, so that a seed replays.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }
}
