//! The body of one request as it is received: to the spool, or to the application that has the request already.

use crate::worker::spool::BodyBudget;
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::super::violation::why_reset;
use super::Stream;
use super::phase::{Phase, Upload};
use crate::http::{ParseError, Status};
use crate::worker::http1::{Client, Refusal, finish_body};
use crate::worker::requests::Requests;

/// Why a body is not whole whose client went.
pub(super) const CUT: &str = "client gone before the end of the request";

/// How a body goes on.
pub(super) enum Step {
    /// More is to come.
    Open,
    Whole,
    /// The client has reset the stream, or the connection is broken.
    Cut,
    /// It breaks a rule, and its stream was reset for it: this is what the log says.
    Faulty(&'static str),
    Refused(Refusal),
}

impl Stream {
    pub(super) fn upload(&mut self) -> Option<&mut Upload> {
        match &mut self.phase {
            Phase::Waiting { upload, .. } | Phase::Running { upload, .. } => upload.as_mut(),
            Phase::Responding(_) | Phase::Receiving { .. } | Phase::Reset | Phase::TimedOut => None,
        }
    }

    /// The rest of a streaming body will not come. Returns whether there is one.
    pub(super) fn fail_upload(
        &mut self,
        status: Status,
        kind: io::ErrorKind,
        why: &'static str,
    ) -> bool {
        let (upload, fault) = match &mut self.phase {
            Phase::Waiting { upload, .. } => (upload, None),
            Phase::Running { upload, fault, .. } => (upload, Some(fault)),
            _ => return false,
        };
        let Some(upload) = upload.take() else {
            return false;
        };
        upload.body.fail(kind, why);
        if let Some(fault) = fault {
            *fault = Some(status);
        }
        true
    }

    /// Take in what has arrived.
    pub(super) fn take_body(
        &mut self,
        has_taken: &mut bool,
        client: &Client,
        requests: &mut Requests,
    ) -> Step {
        let mut context = Context::from_waker(Waker::noop());
        let mut arrived = 0;
        let step = loop {
            let (incoming, received) = match &mut self.phase {
                Phase::Receiving {
                    incoming, received, ..
                } => (incoming, received),
                Phase::Waiting {
                    upload: Some(upload),
                    ..
                }
                | Phase::Running {
                    upload: Some(upload),
                    ..
                } if upload.body.is_wanted() => (&mut upload.incoming, &mut upload.received),
                Phase::Waiting {
                    upload: Some(_), ..
                }
                | Phase::Running {
                    upload: Some(_), ..
                } => break Step::Open,
                // The body was given up, or the request was answered before it was whole.
                _ => return Step::Whole,
            };
            let bytes = match incoming.poll_data(&mut context) {
                Poll::Pending => break Step::Open,
                Poll::Ready(Some(Ok(bytes))) => bytes,
                Poll::Ready(Some(Err(error))) => break broken(&error),
                Poll::Ready(None) => match incoming.poll_trailers(&mut context) {
                    Poll::Pending => break Step::Open,
                    Poll::Ready(Ok(_)) => break self.end_body(),
                    Poll::Ready(Err(error)) => break broken(&error),
                },
            };
            *received += bytes.len() as u64;
            let limit = requests.policy.limits().body_bytes_max;
            if let Some(max) = limit.filter(|max| *received > *max) {
                break Step::Refused(too_large(max, client));
            }
            arrived += bytes.len();
            if let Err(error) = self.keep(&bytes, &mut requests.bodies) {
                break Step::Refused(Refusal::no_storage(&error, requests));
            }
        };
        if arrived > 0 {
            *has_taken = true;
            let arrived = u32::try_from(arrived).unwrap_or(u32::MAX);
            requests.clock.extend_body(&mut self.timer, arrived);
        }
        match step {
            Step::Whole | Step::Cut | Step::Faulty(_) => self.timer.clear(),
            // While the window is full the next move is the application's.
            Step::Open if self.upload().is_some_and(|upload| !upload.body.is_wanted()) => {
                self.timer.clear();
            }
            Step::Open | Step::Refused(_) => {}
        }
        step
    }

    fn keep(&mut self, bytes: &Bytes, bodies: &mut BodyBudget) -> io::Result<()> {
        if let Phase::Receiving {
            receiving,
            incoming,
            ..
        } = &mut self.phase
        {
            receiving.body.write(bytes, bodies)?;
            // The connection may be over already: then no window is needed.
            let _ = incoming.flow_control().release_capacity(bytes.len());
        } else if let Some(upload) = self.upload() {
            upload.body.push(bytes);
            upload.held += bytes.len();
            if upload.body.is_wanted() {
                give_window_back(upload);
            }
        }
        Ok(())
    }

    /// Nothing more will come.
    fn end_body(&mut self) -> Step {
        match &mut self.phase {
            Phase::Receiving { receiving, .. } => {
                finish_body(receiving);
                Step::Whole
            }
            Phase::Waiting { upload, .. } | Phase::Running { upload, .. } => {
                if let Some(upload) = upload.take() {
                    upload.body.end();
                }
                Step::Whole
            }
            _ => Step::Whole,
        }
    }
}

/// The application has room for what it was given.
pub(super) fn give_window_back(upload: &mut Upload) {
    let held = std::mem::take(&mut upload.held);
    if held > 0 {
        // The connection may be over already: then no window is needed.
        let _ = upload.incoming.flow_control().release_capacity(held);
    }
}

fn broken(error: &h2::Error) -> Step {
    match error.reason() {
        Some(code) if error.is_library() && error.is_reset() => Step::Faulty(why_reset(code)),
        _ => Step::Cut,
    }
}

fn too_large(max: u64, client: &Client) -> Refusal {
    Refusal::invalid(&ParseError::BodyTooLarge { max }, client)
}
