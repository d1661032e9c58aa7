//! One request and what is known of it, from its first byte to its line in the access log; and the client that it is from.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::http::{ParseError, ProxyHeader, ProxyRoute, ResponseHead, Status};
use crate::pool::{AccessLine, ConnId, Job, Peer, TlsInfo};

use crate::worker::access_lines::RequestEnd;
use crate::worker::body_stream::StreamingRequestBody;
use crate::worker::broken_off::BrokenOff;
use crate::worker::describe::PeerText;
use crate::worker::dispatch::Dispatch;
use crate::worker::loop_clock::Clock;
use crate::worker::requests::{Requests, recycle};
use crate::worker::shutdown::reason_of_half;
use crate::worker::spool::{BodyBudget, Spool};

/// The request that is under way. Only its methods change it.
#[derive(Debug, Default)]
pub(super) enum Request {
    #[default]
    None,
    Receiving(Receiving),
    /// The application has it.
    Running(Running),
    /// Its answer is encoded, but perhaps not yet written.
    Answered(Answered),
    /// The client was answered for it; its thread still has it (see `timed_out.rs`).
    TimedOut,
}

impl Request {
    /// Bytes of a request have come: of the one that is being received, or of a new one.
    pub(super) fn receive(
        &mut self,
        client: &Client,
        dispatch: &mut Dispatch,
        clock: &Clock,
    ) -> &mut Receiving {
        if !matches!(self, Self::Receiving(_)) {
            *self = Self::Receiving(Receiving::begin(client, dispatch, clock));
        }
        match self {
            Self::Receiving(receiving) => receiving,
            _ => unreachable!("assigned just now"),
        }
    }

    /// It is whole, and leaves for the application.
    pub(super) fn run_whole(&mut self) -> Box<Job> {
        if let Self::Receiving(receiving) = self {
            finish_body(receiving);
        }
        self.run(None)
    }

    /// It leaves for the application, and `body` after it.
    pub(super) fn run(&mut self, body: Option<StreamingRequestBody>) -> Box<Job> {
        let running = Self::Running(Running {
            body,
            ..Running::default()
        });
        match std::mem::replace(self, running) {
            Self::Receiving(Receiving { job, .. }) => job,
            _ => unreachable!("only what was received can run"),
        }
    }

    /// The application has replied for the last time.
    pub(super) fn end_running(&mut self) -> Running {
        match self.end() {
            Self::Running(running) => running,
            other => {
                debug_assert!(false, "a reply to a request that does not run: {other:?}");
                Running::default()
            }
        }
    }

    /// Its answer is encoded.
    pub(super) fn answer(&mut self, answered: Answered) {
        *self = Self::Answered(answered)
    }

    /// Its client is answered without the application. `None`: it does not run.
    pub(super) fn time_out(&mut self) -> Option<Running> {
        if !matches!(self, Self::Running(_)) {
            return None;
        }
        match std::mem::replace(self, Self::TimedOut) {
            Self::Running(running) => Some(running),
            _ => unreachable!("matched above"),
        }
    }

    /// It is over as far as this connection goes. Returns what it was.
    pub(super) fn end(&mut self) -> Self {
        std::mem::take(self)
    }
}

#[derive(Debug)]
pub(in crate::worker) struct Receiving {
    pub(in crate::worker) job: Box<Job>,
    pub(in crate::worker) body: Spool,
    /// When its first byte arrived.
    pub(in crate::worker) began: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Running {
    /// Its body, when it did not wait for it.
    pub(super) body: Option<StreamingRequestBody>,
    /// What answers it when its body could not be received, unless the application does.
    pub(super) body_fault: Option<Status>,
    /// The application may take the socket.
    pub(super) is_hijackable: bool,
    /// The head of the response that is being streamed.
    pub(super) response: Option<ResponseHead>,
    /// Body bytes of the response that were framed so far.
    pub(super) sent_bytes: u64,
    /// Body bytes that the response's head has no room for, and that were cut.
    pub(super) cut_bytes: u64,
    /// Why the response will not arrive as it should; empty until that is known.
    pub(super) broken_for: &'static str,
}

#[derive(Debug)]
pub(in crate::worker) struct Answered {
    pub(in crate::worker) job: Box<Job>,
    pub(in crate::worker) status: u16,
    pub(in crate::worker) sent_bytes: u64,
    /// Why it is not what was asked for; empty if it is.
    pub(in crate::worker) reason: Cow<'static, str>,
}

impl Running {
    /// The connection is gone, with `unsent_bytes` that were encoded and not written.
    pub(super) fn break_off(self, id: ConnId, unsent_bytes: u64, requests: &mut Requests) {
        let Some(response) = self.response else {
            return;
        };
        let seen = BrokenOff {
            status: response.status_code(),
            sent_bytes: self.sent_bytes.saturating_sub(unsent_bytes),
            reason: match self.broken_for {
                "" => requests.shutdown.reason_of_gone(),
                why => why,
            },
            response: Some(response),
        };
        requests.accounting.break_off(id, seen);
    }
}

impl Receiving {
    pub(in crate::worker) fn begin(
        client: &Client,
        dispatch: &mut Dispatch,
        clock: &Clock,
    ) -> Self {
        let began = clock.now();
        let mut job = dispatch.new_job(began);
        client.address(&mut job);
        Self {
            job,
            body: Spool::default(),
            began,
        }
    }

    /// The request will not be whole: the memory of its body is free again.
    pub(in crate::worker) fn give_up(self, bodies: &mut BodyBudget) -> Box<Job> {
        bodies.give_back(self.body.held_bytes());
        self.job
    }

    /// The request will not be whole. Nothing is answered, but it is logged.
    pub(in crate::worker) fn abandon(self, reason: &'static str, requests: &mut Requests) {
        let reason = reason_of_half(reason);
        let job = self.give_up(&mut requests.bodies);
        let status = Status::BAD_REQUEST.code;
        requests
            .accounting
            .unanswered(&job, status, reason, &requests.clock);
        recycle(job, requests);
    }
}

/// The body is whole: it goes with the job.
pub(in crate::worker) fn finish_body(receiving: &mut Receiving) {
    // Without a body there is nothing to take.
    if !receiving.body.is_empty() {
        receiving.job.body_held_bytes = receiving.body.held_bytes();
        receiving.job.body = receiving.body.take();
    }
}

impl Answered {
    /// The request is over.
    pub(in crate::worker) fn log(self, requests: &mut Requests) {
        if self.job.access_line != AccessLine::Omitted {
            let end = RequestEnd {
                status: self.status,
                bytes_sent: self.sent_bytes,
                reason: &self.reason,
            };
            requests
                .accounting
                .request(&self.job, &end, &requests.clock);
        }
        recycle(self.job, requests);
    }
}

/// A request that the worker answers with an error page.
#[derive(Debug)]
pub(in crate::worker) struct Refusal {
    pub(super) status: Status,
    /// For the client.
    pub(super) message: Cow<'static, str>,
    /// For the access log.
    pub(super) reason: Cow<'static, str>,
}

impl Refusal {
    pub(in crate::worker) fn new(
        status: Status,
        message: &'static str,
        reason: &'static str,
    ) -> Self {
        Self {
            status,
            message: message.into(),
            reason: reason.into(),
        }
    }

    /// Of a request that did not arrive in its time.
    pub(in crate::worker) fn late(reason: &'static str) -> Self {
        let message = "The request took too long to arrive";
        Self::new(Status::REQUEST_TIMEOUT, message, reason)
    }

    /// What was sent belongs to another protocol than is spoken here. The log alone has `remedy`.
    pub(in crate::worker) fn other_protocol(
        message: impl Into<Cow<'static, str>>,
        remedy: &str,
        client: &Client,
    ) -> Self {
        let message = message.into();
        log::warn!(
            "Invalid request from ip={}: {message}{remedy}",
            PeerText(client.peer())
        );
        Self {
            status: Status::BAD_REQUEST,
            message: message.clone(),
            reason: message,
        }
    }

    /// The request breaks a rule.
    pub(in crate::worker) fn invalid(error: &ParseError, client: &Client) -> Self {
        log::warn!(
            "Invalid request from ip={}: {error}",
            PeerText(client.peer())
        );
        Self::of(error)
    }

    /// The same, logged already.
    pub(in crate::worker) fn of(error: &ParseError) -> Self {
        Self {
            status: error.status(),
            message: error.page_message().into(),
            reason: error.to_string().into(),
        }
    }

    pub(in crate::worker) fn status(&self) -> Status {
        self.status
    }

    /// For the client and for the access log.
    pub(in crate::worker) fn into_texts(self) -> (Cow<'static, str>, Cow<'static, str>) {
        (self.message, self.reason)
    }

    /// Its body finds no room.
    pub(in crate::worker) fn no_storage(error: &io::Error, requests: &mut Requests) -> Self {
        requests.unstored_bodies.note(error, requests.clock.now());
        Self::new(
            Status::INSUFFICIENT_STORAGE,
            "The request body could not be stored",
            "no room for the request body",
        )
    }
}

/// What a client has seen of a request that timed out.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct TimedOut {
    pub(in crate::worker) status: u16,
    pub(in crate::worker) body_bytes: u64,
}

/// The other end of a connection, as each of its requests names it.
#[derive(Debug)]
pub(in crate::worker) struct Client {
    conn: ConnId,
    /// The socket's peer, or the client that the PROXY header names.
    peer: Peer,
    /// Whether fields of the socket's peer are trusted, as in gunicorn; a PROXY header does not change that.
    trusted: bool,
    proxy_header: Option<ProxyHeader>,
    /// Which listener accepted the connection.
    listener: usize,
    /// What TLS has agreed on; `None` on a plain connection.
    tls: Option<Arc<TlsInfo>>,
}

impl Client {
    pub(in crate::worker) fn new(conn: ConnId, peer: Peer, trusted: bool, listener: usize) -> Self {
        Self {
            conn,
            peer,
            trusted,
            proxy_header: None,
            listener,
            tls: None,
        }
    }

    pub(in crate::worker) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(in crate::worker) fn listener(&self) -> usize {
        self.listener
    }

    pub(in crate::worker) fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether `forwarded_allow_ips` trusts the socket's peer.
    pub(in crate::worker) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// A PROXY header has named the client.
    pub(in crate::worker) fn apply_proxy_header(&mut self, header: ProxyHeader) {
        self.proxy_header = Some(header);
        match header.route {
            ProxyRoute::Ip { client, .. } => self.peer = Peer::Tcp(client),
            ProxyRoute::Unix => self.peer = Peer::Unix,
            // A health check of the proxy itself, or a protocol that the header cannot name.
            ProxyRoute::Unknown => {}
        }
    }

    /// Its TLS handshake is done.
    pub(in crate::worker) fn set_tls(&mut self, tls: Arc<TlsInfo>) {
        self.tls = Some(tls);
    }

    pub(in crate::worker) fn has_proxy_header(&self) -> bool {
        self.proxy_header.is_some()
    }

    /// Address a new job: its answer comes back to this connection.
    pub(in crate::worker) fn address(&self, job: &mut Job) {
        job.conn = self.conn;
        job.peer = self.peer;
        job.proxy = self.proxy_header;
        job.tls.clone_from(&self.tls);
        job.trusted = self.trusted;
        job.listener = self.listener;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::*;
    use crate::http::{ProxyMode, ProxyParse, parse_proxy_header};

    #[test]
    fn a_proxy_header_names_the_client_and_leaves_trust_to_the_peer() {
        let conn = ConnId::new(3, 1);
        let mut client = Client::new(conn, Peer::Unix, true, 2);
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 80\r\n";
        let parsed = parse_proxy_header(line, ProxyMode::Auto).unwrap();
        let ProxyParse::Present { header, .. } = parsed else {
            panic!("{parsed:?}")
        };
        client.apply_proxy_header(header);
        let mut job = Job::new(Instant::now());
        client.address(&mut job);
        assert_eq!(job.peer, Peer::Tcp(([192, 0, 2, 1], 4000).into()));
        assert!(job.trusted && job.proxy.is_some());
        assert_eq!((job.conn, job.listener), (conn, 2));
    }
}
