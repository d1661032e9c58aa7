//! One client of the simulation: sends and reads as the seed says, and at the end compares what it has read with
//! what it should have.

use super::application::Answer;
use super::client_socket::{ClientSocket, End};
use super::plan::{Ask, Plan};

#[derive(Debug)]
pub(super) struct Client {
    pub(super) plan: Plan,
    /// `None` once the client has gone away.
    socket: Option<ClientSocket>,
    sent: usize,
    received: Vec<u8>,
    /// The server has closed its side.
    pub(super) ended: bool,
    pub(super) was_reset: bool,
    /// Went away in the middle: nothing is owed to it.
    pub(super) went_away: bool,
    is_shut: bool,
    /// What the application said to its requests, in the order in which they reached it.
    pub(super) answers: Vec<Answer>,
    pub(super) in_flight: bool,
}

impl Client {
    pub(super) fn new(plan: Plan, socket: ClientSocket) -> Self {
        Self {
            plan,
            socket: Some(socket),
            sent: 0,
            received: Vec::new(),
            ended: false,
            was_reset: false,
            went_away: false,
            is_shut: false,
            answers: Vec::new(),
            in_flight: false,
        }
    }

    pub(super) fn has_sent_all(&self) -> bool {
        self.sent == self.plan.bytes.len()
    }

    /// Send at most `len` bytes of the plan. Returns how many bytes moved.
    pub(super) fn send(&mut self, len: usize) -> usize {
        let end = self.plan.bytes.len().min(self.sent + len);
        let Some(socket) = self.socket.as_mut().filter(|_| !self.is_shut) else {
            return 0;
        };
        let written = socket.write(&self.plan.bytes[self.sent..end]);
        self.sent += written.counted;
        written.moved
    }

    /// Read at most `len` bytes. Returns how many.
    pub(super) fn read(&mut self, len: usize) -> usize {
        let Some(socket) = self.socket.as_mut().filter(|_| !self.ended) else {
            return 0;
        };
        match socket.read(len, &mut self.received) {
            Ok(moved) => moved,
            Err(end) => {
                self.was_reset = end == End::Reset;
                self.ended = true;
                0
            }
        }
    }

    /// Say that nothing more will come. Returns whether that is news.
    pub(super) fn shut(&mut self) -> bool {
        let Some(socket) = self.socket.as_mut().filter(|_| !self.is_shut) else {
            return false;
        };
        self.is_shut = socket.shut();
        self.is_shut
    }

    /// Go away without a word.
    pub(super) fn go_away(&mut self) {
        self.socket = None;
        self.went_away = true;
    }

    /// How many requests must have been answered, if nothing came between.
    fn owed(&self) -> usize {
        let mut owed = 0;
        for (number, ask) in self.plan.asks.iter().enumerate() {
            if ask.end > self.sent {
                break;
            }
            owed = number + 1;
            if self
                .answers
                .get(number)
                .is_none_or(|answer| answer.closes(ask))
            {
                break;
            }
        }
        owed
    }

    /// Everything received is what was owed: whole answers in order, each once; then what ends the connection.
    pub(super) fn check(&self, circumstances: Circumstances) {
        let mut wire = Wire(&self.received);
        let mut number = 0;
        let mut open = true;
        while !wire.is_over(number == self.plan.asks.len()) {
            assert!(open, "bytes after the last answer: {wire:?}");
            let ask = self.plan.asks.get(number);
            let Some(response) = wire.response(ask) else {
                assert!(self.may_be_cut(circumstances), "a head is cut: {wire:?}");
                break;
            };
            open = match (&response.tag, ask, self.answers.get(number)) {
                (Some(tag), Some(ask), Some(answer)) if *tag == ask.target => {
                    self.check_answer(&response, ask, answer, circumstances)
                }
                (None, ..) => {
                    self.check_page(&response, number, circumstances);
                    false
                }
                _ => panic!("not the answer to request {number}: {response:?}"),
            };
            number += 1;
        }
        if !self.may_be_cut(circumstances) {
            let pages = usize::from(self.plan.refused.is_some() && self.has_sent_all());
            let all_kept = self.owed() == self.plan.asks.len()
                && self
                    .plan
                    .asks
                    .iter()
                    .zip(&self.answers)
                    .all(|(ask, answer)| !answer.closes(ask));
            let expected = self.owed() + if all_kept { pages } else { 0 };
            assert_eq!(number, expected, "answers received, answers owed: {self:?}");
            assert_eq!(self.answers.len(), self.owed(), "requests run");
            let mut answered = self.plan.asks.iter().zip(&self.answers);
            let may_be_reset = answered.any(|(ask, answer)| answer.ends_in_reset(ask));
            assert!(
                !self.was_reset || may_be_reset,
                "reset instead of closed: {self:?}"
            );
            assert!(self.ended || !self.is_shut, "kept open for nobody");
        }
    }

    fn may_be_cut(&self, circumstances: Circumstances) -> bool {
        self.went_away || circumstances.time_jumped || circumstances.stopped
    }

    /// Returns whether another answer may follow.
    fn check_answer(
        &self,
        response: &Response,
        ask: &Ask,
        answer: &Answer,
        circumstances: Circumstances,
    ) -> bool {
        assert_eq!(response.status, answer.status);
        let due = answer.body_due(ask);
        if answer.is_broken(ask) {
            assert!(
                !response.is_whole,
                "a broken answer looks whole: {response:?}"
            );
        }
        if self.may_be_cut(circumstances) {
            assert!(due.starts_with(&response.body), "wrong bytes");
        } else {
            assert_eq!(response.body, due);
            assert_eq!(response.is_whole, !answer.is_broken(ask), "{response:?}");
        }
        let must_say_close = answer.head_says_close(ask);
        assert!(response.says_close || !must_say_close, "{response:?}");
        assert!(
            !response.says_close || must_say_close || circumstances.stopped,
            "{response:?}"
        );
        response.is_whole && !response.says_close
    }

    /// An error page: which ones there may be.
    fn check_page(&self, response: &Response, number: usize, circumstances: Circumstances) {
        assert!(response.says_close, "{response:?}");
        let is_failure = self.answers.get(number).is_some_and(Answer::is_failure);
        let is_refusal =
            number == self.plan.asks.len() && self.plan.refused == Some(response.status);
        match response.status {
            500 if is_failure => {}
            _ if is_refusal => {}
            408 if circumstances.time_jumped => {
                assert_eq!(self.answers.len(), number, "what timed out was not run");
            }
            503 if circumstances.stopped => {}
            _ => panic!("nothing explains {response:?} to request {number}"),
        }
    }
}

/// What happened in the world at large.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    pub(super) time_jumped: bool,
    pub(super) stopped: bool,
}

/// Bytes on the wire, read by someone who knows nothing of the server.
struct Wire<'a>(&'a [u8]);

impl std::fmt::Debug for Wire<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?}",
            String::from_utf8_lossy(&self.0[..self.0.len().min(300)])
        )
    }
}

#[derive(Debug)]
struct Response {
    status: u16,
    says_close: bool,
    /// Which request the application says it answers; `None` on an error page.
    tag: Option<String>,
    body: Vec<u8>,
    is_whole: bool,
}

impl Wire<'_> {
    /// The next final response; `None` when its head is cut. `100 Continue` is allowed once, to those who expect it.
    fn response(&mut self, ask: Option<&Ask>) -> Option<Response> {
        let mut continues = 0;
        loop {
            let head = self.head()?;
            let status = head[9..12].parse().expect("a status is a number");
            if status == 100 {
                continues += 1;
                assert_eq!(head, "HTTP/1.1 100 Continue\r\n");
                assert!(continues == 1 && ask.is_none_or(|ask| ask.expects_continue));
                if self.0.is_empty() {
                    return None;
                }
                continue;
            }
            return Some(self.after_head(&head, status, ask));
        }
    }

    /// Nothing is left, or only leave to continue a request that the client then left unfinished.
    fn is_over(&self, may_be_unfinished: bool) -> bool {
        self.0.is_empty() || may_be_unfinished && self.0 == b"HTTP/1.1 100 Continue\r\n\r\n"
    }

    fn head(&mut self) -> Option<String> {
        let end = self.0.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(self.0[..end + 2].to_vec()).expect("heads are text");
        assert!(head.starts_with("HTTP/1."), "{head}");
        self.0 = &self.0[end + 4..];
        Some(head)
    }

    fn after_head(&mut self, head: &str, status: u16, ask: Option<&Ask>) -> Response {
        let field = |name: &str| {
            let mut values = head
                .lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let value = values.next().map(str::to_owned);
            assert!(values.next().is_none(), "{name} twice in {head}");
            value
        };
        let mut response = Response {
            status,
            says_close: field("Connection").as_deref() == Some("close"),
            tag: field("X-Ask"),
            body: Vec::new(),
            is_whole: true,
        };
        let length = field("Content-Length").map(|length| length.parse().expect("a length"));
        // A HEAD whose head never was whole is refused as any request is.
        let is_head = ask.is_some_and(|ask| ask.method == "HEAD") && status != 408;
        let has_none = is_head || matches!(status, 204 | 304);
        if has_none {
        } else if field("Transfer-Encoding").is_some() {
            assert!(length.is_none(), "two lengths");
            response.is_whole = self.chunks(&mut response.body).is_some();
        } else if let Some(length) = length {
            response.is_whole = self.take(length, &mut response.body).is_some();
        } else {
            let all = self.0.len();
            self.take(all, &mut response.body);
        }
        response
    }

    fn take(&mut self, len: usize, into: &mut Vec<u8>) -> Option<()> {
        let (now, rest) = self.0.split_at(len.min(self.0.len()));
        into.extend_from_slice(now);
        self.0 = rest;
        (now.len() == len).then_some(())
    }

    fn chunks(&mut self, into: &mut Vec<u8>) -> Option<()> {
        loop {
            let Some(end) = self.0.windows(2).position(|window| window == b"\r\n") else {
                self.0 = &[];
                return None;
            };
            let size = std::str::from_utf8(&self.0[..end]).expect("a size is text");
            let size = usize::from_str_radix(size, 16).expect("a size is hexadecimal");
            self.0 = &self.0[end + 2..];
            self.take(size, into)?;
            let mut end = Vec::new();
            self.take(2, &mut end)?;
            assert_eq!(end, b"\r\n");
            if size == 0 {
                return Some(());
            }
        }
    }
}
