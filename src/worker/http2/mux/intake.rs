//! From requests to jobs: the head is checked, the body goes to the spool or to the application, and what breaks a rule is
//! answered on its stream.

use crate::worker::request_policy::RequestPolicy;
use std::io;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http_message::{Method, Request, Response as Message, StatusCode};

use super::super::response_stream::Waiting;
use super::phase::{Phase, Upload};
use super::request_body::{CUT, Step, give_window_back};
use super::{Mux, Stream};
use crate::http::{BodyLength, ParseError, RequestParts, Status, StreamPriority, Version};
use crate::pool::Job;
use crate::worker::body_stream::StreamingRequestBody;
use crate::worker::http1::{Client, Receiving, Refusal};
use crate::worker::loop_clock::{Timeout, Timer};
use crate::worker::requests::Requests;

impl Mux {
    /// Requests so far.
    pub(in super::super) fn requests(&self) -> u64 {
        self.requests
    }

    /// A request has come. `path`: what the client sent, where the crate could not take it.
    pub(in super::super) fn begin(
        &mut self,
        request: Request<RecvStream>,
        path: Option<Box<[u8]>>,
        mut respond: SendResponse<Bytes>,
        client: &Client,
        requests: &mut Requests,
    ) {
        let id = respond.stream_id().as_u32();
        if self.is_full() {
            // Streams that were reset still count here: their jobs are not over.
            respond.send_reset(Reason::REFUSED_STREAM);
            self.has_acted = true;
            return;
        }
        self.requests += 1;
        let (parts, incoming) = request.into_parts();
        let mut receiving = Receiving::begin(client, &mut requests.dispatch, &requests.clock);
        let job = &mut receiving.job;
        job.conn = self.name(id);
        let checked = read_head(&parts, path.as_deref(), job, &mut requests.policy);
        let is_whole = incoming.is_end_stream();
        let expects_continue = matches!(&checked, Ok(framing) if framing.1) && !is_whole;
        let stream = Stream {
            phase: Phase::Receiving {
                receiving,
                incoming,
                respond,
                received: 0,
            },
            timer: Timer::new(self.name(id)),
            is_head: parts.method == Method::HEAD,
            trailers: None,
        };
        self.streams.insert(id, stream);
        let refusal = match checked {
            Err(error) => Some(Refusal::invalid(&error, client)),
            Ok(_) if parts.method == Method::CONNECT => {
                let message = "CONNECT is not supported";
                Some(Refusal::new(Status::NOT_IMPLEMENTED, message, message))
            }
            Ok((length, _)) => {
                self.open_body(id, length, is_whole, expects_continue, requests);
                None
            }
        };
        if let Some(refusal) = refusal {
            self.refuse(id, refusal, None, client, requests);
        }
    }

    /// The head is accepted.
    fn open_body(
        &mut self,
        id: u32,
        length: BodyLength,
        is_whole: bool,
        expects_continue: bool,
        requests: &mut Requests,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if is_whole {
            return self.run(id, requests);
        }
        requests.clock.arm(&mut stream.timer, Timeout::Body);
        self.has_acted |= expects_continue;
        self.receiving.push(id);
        if requests.policy.buffers_requests() {
            if let Phase::Receiving {
                receiving, respond, ..
            } = &mut stream.phase
            {
                if let BodyLength::Known(declared) = length {
                    receiving.body.reserve(declared, &requests.bodies);
                }
                if expects_continue {
                    send_continue(respond);
                }
            }
            return;
        }
        self.run_at_head(id, expects_continue, requests);
    }

    /// The head is in: the request leaves for the application, and its body after it.
    fn run_at_head(&mut self, id: u32, expects_continue: bool, requests: &Requests) {
        let name = self.name(id);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.phase.wait(|receiving, incoming, respond| {
            let (body, theirs) = StreamingRequestBody::new(requests.dispatch.pool(), name);
            let mut job = receiving.job;
            job.body = theirs;
            job.arrived = requests.clock.now();
            job.body_bytes = None;
            if expects_continue {
                send_continue(respond);
            }
            let upload = Upload {
                body,
                incoming,
                received: 0,
                held: 0,
            };
            (job, Some(upload))
        });
        self.waiting.push_back(id);
    }

    /// The request is whole.
    fn run(&mut self, id: u32, requests: &Requests) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.timer.clear();
        stream.phase.wait(|receiving, _, _| {
            let mut job = receiving.job;
            job.arrived = requests.clock.now();
            job.body_bytes = job.body.len();
            (job, None)
        });
        self.waiting.push_back(id);
    }

    /// Take in what has arrived of the bodies.
    pub(in super::super) fn take_bodies(&mut self, client: &Client, requests: &mut Requests) {
        let mut at = 0;
        while at < self.receiving.len() {
            let id = self.receiving[at];
            let step = match self.streams.get_mut(&id) {
                // What is taken in makes room for more, which the client is to know.
                Some(stream) => stream.take_body(&mut self.has_acted, client, requests),
                None => Step::Cut,
            };
            match step {
                Step::Open => {
                    at += 1;
                    continue;
                }
                Step::Whole => {
                    let is_buffered = matches!(
                        self.streams.get(&id).map(|stream| &stream.phase),
                        Some(Phase::Receiving { .. })
                    );
                    if is_buffered {
                        self.run(id, requests);
                    }
                }
                Step::Cut => {
                    self.cancel(id, CUT, requests);
                }
                Step::Faulty(why) => self.cancel_faulty(id, why, requests),
                Step::Refused(refusal) => self.refuse_body(id, refusal, client, requests),
            }
            self.receiving.swap_remove(at);
        }
    }

    /// The rank of a stream, for an application that has not begun with it.
    pub(in super::super) fn set_priority(&mut self, id: u32, priority: StreamPriority) {
        match self.streams.get_mut(&id).map(|stream| &mut stream.phase) {
            Some(Phase::Receiving { receiving, .. }) => receiving.job.priority = priority,
            Some(Phase::Waiting { job, .. }) => job.priority = priority,
            _ => {}
        }
    }

    /// Nothing more will come: requests of which something is missing will never be whole.
    pub(in super::super) fn end_input(
        &mut self,
        is_unfinished: impl Fn(u32) -> bool,
        requests: &mut Requests,
    ) {
        for id in self.receiving.clone() {
            let Some(stream) = self.streams.get_mut(&id).filter(|_| is_unfinished(id)) else {
                continue;
            };
            let kind = io::ErrorKind::UnexpectedEof;
            let why = "the client closed the connection before the end of the request body";
            if stream.fail_upload(Status::BAD_REQUEST, kind, why) {
                stream.timer.clear();
            } else if matches!(stream.phase, Phase::Receiving { .. }) {
                self.cancel(id, CUT, requests);
            }
        }
    }

    /// The client cannot open windows any more: reset what waits for that. Returns whether there was something.
    pub(in super::super) fn reset_stalled(&mut self, requests: &mut Requests) -> bool {
        let is_stalled = |id: &u32| match self.streams.get(id).map(|stream| &stream.phase) {
            Some(Phase::Responding(response)) => response.waiting() == Waiting::Stalled,
            _ => false,
        };
        let stalled: Vec<u32> = self.sending.iter().copied().filter(is_stalled).collect();
        for id in &stalled {
            self.reset(*id, Reason::CANCEL, "client gone", requests);
        }
        !stalled.is_empty()
    }

    /// A body cannot be received. The application gets an error, if it has the request.
    fn refuse_body(&mut self, id: u32, refusal: Refusal, client: &Client, requests: &mut Requests) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let kind = io::ErrorKind::InvalidData;
        let why = "the request body is malformed or too large";
        match stream.fail_upload(refusal.status(), kind, why) {
            true => stream.timer.clear(),
            false => self.refuse(id, refusal, None, client, requests),
        }
    }

    /// The application has room for more of a streaming body.
    pub(in super::super) fn resume_body(&mut self, id: u32) {
        self.has_acted = true;
        if let Some(upload) = self.streams.get_mut(&id).and_then(Stream::upload) {
            upload.body.resume();
            give_window_back(upload);
        }
    }

    /// The deadline of a stream is over.
    pub(in super::super) fn on_deadline(
        &mut self,
        id: u32,
        client: &Client,
        requests: &mut Requests,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let what = "client_body_timeout";
        match &stream.phase {
            Phase::Receiving { .. } => {
                log::debug!("Request timed out ({what}) on an HTTP/2 stream.");
                let message = "The request took too long to arrive";
                let refusal = Refusal::new(Status::REQUEST_TIMEOUT, message, what);
                self.refuse(id, refusal, None, client, requests);
            }
            Phase::Responding(response) if response.waiting() != Waiting::No => {
                log::debug!("Resetting a stream whose client reads too little (send_timeout).");
                self.reset(id, Reason::CANCEL, "send_timeout", requests);
            }
            _ => {
                let why = "the request body took too long to arrive (client_body_timeout)";
                stream.fail_upload(Status::REQUEST_TIMEOUT, io::ErrorKind::TimedOut, why);
            }
        }
    }
}

/// Returns the declared length, and whether the client waits for `100 Continue`.
fn read_head(
    message: &http_message::request::Parts,
    sent_path: Option<&[u8]>,
    job: &mut Job,
    policy: &mut RequestPolicy,
) -> Result<(BodyLength, bool), ParseError> {
    let uri = &message.uri;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // What is not there reads as "/" in a `PathAndQuery`, and as empty in `path` alone.
    let path = match uri.path() {
        "" => "",
        _ => uri.path_and_query().map_or("", |path| path.as_str()),
    };
    let parts = RequestParts {
        method: message.method.as_str().as_bytes(),
        scheme: uri.scheme_str().unwrap_or("http").as_bytes(),
        authority: authority.as_bytes(),
        path: match message.method == Method::CONNECT {
            true => authority.as_bytes(),
            false => sent_path.unwrap_or(path.as_bytes()),
        },
        version: Version::HTTP_2,
    };
    let fields = || {
        message
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
    };
    let framing = job.head.compose(&parts, fields, policy.limits())?;
    policy.apply(job)?;
    if job.trusted && job.forwarded.is_https.is_none() {
        job.forwarded.is_https = uri.scheme_str().and_then(is_https);
    }
    Ok((framing.length, framing.expects_continue))
}

/// RFC 3986 section 3.1: in any case. Another scheme says nothing of the client's connection.
fn is_https(scheme: &str) -> Option<bool> {
    let is = |name| scheme.eq_ignore_ascii_case(name);
    (is("https") || is("http")).then(|| is("https"))
}

fn send_continue(respond: &mut SendResponse<Bytes>) {
    let mut message = Message::new(());
    *message.status_mut() = StatusCode::CONTINUE;
    if let Err(error) = respond.send_informational(message) {
        log::debug!("100 Continue cannot be sent: {error}");
    }
}
