//! What one client of the simulation says, and what must come of it. Everything follows from the seed.

use std::net::SocketAddr;

/// Randomness that a seed repeats (splitmix64).
#[derive(Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Mostly small, sometimes nothing, now and then more than a socket holds.
    pub(super) fn len(&mut self) -> usize {
        match self.below(20) {
            0..5 => 0,
            5..12 => self.below(40),
            12..19 => self.below(3000),
            _ => self.below(60_000),
        }
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let start = self.below(26);
        (0..len)
            .map(|at| b'a' + ((start + at) % 26) as u8)
            .collect()
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) body: Vec<u8>,
    pub(super) is_http_10: bool,
    /// The connection may go on after it.
    pub(super) keeps: bool,
    pub(super) expects_continue: bool,
    /// Where in the client's bytes it is whole.
    pub(super) end: usize,
}

/// All that a client has to say.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Whom a PROXY header in front names.
    pub(super) peer: Option<SocketAddr>,
    /// How many bytes come before a handshake; `None`: there is none.
    pub(super) plain_bytes: Option<usize>,
    pub(super) bytes: Vec<u8>,
    pub(super) asks: Vec<Ask>,
    /// Behind the asks stands something that must be refused with this status.
    pub(super) refused: Option<u16>,
}

impl Plan {
    pub(super) fn new(client: usize, is_proxied: bool, is_tls: bool, rng: &mut Rng) -> Self {
        let mut plan = Self::default();
        if is_proxied && !plan.introduce(rng) {
            return plan;
        }
        if is_tls && rng.chance(10) {
            // Plain HTTP on a port of TLS.
            plan.bytes.extend_from_slice(SMUGGLED);
            plan.refused = Some(400);
            return plan;
        }
        plan.plain_bytes = is_tls.then_some(plan.bytes.len());
        for number in 0..rng.below(6) {
            plan.ask(format!("/{client}/{number}"), rng);
        }
        match rng.below(10) {
            0..3 => plan.misbehave(rng),
            3..5 => {
                // The last request is never whole.
                plan.ask(format!("/{client}/{}", plan.asks.len()), rng);
                let begin = plan.asks.iter().rev().nth(1);
                let begin = begin.map_or(plan.plain_bytes.unwrap_or(0), |ask| ask.end);
                let cut = begin + rng.below(plan.bytes.len() - begin);
                plan.bytes.truncate(cut);
                plan.asks.pop();
            }
            _ => {}
        }
        plan
    }

    /// The requests of a client of HTTP/2, whose bytes another makes.
    pub(super) fn streams(client: usize, rng: &mut Rng) -> Vec<Ask> {
        (0..1 + rng.below(8))
            .map(|number| {
                let method = rng.pick(&["GET", "GET", "HEAD", "POST", "PUT"]);
                let len = if matches!(method, "POST" | "PUT") {
                    rng.len()
                } else {
                    0
                };
                Ask {
                    method,
                    target: format!("/{client}/{number}"),
                    body: rng.bytes(len),
                    is_http_10: false,
                    keeps: true,
                    expects_continue: false,
                    end: 0,
                }
            })
            .collect()
    }

    /// A PROXY header, or none. Returns whether requests may follow.
    fn introduce(&mut self, rng: &mut Rng) -> bool {
        let client = [192, 0, 2, 1 + rng.below(9) as u8];
        let peer = SocketAddr::from((client, 4000));
        match rng.below(6) {
            0 => {
                let line = format!("PROXY TCP4 {} 127.0.0.1 4000 80\r\n", peer.ip());
                self.bytes.extend_from_slice(line.as_bytes());
                self.peer = Some(peer);
            }
            1 => {
                self.bytes
                    .extend_from_slice(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
                self.bytes.extend_from_slice(&client);
                self.bytes
                    .extend_from_slice(&[127, 0, 0, 1, 0x0f, 0xa0, 0, 80]);
                self.peer = Some(peer);
            }
            2 => self.bytes.extend_from_slice(b"PROXY UNKNOWN\r\n"),
            3 => {
                self.bytes.extend_from_slice(b"PROXY TCP4 nobody\r\n");
                self.bytes.extend_from_slice(SMUGGLED);
                self.refused = Some(400);
                return false;
            }
            _ => {}
        }
        true
    }

    fn ask(&mut self, target: String, rng: &mut Rng) {
        let method = rng.pick(&["GET", "GET", "HEAD", "POST", "POST", "PUT"]);
        let is_http_10 = rng.chance(15);
        let len = if matches!(method, "POST" | "PUT") {
            rng.len()
        } else {
            0
        };
        let body = rng.bytes(len);
        let (version, option) = match (is_http_10, rng.below(8)) {
            (true, 0) => ("1.0", ""),
            (true, _) => ("1.0", "Connection: keep-alive\r\n"),
            (false, 0) => ("1.1", "Connection: close\r\n"),
            (false, _) => ("1.1", ""),
        };
        let keeps = is_http_10 != option.is_empty();
        let is_chunked = !is_http_10 && !body.is_empty() && rng.chance(50);
        let expects_continue = !is_http_10 && !body.is_empty() && rng.chance(30);
        if rng.chance(10) {
            self.bytes.extend_from_slice(b"\r\n");
        }
        let framing = match (is_chunked, body.is_empty()) {
            (true, _) => "Transfer-Encoding: chunked\r\n".to_owned(),
            (false, true) => String::new(),
            (false, false) => format!("Content-Length: {}\r\n", body.len()),
        };
        let expect = if expects_continue {
            "Expect: 100-continue\r\n"
        } else {
            ""
        };
        let head =
            format!("{method} {target} HTTP/{version}\r\nHost: h\r\n{option}{framing}{expect}\r\n");
        self.bytes.extend_from_slice(head.as_bytes());
        if is_chunked {
            self.chunks(&body, rng);
        } else {
            self.bytes.extend_from_slice(&body);
        }
        self.asks.push(Ask {
            method,
            target,
            body,
            is_http_10,
            keeps,
            expects_continue,
            end: self.bytes.len(),
        });
    }

    fn chunks(&mut self, mut body: &[u8], rng: &mut Rng) {
        while !body.is_empty() {
            let (chunk, rest) = body.split_at(1 + rng.below(body.len()));
            let extension = rng.pick(&["", "", ";a", ";a=\"b;c\""]);
            let size = format!("{:x}{extension}\r\n", chunk.len());
            self.bytes.extend_from_slice(size.as_bytes());
            self.bytes.extend_from_slice(chunk);
            self.bytes.extend_from_slice(b"\r\n");
            body = rest;
        }
        let last = rng.pick(&["0\r\n\r\n", "000\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n"]);
        self.bytes.extend_from_slice(last.as_bytes());
    }

    fn misbehave(&mut self, rng: &mut Rng) {
        let (status, fields) = rng.pick(MISDEEDS);
        self.refused = Some(status);
        self.bytes.extend_from_slice(b"POST /refused HTTP/1.1\r\n");
        self.bytes.extend_from_slice(fields.as_bytes());
        // Nothing that follows may be taken for a request.
        self.bytes
            .extend_from_slice(&SMUGGLED.repeat(rng.below(200)));
    }
}

/// What the simulated worker allows in `limit_request_body`: more than any plan's body.
pub(super) const BODY_BYTES_MAX: u64 = 100_000;

const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

const MISDEEDS: &[(u16, &str)] = &[
    (400, "Host : h\r\n\r\n"),
    (400, "X: y\r\n\r\n"),
    (400, "Host: h\r\nContent-Length: +3\r\n\r\nabc"),
    (
        400,
        "Host: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "Host: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX",
    ),
    (
        400,
        "Host: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nno",
    ),
    (
        501,
        "Host: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (413, "Host: h\r\nContent-Length: 100001\r\n\r\nabc"),
    (
        413,
        "Host: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nfffff\r\nx",
    ),
    (
        417,
        "Host: h\r\nExpect: nothing\r\nContent-Length: 3\r\n\r\nabc",
    ),
];
