//! Requests that are dispatched at their head (`request_buffering = False`): their bodies go to the application as
//! they arrive.
//!
//! The loop reads while the window has room (`pool/streaming_body.rs`), under the body's deadline. `100 Continue` is sent when
//! the application first reads. A body that cannot be received whole is an `OSError` there, and when the application
//! leaves it at that, the answer says whose fault it was. A response that begins before the body is whole closes the
//! connection behind it; what the client still sends is then read and forgotten for a moment (`Waiting::Linger`).

use std::io;
use std::sync::Arc;

use crate::http::{ParseError, Received, Status};
use crate::pool::{Job, RequestBody, StreamingBody};

use super::connection::{Connection, Fate, PeerText, Waiting};
use super::core::Core;

/// The way in of a body that its request did not wait for.
#[derive(Debug)]
pub(super) struct Arriving {
    inflow: Arc<StreamingBody>,
    /// The window is full.
    is_paused: bool,
}

impl Connection {
    /// Whether more of a body is wanted that the application is already reading.
    pub(super) fn wants_arriving(&self) -> bool {
        self.arriving
            .as_ref()
            .is_some_and(|arriving| !arriving.is_paused)
    }

    /// The head is in: hand the request to the pool, and its body after it.
    pub(super) fn dispatch_at_head(&mut self, mut job: Box<Job>, core: &mut Core) {
        let inflow = Arc::new(StreamingBody::new(core.pool.clone(), self.id()));
        job.body = RequestBody::Streaming(inflow.clone());
        self.arriving = Some(Arriving {
            inflow,
            is_paused: false,
        });
        self.exchange.dispatch_at_head();
        self.push_job(job, core);
    }

    /// Feed what has arrived to the application. Returns how many bytes were consumed.
    pub(super) fn receive_arriving(&mut self, bytes: &[u8], core: &Core) -> usize {
        let mut consumed = 0;
        while let Some(arriving) = &mut self.arriving {
            let rest = &bytes[consumed..];
            let step = match self.exchange.receive_streamed_body(rest, &core.limits) {
                Ok(step) => step,
                Err(error) => {
                    self.on_bad_body(&error, core);
                    return bytes.len();
                }
            };
            consumed += step.consumed;
            match step.received {
                Received::Data(range) => arriving.is_paused = arriving.inflow.push(&rest[range]),
                Received::NeedData | Received::Head | Received::Whole => break,
                Received::End => {
                    arriving.inflow.end();
                    self.arriving = None;
                    self.rest_body_timer();
                }
            }
        }
        consumed
    }

    fn on_bad_body(&mut self, error: &ParseError, core: &Core) {
        log::warn!("Invalid request from ip={}: {error}", PeerText(self.peer));
        self.break_body(
            error.status(),
            io::ErrorKind::InvalidData,
            "the request body is malformed or too large",
        );
        core.slot().add_errors(1);
    }

    /// The rest of the body will not come.
    pub(super) fn break_body(&mut self, status: Status, kind: io::ErrorKind, why: &'static str) {
        if let Some(arriving) = self.arriving.take() {
            arriving.inflow.break_off(kind, why);
            self.exchange.give_up_body();
            self.body_fault = Some(status);
            self.refused = true;
            self.rest_body_timer();
        }
    }

    /// The response is over, or the connection is: nobody wants the rest of the body.
    pub(super) fn drop_arriving(&mut self) {
        if let Some(arriving) = self.arriving.take() {
            arriving.inflow.break_off(
                io::ErrorKind::ConnectionReset,
                "the client has disconnected or was answered",
            );
            // The client may still be sending it.
            self.refused = true;
        }
    }

    fn rest_body_timer(&mut self) {
        if self.waiting == Waiting::Body {
            self.waiting = Waiting::Pool;
            self.timer.clear();
        }
    }

    /// The application waits for the body, or has room for more of it.
    pub(super) fn on_wants_body(&mut self, core: &mut Core) -> Fate {
        let Some(arriving) = &mut self.arriving else {
            return Fate::Keep;
        };
        arriving.is_paused = false;
        if self.exchange.wants_continue() {
            core.out.clear();
            self.exchange.send_continue(&mut core.out);
            self.write_out(0, core);
        }
        self.read(core)
    }

    /// While the window has room it is the client's turn, and it has so much time.
    pub(super) fn await_arriving(&mut self, core: &mut Core) {
        if self.waiting == Waiting::Send {
            return;
        }
        if self.wants_arriving() && !self.exchange.wants_continue() {
            self.waiting = Waiting::Body;
            core.set_deadline(self.id(), &mut self.timer, core.timeouts.body);
        } else {
            self.rest_body_timer();
        }
    }
}
