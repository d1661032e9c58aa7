//! The simulation's application: it answers jobs in any order, a reply at a time, as the seed says.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pool::{BorrowedBuffer, Job, Peer, Piece, PoolThread, Reply, StreamedResponse, Window};

use super::plan::{Ask, Rng};

/// What the application says to one request.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    parts: Vec<Vec<u8>>,
    /// The Content-Length that it declares.
    declared: Option<usize>,
    is_streamed: bool,
    says_close: bool,
    /// It fails after this many parts.
    fails_after: Option<usize>,
}

/// How the end of the body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    NoBody,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Answer {
    fn new(rng: &mut Rng) -> Self {
        let parts: Vec<_> = (0..rng.below(5))
            .map(|_| {
                let len = rng.len();
                rng.bytes(len)
            })
            .collect();
        let total: usize = parts.iter().map(Vec::len).sum();
        let declared = match rng.below(10) {
            0..3 => Some(total),
            3 => Some(rng.below(total + 1)),
            4 => Some(total + 1 + rng.below(50)),
            _ => None,
        };
        Self {
            status: rng.pick(&[200, 200, 200, 200, 201, 404, 204, 304]),
            declared,
            is_streamed: rng.chance(50),
            says_close: rng.chance(5),
            fails_after: rng.chance(8).then(|| rng.below(parts.len() + 1)),
            parts,
        }
    }

    fn framing(&self, ask: &Ask) -> Framing {
        if ask.method == "HEAD" || matches!(self.status, 204 | 304) {
            return Framing::NoBody;
        }
        match (self.declared, self.is_streamed, ask.is_http_10) {
            (Some(declared), ..) => Framing::Length(declared),
            (None, false, _) => Framing::Length(self.parts.iter().map(Vec::len).sum()),
            (None, true, false) => Framing::Chunked,
            (None, true, true) => Framing::UntilClose,
        }
    }

    /// Without the bytes.
    pub(super) fn shown(&self) -> String {
        let lengths: Vec<usize> = self.parts.iter().map(Vec::len).collect();
        format!(
            "{} of {lengths:?}, declared {:?}, streamed {}, fails after {:?}",
            self.status, self.declared, self.is_streamed, self.fails_after
        )
    }

    /// The client gets an error page.
    pub(super) fn is_failure(&self) -> bool {
        self.fails_after.is_some() && !self.is_streamed
    }

    /// It fails when its head is out.
    pub(super) fn fails_in_stream(&self) -> bool {
        self.fails_after.is_some() && self.is_streamed
    }

    pub(super) fn body_due(&self, ask: &Ask) -> Vec<u8> {
        let mut given = self.parts[..self.fails_after.unwrap_or(self.parts.len())].concat();
        match self.framing(ask) {
            Framing::NoBody => Vec::new(),
            Framing::Length(length) => {
                given.truncate(length);
                given
            }
            Framing::Chunked | Framing::UntilClose => given,
        }
    }

    /// The client can tell that the body is not whole.
    pub(super) fn is_broken(&self, ask: &Ask) -> bool {
        match self.framing(ask) {
            Framing::NoBody | Framing::UntilClose => false,
            Framing::Length(length) => self.body_due(ask).len() < length,
            Framing::Chunked => self.fails_after.is_some(),
        }
    }

    pub(super) fn head_says_close(&self, ask: &Ask) -> bool {
        !ask.keeps || self.says_close || self.framing(ask) == Framing::UntilClose
    }

    /// Nothing is answered on the connection after this.
    pub(super) fn closes(&self, ask: &Ask) -> bool {
        self.head_says_close(ask) || self.fails_after.is_some() || self.is_broken(ask)
    }

    /// Only a reset tells the client that there should have been more.
    pub(super) fn ends_in_reset(&self, ask: &Ask) -> bool {
        self.framing(ask) == Framing::UntilClose && self.fails_after.is_some()
    }

    fn fill(&self, job: &mut Job, target: &str) {
        let response = &mut job.response;
        response
            .set_status(format!("{} Status", self.status).as_bytes())
            .unwrap();
        response.push(b"X-Ask", target.as_bytes()).unwrap();
        if let Some(declared) = self.declared {
            response
                .push(b"Content-Length", declared.to_string().as_bytes())
                .unwrap();
        }
        if self.says_close {
            response.push(b"Connection", b"close").unwrap();
        }
    }
}

/// A job that a thread of the application runs.
#[derive(Debug)]
struct Running {
    job: Box<Job>,
    target: String,
    answer: Answer,
    /// Of a stream that has begun.
    window: Option<Arc<Window>>,
    parts_sent: usize,
}

/// A job that was taken: the request, and what will be said to it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) target: String,
    pub(super) body: Vec<u8>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) answer: Answer,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Application {
    thread: PoolThread,
    threads: usize,
    window_bytes: usize,
    running: Vec<Running>,
    /// Windows of all streams, to be found empty or closed at the end.
    windows: Vec<Arc<Window>>,
    /// Buffers that the loop has borrowed and that are not yet dropped.
    borrowed: Arc<AtomicUsize>,
}

impl Application {
    pub(super) fn new(thread: PoolThread, rng: &mut Rng) -> Self {
        Self {
            thread,
            threads: 1 + rng.below(4),
            window_bytes: rng.pick(&[1, 1000, 64 * 1024]),
            running: Vec::new(),
            windows: Vec::new(),
            borrowed: Arc::default(),
        }
    }

    /// Take a job if a thread is free.
    pub(super) fn take(&mut self, rng: &mut Rng) -> Option<Taken> {
        if self.running.len() >= self.threads {
            return None;
        }
        // As a thread does it, except that a thread without a job would park.
        let pool = self.thread.pool();
        let mut job = pool.pop_front()?;
        if pool.is_gone(job.conn) {
            pool.send(Reply::Abort(job));
            return None;
        }
        let target = String::from_utf8(job.head.target().to_vec()).unwrap();
        let body = match std::mem::take(&mut job.body) {
            crate::pool::RequestBody::Empty => Vec::new(),
            crate::pool::RequestBody::Memory(bytes) => bytes.to_vec(),
            crate::pool::RequestBody::Streaming(_) => unreachable!("bodies are buffered here"),
            crate::pool::RequestBody::File { file, len, .. } => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut file.file(), &mut bytes).unwrap();
                assert_eq!(bytes.len() as u64, len);
                bytes
            }
        };
        let peer = match job.peer {
            Peer::Tcp(address) => Some(address),
            _ => None,
        };
        let answer = Answer::new(rng);
        answer.fill(&mut job, &target);
        self.running.push(Running {
            job,
            target: target.clone(),
            answer: answer.clone(),
            window: None,
            parts_sent: 0,
        });
        Some(Taken {
            target,
            body,
            answer,
            peer,
        })
    }

    /// One thread gives one reply, unless its client's window is full. Returns the target of a request that is over.
    pub(super) fn reply(&mut self, rng: &mut Rng) -> Option<String> {
        if self.running.is_empty() {
            return None;
        }
        let at = rng.below(self.running.len());
        if !self.running[at].answer.is_streamed {
            let running = self.running.swap_remove(at);
            self.reply_whole(running.job, &running.answer, rng);
            return Some(running.target);
        }
        let running = &mut self.running[at];
        let Some(window) = &running.window else {
            let window = Arc::new(Window::new(self.window_bytes));
            self.windows.push(window.clone());
            running.window = Some(window.clone());
            let response = std::mem::take(&mut running.job.response);
            let streaming = Box::new(StreamedResponse { response, window });
            self.thread
                .pool()
                .send(Reply::Head(running.job.conn, streaming));
            return None;
        };
        let is_failing = running.answer.fails_after == Some(running.parts_sent);
        let is_over = running.parts_sent == running.answer.parts.len();
        match window.add(0) {
            // The thread waits.
            Ok(true) => return None,
            Ok(false) if !is_failing && !is_over => {
                let part = running.answer.parts[running.parts_sent].clone();
                running.parts_sent += 1;
                let (conn, window) = (running.job.conn, window.clone());
                if part.is_empty() {
                    return None;
                }
                let piece = self.piece(part, rng);
                if window.add(piece.window_bytes()).is_ok() {
                    self.thread.pool().send(Reply::Data(conn, piece));
                }
                return None;
            }
            Ok(false) | Err(_) => {}
        }
        let is_gone = window.add(0).is_err();
        let Running { job, target, .. } = self.running.swap_remove(at);
        self.thread.pool().send(if is_gone || is_failing {
            Reply::Abort(job)
        } else {
            Reply::End(job)
        });
        Some(target)
    }

    fn reply_whole(&self, mut job: Box<Job>, answer: &Answer, rng: &mut Rng) {
        if answer.fails_after.is_some() {
            return self.thread.pool().send(Reply::Abort(job));
        }
        for part in &answer.parts {
            if job.response_body.pieces.is_empty() && rng.chance(70) {
                job.response_body.bytes.extend_from_slice(part);
            } else {
                let piece = self.piece(part.clone(), rng);
                job.response_body.pieces.push(piece);
            }
        }
        self.thread.pool().send(Reply::Whole(job));
    }

    /// `part` in one of the shapes that an application's bytes have.
    fn piece(&self, part: Vec<u8>, rng: &mut Rng) -> Piece {
        match rng.below(3) {
            0 => Piece::Bytes(part),
            1 => {
                self.borrowed.fetch_add(1, Ordering::Relaxed);
                Piece::Borrowed(Box::new(Borrowed {
                    bytes: part,
                    borrowed: self.borrowed.clone(),
                }))
            }
            _ => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(b"before").unwrap();
                file.write_all(&part).unwrap();
                file.write_all(b"behind").unwrap();
                Piece::File {
                    file: file.into(),
                    offset: 6,
                    len: part.len() as u64,
                    owner: None,
                }
            }
        }
    }

    /// What the bodies of the running jobs count in the worker's budget.
    pub(super) fn held_bytes(&self) -> usize {
        self.running
            .iter()
            .map(|running| running.job.body_held_bytes)
            .sum()
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.running.is_empty() || self.thread.pool().queue_length() > 0
    }

    /// Every borrowed buffer has come back, and every window is as it was.
    pub(super) fn check_over(&self) {
        assert!(self.running.is_empty());
        self.thread.pool().close();
        assert!(
            self.thread
                .next_job(|_| panic!("the pool is closed"))
                .is_none()
        );
        assert_eq!(
            self.borrowed.load(Ordering::Relaxed),
            0,
            "objects did not come back"
        );
        for window in &self.windows {
            // A full window's worth fits only when nothing is unsent.
            assert_ne!(
                window.add(self.window_bytes),
                Ok(true),
                "a window kept something"
            );
        }
    }
}

#[derive(Debug)]
struct Borrowed {
    bytes: Vec<u8>,
    borrowed: Arc<AtomicUsize>,
}

impl BorrowedBuffer for Borrowed {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.borrowed.fetch_sub(1, Ordering::Relaxed);
    }
}
