//! How far a stream is. Only this file assigns [`Phase`].

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;

use super::super::response_stream::ResponseStream;
use crate::http::Status;
use crate::pool::Job;
use crate::worker::body_stream::StreamingRequestBody;
use crate::worker::http1::Receiving;
use crate::worker::spool::BodyBudget;

/// See the module.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its body is being received.
    Receiving {
        receiving: Receiving,
        incoming: RecvStream,
        respond: SendResponse<Bytes>,
        received: u64,
    },
    /// It waits for one of the connection's places in the pool.
    Waiting {
        job: Box<Job>,
        respond: SendResponse<Bytes>,
        upload: Option<Upload>,
    },
    /// The pool has its job.
    Running {
        respond: SendResponse<Bytes>,
        upload: Option<Upload>,
        /// What answers it when its body could not be received, unless the application does.
        fault: Option<Status>,
    },
    /// Its response is on its way.
    Responding(Box<ResponseStream>),
    /// Its client has reset it; its job is still with the pool.
    Reset,
    /// Its client was answered for it; its thread still has it.
    TimedOut,
}

/// A body that goes to the application as it arrives.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) body: StreamingRequestBody,
    pub(super) incoming: RecvStream,
    pub(super) received: u64,
    /// Bytes whose window is given back when the application has room.
    pub(super) held: usize,
}

/// What a stream was before it was answered: its job if it is here, the way to its client, and its body.
pub(super) type Unanswered = (Option<Box<Job>>, SendResponse<Bytes>, Option<Upload>);

impl Phase {
    /// What was received waits for the pool as what `prepare` makes of it.
    pub(super) fn wait(
        &mut self,
        prepare: impl FnOnce(
            Receiving,
            RecvStream,
            &mut SendResponse<Bytes>,
        ) -> (Box<Job>, Option<Upload>),
    ) {
        *self = match std::mem::replace(self, Self::Reset) {
            Self::Receiving {
                receiving,
                incoming,
                mut respond,
                ..
            } => {
                let (job, upload) = prepare(receiving, incoming, &mut respond);
                Self::Waiting {
                    job,
                    respond,
                    upload,
                }
            }
            other => other,
        };
    }

    /// What waits leaves for the pool: this job. `None`: it does not wait.
    pub(super) fn run(&mut self) -> Option<Box<Job>> {
        match std::mem::replace(self, Self::Reset) {
            Self::Waiting {
                job,
                respond,
                upload,
            } => {
                *self = Self::Running {
                    respond,
                    upload,
                    fault: None,
                };
                Some(job)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// The head of its response is sent.
    pub(super) fn respond(&mut self, response: ResponseStream) {
        *self = Self::Responding(Box::new(response));
    }

    /// An error page answers it, of which nothing was sent before. `None`: it is answered.
    pub(super) fn answer(&mut self, bodies: &mut BodyBudget) -> Option<Unanswered> {
        match std::mem::replace(self, Self::Reset) {
            Self::Receiving {
                receiving, respond, ..
            } => Some((Some(receiving.give_up(bodies)), respond, None)),
            Self::Waiting {
                job,
                respond,
                upload,
            } => Some((Some(job), respond, upload)),
            Self::Running {
                respond, upload, ..
            } => Some((None, respond, upload)),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Its client wants no answer any more. Returns what it was; one that has timed out stays so.
    pub(super) fn cancel(&mut self) -> Self {
        match self {
            Self::TimedOut => Self::TimedOut,
            _ => std::mem::replace(self, Self::Reset),
        }
    }

    /// Its client was answered, and the pool still has its job.
    pub(super) fn time_out(&mut self) {
        *self = Self::TimedOut;
    }
}

impl Upload {
    /// The rest of the body is not wanted.
    pub(super) fn drop_rest(self) {
        self.body.fail(
            std::io::ErrorKind::ConnectionReset,
            "the client has disconnected or was answered",
        );
    }
}
