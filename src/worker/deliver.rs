//! Replies of the pool to their connections; jobs whose connection is gone to the log.

use crate::pool::{Job, Reply};

use super::connections::Connections;
use super::load_shedding::Shed;
use super::services::{Services, recycle};
use super::timed_out::TimedOutRequests;
use super::write_side::discard;

/// How many replies are handled in one iteration at most.
const ITERATION_REPLIES: usize = 1024;

/// Handle what the pool has replied.
pub(super) fn replies(
    connections: &mut Connections,
    mut timed_out: Option<&mut TimedOutRequests>,
    services: &mut Services,
) {
    for _ in 0..ITERATION_REPLIES {
        let Some(reply) = services.dispatch.pool().receive() else {
            return;
        };
        on_reply(reply, connections, timed_out.as_deref_mut(), services);
    }
}

fn on_reply(
    reply: Reply,
    connections: &mut Connections,
    timed_out: Option<&mut TimedOutRequests>,
    services: &mut Services,
) {
    let id = match reply {
        Reply::Whole(ref job) | Reply::End(ref job) | Reply::Abort(ref job) => {
            services.dispatch.job_is_back(job.conn);
            job.conn
        }
        Reply::Overdue(job) => {
            services.dispatch.job_is_back(job.conn);
            if connections.get(job.conn).is_none() {
                return orphan(job, connections, timed_out, services);
            }
            let now = services.clock.now();
            return services.dispatch.shed(job, Shed::Waited, now);
        }
        Reply::Hijacked(id) => return connections.hijack(id, services),
        Reply::Head(id, _)
        | Reply::Data(id, _)
        | Reply::Hints(id, _)
        | Reply::Trailers(id, _)
        | Reply::WantsBody(id) => id,
    };
    let Err(reply) = connections.on_reply(id, reply, services) else {
        return;
    };
    match reply {
        Reply::Whole(job) | Reply::End(job) | Reply::Abort(job) | Reply::Overdue(job) => {
            orphan(job, connections, timed_out, services);
        }
        Reply::Head(_, streamed) => streamed.window.close(),
        Reply::Data(_, piece) => discard(piece, &mut services.drops),
        Reply::Hints(..) | Reply::Trailers(..) | Reply::Hijacked(_) | Reply::WantsBody(_) => {}
    }
}

/// Send the answers that the loop gives itself. What they make room for (the next of a pipeline) waits for the next
/// iteration.
pub(super) fn own_answers(
    connections: &mut Connections,
    mut timed_out: Option<&mut TimedOutRequests>,
    services: &mut Services,
) {
    services.dispatch.shed_overdue(services.clock.now());
    for job in services.dispatch.take_answered() {
        if let Err(job) = connections.on_own_answer(job, services) {
            orphan(job, connections, timed_out.as_deref_mut(), services);
        }
    }
}

/// No thread of this process will run what still waits: answer it with 503.
pub(super) fn refuse_waiting(connections: &mut Connections, services: &mut Services) {
    // So that the answers say close.
    connections.begin_drain(services);
    while let Some(job) = services.dispatch.take_first() {
        services.dispatch.refuse(job);
    }
    for job in services.dispatch.take_answered() {
        if let Err(job) = connections.on_own_answer(job, services) {
            orphan(job, connections, None, services);
        }
    }
}

/// The pool is closed: what still waits is logged as cut.
pub(super) fn cut_waiting(services: &mut Services) {
    while let Some(job) = services.dispatch.pool().pop_front() {
        let why = services.shutdown.reason_of_gone();
        services
            .accounting
            .connection_gone(&job, why, &services.clock);
        recycle(job, services);
    }
}

/// A job comes back whose connection is not in the loop: it was hijacked or timed out, or its client is gone.
pub(super) fn orphan(
    job: Box<Job>,
    connections: &mut Connections,
    timed_out: Option<&mut TimedOutRequests>,
    services: &mut Services,
) {
    let was_answered = timed_out.is_some_and(|timed_out| timed_out.on_return(&job, services));
    if connections.end_hijacked(job.conn) {
        services.accounting.hijacked(&job, &services.clock);
    } else if !was_answered && !job.unlogged {
        services.accounting.connection_gone(
            &job,
            services.shutdown.reason_of_gone(),
            &services.clock,
        );
    }
    recycle(job, services);
}
