//! Answers that are not the application's, and responses that it does not end.

use crate::http::Status;
use crate::pool::Job;

use super::connection::{Answered, Connection, Fate};
use super::core::Core;
use super::request_line::RequestLine;

impl Connection {
    /// Answer with an error page and close afterwards.
    pub(super) fn refuse(&mut self, status: Status, message: &str, core: &mut Core) {
        self.drop_spool(core);
        self.refused = true;
        if status.code != Status::INTERNAL_SERVER_ERROR.code {
            core.slot().add_refused(1);
        }
        core.out.clear();
        let (look, out) = core.look_and_out();
        self.exchange.refuse(status, message, &look, out);
        self.write_out(0, core);
        let job = self.job.take();
        let job = job.unwrap_or_else(|| self.fresh_job(core));
        self.answered = Some(Answered {
            job,
            status: status.code,
            reason: message.to_owned().into(),
        });
    }

    /// The application failed: 500 if nothing was sent, else break off so that the client can tell.
    pub(super) fn on_abort(&mut self, job: Box<Job>, core: &mut Core) -> Fate {
        if self.exchange.is_dispatched() {
            self.job = Some(job);
            let status = self.body_fault.unwrap_or(Status::INTERNAL_SERVER_ERROR);
            self.refuse(status, "", core);
            self.note_reason(match self.body_fault {
                Some(_) => "request body incomplete",
                None => "application failed",
            });
        } else {
            log::error!(
                "Response to {} was broken off after {} bytes of its body; closing the connection.",
                RequestLine(&job),
                self.body_sent
            );
            self.exchange.abort();
            self.answer_streamed(job, "application failed");
        }
        core.slot().add_errors(1);
        self.settle(core)
    }

    /// The response that was streamed has ended early.
    pub(super) fn answer_streamed(&mut self, mut job: Box<Job>, reason: &'static str) {
        job.response = self.streamed.take().unwrap_or_default();
        self.answered = Some(Answered {
            status: self.status,
            job,
            reason: reason.into(),
        });
    }
}
