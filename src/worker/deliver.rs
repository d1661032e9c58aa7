//! Replies of the pool to their connections; jobs whose connection is gone to the log.

use crate::pool::{AccessLine, Job, Reply};

use super::connections::Connections;
use super::load_shedding::Shed;
use super::requests::{Requests, recycle};
use super::shared_io::SharedIo;
use super::timed_out::TimedOutRequests;
use super::write_side::discard;

/// How many replies are handled in one iteration at most.
const ITERATION_REPLIES: usize = 1024;

/// Handle what the pool has replied.
pub(super) fn replies(
    connections: &mut Connections,
    mut timed_out: Option<&mut TimedOutRequests>,
    requests: &mut Requests,
    io: &mut SharedIo,
) {
    for _ in 0..ITERATION_REPLIES {
        let Some(reply) = requests.dispatch.pool().receive() else {
            return;
        };
        on_reply(reply, connections, timed_out.as_deref_mut(), requests, io);
    }
}

fn on_reply(
    reply: Reply,
    connections: &mut Connections,
    timed_out: Option<&mut TimedOutRequests>,
    requests: &mut Requests,
    io: &mut SharedIo,
) {
    let id = match reply {
        Reply::Whole(ref job) | Reply::End(ref job) | Reply::Abort(ref job) => {
            requests.dispatch.job_is_back(job.conn);
            job.conn
        }
        Reply::Overdue(job) => {
            requests.dispatch.job_is_back(job.conn);
            if connections.get(job.conn).is_none() {
                return orphan(job, connections, timed_out, requests);
            }
            let now = requests.clock.now();
            return requests.dispatch.shed(job, Shed::Waited, now);
        }
        Reply::Hijacked(id) => return connections.hijack(id, &requests.dispatch),
        Reply::Head(id, _)
        | Reply::Data(id, _)
        | Reply::Spooled(id)
        | Reply::Hints(id, _)
        | Reply::Trailers(id, _)
        | Reply::WantsBody(id) => id,
    };
    let Err(reply) = connections.on_reply(id, reply, requests, io) else {
        return;
    };
    match reply {
        Reply::Whole(job) | Reply::End(job) | Reply::Abort(job) | Reply::Overdue(job) => {
            orphan(job, connections, timed_out, requests);
        }
        Reply::Head(_, streamed) => streamed.window.close(),
        Reply::Data(_, piece) => discard(piece, &mut requests.drops),
        Reply::Spooled(_)
        | Reply::Hints(..)
        | Reply::Trailers(..)
        | Reply::Hijacked(_)
        | Reply::WantsBody(_) => {}
    }
}

/// Send the answers that the loop gives itself. What they make room for (the next of a pipeline) waits for the next
/// iteration.
pub(super) fn own_answers(
    connections: &mut Connections,
    mut timed_out: Option<&mut TimedOutRequests>,
    requests: &mut Requests,
    io: &mut SharedIo,
) {
    requests.dispatch.shed_overdue(requests.clock.now());
    for job in requests.dispatch.take_answered() {
        if let Err(job) = connections.on_own_answer(job, requests, io) {
            orphan(job, connections, timed_out.as_deref_mut(), requests);
        }
    }
}

/// No thread of this process will run what still waits: answer it with 503.
pub(super) fn refuse_waiting(
    connections: &mut Connections,
    requests: &mut Requests,
    io: &mut SharedIo,
) {
    // So that the answers say close.
    connections.begin_drain(requests, io);
    while let Some(job) = requests.dispatch.take_first() {
        requests.dispatch.refuse(job);
    }
    for job in requests.dispatch.take_answered() {
        if let Err(job) = connections.on_own_answer(job, requests, io) {
            orphan(job, connections, None, requests);
        }
    }
}

/// The pool is closed: what still waits is logged as cut.
pub(super) fn cut_waiting(requests: &mut Requests) {
    while let Some(mut job) = requests.dispatch.pool().pop_front() {
        let why = requests.shutdown.reason_of_gone();
        requests
            .accounting
            .client_gone(&mut job, why, &requests.clock);
        recycle(job, requests);
    }
}

/// A job comes back whose connection is not in the loop: it was hijacked or timed out, or its client is gone.
pub(super) fn orphan(
    mut job: Box<Job>,
    connections: &mut Connections,
    timed_out: Option<&mut TimedOutRequests>,
    requests: &mut Requests,
) {
    let was_answered = timed_out.is_some_and(|timed_out| timed_out.on_return(&job, requests));
    if connections.end_hijacked(job.conn) {
        requests.accounting.hijacked(&job, &requests.clock);
    } else if was_answered || job.access_line == AccessLine::Omitted {
        requests.accounting.forget_broken_off(job.conn);
    } else {
        requests.accounting.client_gone(
            &mut job,
            requests.shutdown.reason_of_gone(),
            &requests.clock,
        );
    }
    recycle(job, requests);
}
